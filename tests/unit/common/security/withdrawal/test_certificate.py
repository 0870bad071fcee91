"""A request to leave and its certificate: signed once, read in one spelling, refused if changed."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.common.errors import InputError
from wardround.common.security.lineage import sign_statement
from wardround.common.security.withdrawal.certificate import (
    Checkpoint,
    RepeatedRound,
    RevokedModel,
    RunRounds,
    WithdrawalCertificate,
    open_certificate,
    sign_certificate,
)
from wardround.common.security.withdrawal.request import (
    LARGEST_REQUEST,
    WithdrawalRequest,
    open_request,
    sign_request,
)

SITE, SERVER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
PARENT, CHILD = "a" * 64, "b" * 64
ASKED = WithdrawalRequest(study=PARENT, site="west", server="", without="site", time=1)
REQUEST = sign_request(SITE, ASKED)
SAID = WithdrawalCertificate(
    model="c" * 64,
    request=REQUEST.line.decode(),
    parent=RunRounds(study=PARENT, run="1" * 32, rounds=10),
    repeat=RunRounds(study=CHILD, run="2" * 32, rounds=6),
    checkpoint=Checkpoint(round=4, model="d" * 64, line="e" * 64),
    repeated=[RepeatedRound(round=5, line="f" * 64), RepeatedRound(round=6, line="0" * 64)],
    sites=["1" * 64, "2" * 64],
    revoked=[RevokedModel(study=PARENT, model="3" * 64, round=10)],
    is_exact=True,
    why=["on one kind of machine"],
    wardround="0",
    time=2,
)
LINE = sign_certificate(SERVER, SAID)


def test_what_was_signed_is_read_back() -> None:
    assert open_request(REQUEST.line) == REQUEST
    found = open_certificate(LINE + b"\n")
    assert found.said == SAID
    assert found.request == REQUEST
    assert found.server == SERVER.public_key().public_bytes_raw().hex()


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, len(LINE) - 1), bit=st.integers(0, 7))
def test_a_certificate_with_one_changed_bit_is_refused(place: int, bit: int) -> None:
    changed = bytearray(LINE)
    changed[place] ^= 1 << bit
    with pytest.raises(InputError, match="certificate"):
        open_certificate(bytes(changed))


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, len(REQUEST.line) - 1), bit=st.integers(0, 7))
def test_a_request_with_one_changed_bit_is_refused(place: int, bit: int) -> None:
    changed = bytearray(REQUEST.line)
    changed[place] ^= 1 << bit
    with pytest.raises(InputError, match="request"):
        open_request(bytes(changed))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_whatever_comes_is_refused_in_words(content: bytes) -> None:
    with pytest.raises(InputError):
        open_request(content)
    with pytest.raises(InputError):
        open_certificate(content)


def test_what_is_too_long_is_not_read() -> None:
    with pytest.raises(InputError, match="longer"):
        open_request(b"{" * (LARGEST_REQUEST + 1))


OWN = SITE.public_key().public_bytes_raw().hex()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sites": [OWN]}, "among those that trained again"),
        ({"parent": RunRounds(study=CHILD, run="1" * 32, rounds=10)}, "another study"),
        ({"repeat": RunRounds(study=PARENT, run="2" * 32, rounds=6)}, "nothing was repeated"),
        ({"repeated": [RepeatedRound(round=6, line="0" * 64)]}, "leaves a round out"),
    ],
)
def test_a_certificate_that_contradicts_itself_is_refused(
    changes: dict[str, object], said: str
) -> None:
    line = sign_certificate(SERVER, SAID.model_copy(update=changes))
    with pytest.raises(InputError, match=said):
        open_certificate(line)


def test_a_certificate_around_somebody_else_s_request_is_refused() -> None:
    other = sign_request(SERVER, ASKED.model_copy(update={"study": "9" * 64}))
    line = sign_certificate(SERVER, SAID.model_copy(update={"request": other.line.decode()}))
    with pytest.raises(InputError, match="another study"):
        open_certificate(line)


def test_another_statement_of_the_same_key_is_no_request() -> None:
    statement = {"_type": "x", "subject": [{"name": "study", "digest": {"sha256": PARENT}}]}
    with pytest.raises(InputError, match="says something else"):
        open_request(sign_statement(SITE, {**statement, "predicate": {}}))
