"""The arithmetic of a private step: whole float32, on every device.

A GPU may multiply in TF32, whose products have 11 significant bits. Then a gradient that is summed
is not the one whose norm was measured, and a patient adds more than the clip norm. What a process
or an environment variable has chosen for speed therefore does not hold in a private step.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_WHOLE = "highest"


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Compute in whole float32, by the same algorithms each time; afterwards all is as it was.

    The settings are the process's: nothing else should compute meanwhile.
    """
    products, layers = torch.backends.cuda.matmul, torch.backends.cudnn
    precision, short_products = torch.get_float32_matmul_precision(), products.allow_tf32
    before = (layers.allow_tf32, layers.deterministic, layers.benchmark)
    try:
        torch.set_float32_matmul_precision(_WHOLE)
        products.allow_tf32 = layers.allow_tf32 = False
        layers.deterministic, layers.benchmark = True, False
        yield
    finally:
        layers.allow_tf32, layers.deterministic, layers.benchmark = before
        products.allow_tf32 = short_products  # before the precision, which it changes
        torch.set_float32_matmul_precision(precision)
