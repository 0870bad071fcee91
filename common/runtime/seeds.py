"""Seeds for everything that may be reproduced.

Noise that protects patients never comes from here.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(*parts: str | int) -> int:
    """Return a 63-bit seed that depends on every part and on nothing else."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(*parts: str | int) -> torch.Generator:
    """Return a CPU generator seeded with :func:`derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed the generators that torch's own layers draw from, on the CPU and on a device.

    ``torch.manual_seed`` would also queue a seed for GPUs that nobody uses, with a stack trace each
    time: 6 ms a call.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def dropout_seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Have torch's own layers draw from a seed; who drew before goes on after as if nobody had.

    Args:
        device: Where the layers are.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seed_dropout(seed, device)
        yield
