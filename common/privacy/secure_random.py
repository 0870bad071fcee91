"""Randomness that nobody can foresee: keyed by the operating system, expanded by AES-256.

Sampling and noise come from here and from nowhere else. torch's own generator would not do: it is
seeded by the study, on the CPU from 32 bits, and its future follows from its past.
"""

import math
import os
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from torch import Generator, Tensor

from wardround.common.errors import RunError

KEY_BYTES = 32  # AES-256
_BLOCK_BYTES = 16  # AES works on blocks of 128 bits
# 512 kB of words stay in a core's cache between the passes: measured on one core, 11 million normal
# numbers take 0.31 s so, and 0.46 s in blocks of 8 MB. A GPU wants few large blocks.
_CPU_BLOCK, _GPU_BLOCK = 1 << 16, 1 << 22
_CPU = torch.device("cpu")
_WITHOUT_SIGN = (1 << 63) - 1  # clears the sign bit of an int64


class Randomness:
    """A stream of random words: AES-256 in counter mode under a key of the operating system.

    A copy, or a child process, would draw the same numbers again, and the difference of two updates
    with the same noise has none: an object cannot be copied or pickled, and works only in the
    process that made it.
    """

    def __init__(self, key: bytes | None = None) -> None:
        """Start a stream.

        Args:
            key: 32 bytes, for tests alone. No study, and nothing that arrives at a site, reaches
                this argument.
        """
        # The initial counter may be the same each time because no key is used twice.
        cipher = Cipher(
            algorithms.AES(os.urandom(KEY_BYTES) if key is None else key),
            modes.CTR(bytes(_BLOCK_BYTES)),
        )
        self._stream = cipher.encryptor()
        self._process = os.getpid()

    def __reduce__(self) -> str | tuple[object, ...]:
        msg = "a stream of secret randomness cannot be copied or pickled: make a new one."
        raise TypeError(msg)

    def words(self, count: int) -> Tensor:
        """Return ``(count,)`` int64, every bit of them random.

        Raises:
            RunError: Another process made this object.
        """
        if os.getpid() != self._process:
            msg = "randomness was made by another process: make it in the one that draws."
            raise RunError(msg)
        if count == 0:
            return torch.empty(0, dtype=torch.int64)
        room = bytearray(count * 8 + _BLOCK_BYTES - 1)
        self._stream.update_into(bytes(count * 8), room)
        return torch.frombuffer(room, dtype=torch.int64, count=count)

    def uniform(self, count: int) -> Tensor:
        """Return ``(count,)`` float64 in (0, 1): odd multiples of 2^-53."""
        parts = self.words(count).bitwise_and((1 << 52) - 1)
        return parts.double().add_(0.5).mul_(2.0**-52)

    def normal(self, shape: tuple[int, ...], device: torch.device = _CPU) -> Tensor:
        """Return standard normal numbers, float64, by inversion of 64 bits a number.

        One bit is the sign, the others the tail probability, an odd multiple of 2^-65: the largest
        number is 9.16, and that one is beyond it has a probability below 2^-64. The bits are made
        on the CPU, the rest is done on the device.

        Returns:
            A tensor of ``shape``, float64, on the device.
        """
        count = math.prod(shape)
        numbers = torch.empty(count, dtype=torch.float64, device=device)
        for start, end in blocks(count, device):
            block = numbers[start:end]
            words = _brought(self.words(end - start), device)
            tail = words.bitwise_and(_WITHOUT_SIGN).double().add_(0.5).mul_(2.0**-64)
            below = torch.special.ndtri(tail)
            torch.where(words < 0, below, below.neg(), out=block)
        return numbers.reshape(shape)

    def coins(self, count: int, probability: float) -> Tensor:
        """Return ``(count,)`` bool, each true with a probability, by comparison of whole numbers.

        What is true has at most the probability asked for, and less by under 2^-64.

        Raises:
            ValueError: The probability lies outside [0, 1].
        """
        if not 0 <= probability <= 1:
            msg = f"{probability} is no probability: give a number from 0 to 1."
            raise ValueError(msg)
        if probability == 1:
            return torch.ones(count, dtype=torch.bool)
        threshold = np.uint64(int(Fraction(probability) * 2**64))
        unsigned: NDArray[np.uint64] = self.words(count).numpy().view(np.uint64)
        return torch.from_numpy(unsigned < threshold)

    def choose(self, count: int, most: int) -> Tensor:
        """Return at most ``most`` of the numbers below ``count``, all sets as likely, ascending.

        Returns:
            ``(min(count, most),)`` int64.
        """
        if count <= most:
            return torch.arange(count)
        return self.words(count).argsort()[:most].sort().values

    def seed(self) -> int:
        """Return 63 bits for a generator that draws what needs no secrecy."""
        return int(self.words(1)) & _WITHOUT_SIGN

    def generator(self) -> Generator:
        """Return a generator of torch for what needs no secrecy: patches and augmentation.

        torch keeps 32 bits of the seed. That is enough: whatever a patient's augmentation was, its
        contribution is clipped, and nobody else's depends on it.
        """
        return Generator().manual_seed(self.seed())


def _brought(words: Tensor, device: torch.device) -> Tensor:
    """Return words on a device; a GPU fetches them itself, from page-locked memory."""
    if device.type == "cpu":
        return words
    room = torch.empty(words.shape, dtype=words.dtype, pin_memory=True)
    return room.copy_(words).to(device, non_blocking=True)


def blocks(count: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Yield the begin and end of parts of a long vector that are best worked on one by one."""
    size = _CPU_BLOCK if device.type == "cpu" else _GPU_BLOCK
    for start in range(0, count, size):
        yield start, min(start + size, count)
