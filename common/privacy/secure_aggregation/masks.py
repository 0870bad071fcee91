"""Masks: the stream of ChaCha20 (RFC 8439) under a key of 256 bits, as words of the modulus.

Each key masks one vector. Words are little-endian, and sums of them wrap around: that is the
arithmetic modulo 2^16, 2^32 or 2^64 that unsigned numbers of NumPy have.
"""

from typing import TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

Words: TypeAlias = NDArray[np.unsignedinteger]
WORD_TYPES: dict[int, np.dtype[np.unsignedinteger]] = {
    16: np.dtype("<u2"),
    32: np.dtype("<u4"),
    64: np.dtype("<u8"),
}
_FIRST_BLOCK = bytes(16)  # a counter of 0 and a nonce of 0: no key makes two streams
_PART_BYTES = 1 << 20  # stays in a core's cache between being made and being added
_ZEROS = bytes(_PART_BYTES)


def add_mask(vector: Words, key: bytes, subtract: bool = False) -> None:
    """Add the mask of a key to a vector, in place, modulo its words.

    Args:
        vector: ``(d,)`` unsigned words.
        key: 32 bytes, used for no other vector.
        subtract: Whether the mask is taken away instead.
    """
    stream = Cipher(ChaCha20(key, _FIRST_BLOCK), None).encryptor()
    count = _PART_BYTES // vector.itemsize
    room = bytearray(_PART_BYTES)
    words = np.frombuffer(room, dtype=vector.dtype)
    combined = np.subtract if subtract else np.add
    for start in range(0, len(vector), count):
        part = vector[start : start + count]
        size = part.size * vector.itemsize
        stream.update_into(memoryview(_ZEROS)[:size], memoryview(room)[:size])
        combined(part, words[: part.size], out=part)
