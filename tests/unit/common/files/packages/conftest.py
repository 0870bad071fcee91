"""Packages that a test installs are forgotten after it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from wardround.common.files.packages.importing import forget_packages


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, as the one that pip installs into."""
    root = tmp_path / "site-packages"
    root.mkdir()
    monkeypatch.syspath_prepend(str(root))
    yield root
    forget_packages()
