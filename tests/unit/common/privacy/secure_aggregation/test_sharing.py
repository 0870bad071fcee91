"""Shamir's shares: any threshold of them give the secret, and fewer say nothing."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.common.privacy.secure_aggregation.refusals import MaskingError
from wardround.common.privacy.secure_aggregation.sharing import PRIME, combine, split

_SECRETS = st.binary(min_size=32, max_size=32)


def test_the_modulus_is_prime() -> None:
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 60):  # Miller and Rabin: a composite number passes with 4^-58
        value = pow(base, odd, PRIME)
        powers = [pow(value, 2**step, PRIME) for step in range(twos)]
        assert value == 1 or PRIME - 1 in powers


@settings(max_examples=40, deadline=None)
@given(secret=_SECRETS, data=st.data())
def test_any_threshold_of_shares_gives_the_secret(secret: bytes, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    threshold = data.draw(st.integers(1, count))
    shares = split(secret, threshold, count, os.urandom)
    chosen = data.draw(st.permutations(range(1, count + 1)))[:threshold]
    assert combine({x: shares[x - 1] for x in chosen}) == secret


@settings(max_examples=20, deadline=None)
@given(secret=_SECRETS, other=_SECRETS)
def test_fewer_shares_fit_every_secret(secret: bytes, other: bytes) -> None:
    shares = split(secret, 3, 5, os.urandom)
    # Whatever two sites hold, a third share exists that makes any other secret of it.
    x1, x2, x3 = 1, 2, 3
    y1, y2 = (int.from_bytes(shares[x - 1], "big") for x in (x1, x2))
    wanted = int.from_bytes(other, "big")
    weight = {x: _weight(x, [y for y in (x1, x2, x3) if y != x]) for x in (x1, x2, x3)}
    third = (wanted - y1 * weight[x1] - y2 * weight[x2]) * pow(weight[x3], -1, PRIME) % PRIME
    assert combine({x1: shares[0], x2: shares[1], x3: third.to_bytes(33, "big")}) == other


def _weight(x: int, others: list[int]) -> int:
    found = 1
    for other in others:
        found = found * -other * pow(x - other, -1, PRIME) % PRIME
    return found


def test_the_secret_is_what_the_polynomial_is_at_zero() -> None:
    drawn = iter([(5).to_bytes(64, "big"), (7).to_bytes(64, "big")])
    draw: Callable[[int], bytes] = lambda count: next(drawn)  # noqa: E731
    shares = split((11).to_bytes(32, "big"), 3, 4, draw)
    values = [int.from_bytes(share, "big") for share in shares]
    assert values == [11 + 5 * x + 7 * x * x for x in (1, 2, 3, 4)]


def test_shares_of_two_secrets_do_not_give_either() -> None:
    first, second = (hashlib.sha256(word).digest() for word in (b"one", b"two"))
    ours, theirs = split(first, 2, 3, os.urandom), split(second, 2, 3, os.urandom)
    found = b""
    with suppress(MaskingError):  # it may be above 2^256
        found = combine({1: ours[0], 2: theirs[1]})
    assert found not in (first, second)


def test_what_is_no_number_of_the_field_is_refused() -> None:
    with pytest.raises(MaskingError, match="false-share"):
        combine({1: b"\xff" * 33})
    with pytest.raises(MaskingError, match="false-share"):
        combine({0: bytes(33)})


def test_a_secret_of_another_size_is_refused() -> None:
    for secret, threshold in ((bytes(31), 1), (bytes(32), 4)):
        with pytest.raises(ValueError, match="cannot split"):
            split(secret, threshold, 3, os.urandom)


def test_every_pair_of_five_shares_gives_the_secret() -> None:
    secret = hashlib.sha256(b"secret").digest()
    shares = split(secret, 2, 5, os.urandom)
    for pair in combinations(range(1, 6), 2):
        assert combine({x: shares[x - 1] for x in pair}) == secret
