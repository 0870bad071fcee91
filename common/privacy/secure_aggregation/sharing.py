"""Shamir's secret sharing: any ``threshold`` shares give the secret, fewer say nothing of it.

Shamir 1979, over the whole numbers modulo the smallest prime above 2^256, so that every secret of
32 bytes is a number of the field.
"""

from collections.abc import Callable, Mapping

from wardround.common.privacy.secure_aggregation.refusals import Refusal, refuse

PRIME = 2**256 + 297
SECRET_BYTES, SHARE_BYTES = 32, 33
_DRAWN_BYTES = 64  # of a coefficient: twice the field's, so that none is likelier by over 2^-255
Draw = Callable[[int], bytes]


def split(secret: bytes, threshold: int, count: int, draw: Draw) -> list[bytes]:
    """Return ``count`` shares of a secret, of 33 bytes; the i-th belongs to the point i + 1.

    Args:
        secret: 32 bytes.
        draw: Gives so many bytes that nobody can foresee.

    Raises:
        ValueError: The secret is not of 32 bytes, or there would be fewer shares than are needed.
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= count:
        msg = f"cannot split {len(secret)} bytes into {count} shares of which {threshold} suffice."
        raise ValueError(msg)
    coefficients = [int.from_bytes(secret, "big")]
    coefficients += [
        int.from_bytes(draw(_DRAWN_BYTES), "big") % PRIME for _ in range(threshold - 1)
    ]
    return [_value(coefficients, x).to_bytes(SHARE_BYTES, "big") for x in range(1, count + 1)]


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Return the 32 bytes that shares belong to, by their points.

    Raises:
        MaskingError: They are not shares of one secret of 32 bytes.
    """
    points = {x: int.from_bytes(share, "big") for x, share in shares.items()}
    if any(not 0 < x < PRIME or y >= PRIME for x, y in points.items()):
        refuse(Refusal.FALSE_SHARE, "a share is no number of the field")
    secret = 0
    for x, y in points.items():
        above, below = 1, 1
        for other in points:
            if other != x:
                above, below = above * -other % PRIME, below * (x - other) % PRIME
        secret = (secret + y * above * pow(below, -1, PRIME)) % PRIME
    if secret >= 2**256:
        refuse(Refusal.FALSE_SHARE, "shares do not belong to one secret")
    return secret.to_bytes(SECRET_BYTES, "big")


def _value(coefficients: list[int], x: int) -> int:
    """Return the value of a polynomial, by Horner's rule."""
    found = 0
    for coefficient in reversed(coefficients):
        found = (found * x + coefficient) % PRIME
    return found
