"""What the tests of strategies need of their process."""

from collections.abc import Iterator

import pytest
import torch

from wardround.common.flower.site_grid import claim_identity


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Claim a run, which Flower's messages ask for, and keep tiny sums on one thread."""
    claim_identity(1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
