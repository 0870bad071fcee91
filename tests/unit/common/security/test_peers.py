"""The keys of the other sites: they lie in the folder, and are read whole or not at all."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.common.errors import DataError, InputError
from wardround.common.security.peer_card import PeerCard
from wardround.common.security.peers import (
    PEERS_FILE,
    add_peer,
    known_peers,
    read_peers,
    remove_peer,
    require_new,
    write_peers,
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    keys = {name: Ed25519PrivateKey.generate().public_key() for name in ("north", "south")}
    write_peers(tmp_path, keys)
    found = read_peers(tmp_path)
    assert {n: k.public_bytes_raw() for n, k in found.items()} == {
        n: k.public_bytes_raw() for n, k in keys.items()
    }


_ONE = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


@pytest.mark.parametrize(
    "said",
    [
        f'{{"north": "{_ONE}", "south": "{_ONE}"}}',
        "",
        "[]",
        "{}",
        '{"north": 3}',
        '{"north": "00"}',
        "[" * 9000,
    ],
)
def test_a_damaged_list_is_refused(said: str, tmp_path: Path) -> None:
    (tmp_path / PEERS_FILE).write_text(said, encoding="utf-8")
    with pytest.raises(DataError, match=PEERS_FILE):
        read_peers(tmp_path)


def test_a_site_that_knows_nobody_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nobody here knows"):
        read_peers(tmp_path)


def test_a_name_comes_to_the_list_once_and_with_one_key(tmp_path: Path) -> None:
    keys = {name: Ed25519PrivateKey.generate() for name in ("north", "south", "west")}
    cards = {name: PeerCard(name, key.public_key()) for name, key in keys.items()}
    own = cards["north"]
    assert require_new({}, cards["south"], own, is_new_key=False)
    add_peer(tmp_path, cards["south"])
    known = known_peers(tmp_path)
    assert not require_new(known, cards["south"], own, is_new_key=False)
    for card, reason in (
        (own, "itself"),
        (PeerCard("north", cards["west"].key), "itself"),  # this site's name, another key
        (PeerCard("west", own.key), "itself"),  # this site's key, another name
        (PeerCard("west", cards["south"].key), "as that of south"),
        (PeerCard("south", cards["west"].key), "another key.*--replace"),
    ):
        with pytest.raises(InputError, match=reason):
            require_new(known, card, own, is_new_key=False)
    changed = PeerCard("south", cards["west"].key)
    assert require_new(known, changed, own, is_new_key=True)
    add_peer(tmp_path, changed)
    assert known_peers(tmp_path)["south"] == cards["west"].key
    with pytest.raises(InputError, match="unknown site 'east'"):
        remove_peer(tmp_path, "east")
    remove_peer(tmp_path, "south")
    assert not known_peers(tmp_path)
