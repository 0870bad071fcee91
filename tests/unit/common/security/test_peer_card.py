"""A public key on its way: read as it was written, or not at all; words that no other key has."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.common.errors import InputError
from wardround.common.security.peer_card import (
    PeerCard,
    _proquint,
    read_card,
    same_words,
    write_card,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CARD = PeerCard("north", KEY.public_key())


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_card(tmp_path / "north.peer", CARD.signed(KEY))
    assert read_card(tmp_path / "north.peer") == CARD


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1", "lusab babad"),
        ("63.84.220.193", "gutih tugad"),
        ("140.98.193.141", "mudof sakat"),
    ],
)
def test_words_are_those_of_the_published_table(address: str, words: str) -> None:
    a, b, c, d = (int(part) for part in address.split("."))
    assert f"{_proquint(a << 8 | b)} {_proquint(c << 8 | d)}" == words


def test_words_are_heard_whatever_stands_between_them() -> None:
    assert same_words(CARD.words.replace("-", "  ").upper(), CARD.words)
    assert len(CARD.words.split("-")) == 8
    first = CARD.words[0]
    assert not same_words(("b" if first != "b" else "d") + CARD.words[1:], CARD.words)
    assert not same_words("", CARD.words)


def test_another_name_and_another_key_have_other_words() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    assert len({CARD.words, PeerCard("nord", CARD.key).words, PeerCard("north", other).words}) == 3


def spoilt() -> list[str]:
    said = json.loads(CARD.signed(KEY))
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    return [
        "",
        "[]",
        "[" * 9_000,
        json.dumps({**said, "peer": "south"}),  # signed for another name
        json.dumps({**said, "key": other.public_key().public_bytes_raw().hex()}),
        json.dumps({**said, "signature": "00"}),
        json.dumps({**said, "peer": 3}),
        PeerCard("no\nrth", CARD.key).signed(KEY),
        PeerCard("n" * 9_000, CARD.key).signed(KEY),
    ]


@pytest.mark.parametrize("text", spoilt())
def test_what_is_no_card_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "card").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="export it again"):
        read_card(tmp_path / "card")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_card(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be written"):
        write_card(tmp_path / "none" / "card", "")
