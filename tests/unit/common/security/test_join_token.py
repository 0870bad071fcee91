"""Tokens: what is read back, and that no damage passes."""

import string
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import assume, given
from hypothesis import strategies as st

from wardround.client.site.folder import open_site
from wardround.common.errors import InputError
from wardround.common.security.join_token import JoinToken, check_site_name, parse_token
from wardround.server.identity.pki import INVITATION, fingerprint, make_authority

_SIGNS = string.ascii_letters + string.digits + "-_"


@cache
def a_token() -> JoinToken:
    authority, key = make_authority("Lung-2026"), ec.generate_private_key(ec.SECP256R1())
    invitation = authority.issue(INVITATION, "north", key.public_key(), timedelta(hours=1))
    return JoinToken("fl.example.org:8443", fingerprint(authority.certificate), invitation, key)


def test_a_token_is_read_as_it_was_written() -> None:
    token = a_token()
    read = parse_token(token.text())
    assert (read.address, read.ca_sha256) == (token.address, token.ca_sha256)
    assert read.certificate == token.certificate
    assert read.key.private_numbers() == token.key.private_numbers()
    assert read.site == "north"


def test_a_token_folded_by_a_terminal_is_read() -> None:
    text = a_token().text()
    folded = "  \n".join(text[start : start + 72] for start in range(0, len(text), 72)) + "\r\n"
    assert parse_token(folded).text() == text


@given(st.integers(0, 10**6), st.sampled_from(_SIGNS))
def test_one_changed_sign_is_refused(place: int, sign: str) -> None:
    text = a_token().text()
    place %= len(text)
    assume(text[place] != sign)
    with pytest.raises(InputError, match="token"):
        parse_token(text[:place] + sign + text[place + 1 :])


@pytest.mark.parametrize("name", ["n", "no", "nor", "nort"])
def test_the_last_sign_cannot_be_another(name: str) -> None:
    """Base64 has more than one way to write some last signs; a token has one."""
    authority, key = make_authority("Lung-2026"), ec.generate_private_key(ec.SECP256R1())
    invitation = authority.issue(INVITATION, name, key.public_key(), timedelta(hours=1))
    text = JoinToken("localhost:1", bytes(32), invitation, key).text()
    read = 0
    for sign in _SIGNS:
        try:
            read += parse_token(text[:-1] + sign).site == name
        except InputError:
            continue
    assert read == 1


@given(st.integers(0, 10**6), st.integers(1, 60))
def test_a_missing_piece_is_refused(start: int, length: int) -> None:
    text = a_token().text()
    start %= len(text)
    with pytest.raises(InputError, match="token"):
        parse_token(text[:start] + text[start + length :])


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_two_signs_exchanged_are_refused(first: int, second: int) -> None:
    signs = list(a_token().text())
    first, second = first % len(signs), second % len(signs)
    assume(signs[first] != signs[second])
    signs[first], signs[second] = signs[second], signs[first]
    with pytest.raises(InputError, match="token"):
        parse_token("".join(signs))


@given(st.one_of(st.text(), st.text(_SIGNS).map(lambda text: f"wardround-{text}")))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="token"):
        parse_token(text)


def test_a_refusal_does_not_repeat_the_token() -> None:
    text = a_token().text()
    with pytest.raises(InputError) as refused:
        parse_token(text[:-1])
    assert text[20:40] not in str(refused.value)


def test_a_key_that_is_not_the_invitations_is_refused() -> None:
    token, other = a_token(), ec.generate_private_key(ec.SECP256R1())
    forged = JoinToken(token.address, token.ca_sha256, token.certificate, other)
    with pytest.raises(InputError, match="damaged"):
        parse_token(forged.text())


@pytest.mark.parametrize("name", ["../north", "/etc", "north/..", "."])
def test_a_token_cannot_name_a_site_that_is_a_path(name: str) -> None:
    authority, key = make_authority("Lung-2026"), ec.generate_private_key(ec.SECP256R1())
    invitation = authority.issue(INVITATION, name, key.public_key(), timedelta(hours=1))
    forged = JoinToken("fl.example.org:8443", bytes(32), invitation, key)
    with pytest.raises(InputError, match="cannot be the name of a site"):
        parse_token(forged.text())


NAMES = ["north", "Łódź 2", "Νότος", "Αθήνα-2", "Север", "東京 病院", "서울", "42"]


@pytest.mark.parametrize("name", NAMES)
def test_a_site_may_be_named_in_its_own_alphabet(name: str, tmp_path: Path) -> None:
    authority, key = make_authority("Lung-2026"), ec.generate_private_key(ec.SECP256R1())
    invitation = authority.issue(INVITATION, name, key.public_key(), timedelta(hours=1))
    token = JoinToken("fl.example.org:8443", bytes(32), invitation, key)
    assert parse_token(token.text()).site == name
    (tmp_path / "site.toml").write_text(f'name = "{name}"\n', encoding="utf-8")
    assert open_site(tmp_path).name == name


@pytest.mark.parametrize(
    "name",
    [
        "nоrth",
        "ΝΟΤΟ",
        "СОМ",
        "Nότος",
        "東京 north",
        "שלום",
        "مستشفى",
        "🏥",
        "漢" * 22,
        "-north",
        "a/б",
    ],
    ids=ascii,
)
def test_a_name_of_two_alphabets_or_one_that_looks_latin_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="letters of one alphabet"):
        check_site_name(name)
