"""Whom a site knows: by a person's word alone, and written down."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.client.site.folder import AUDIT_FOLDER, Site, open_site
from wardround.client.site.peers import forget, is_known, own_card, peers_of, take_in
from wardround.common.errors import InputError
from wardround.common.security.audit_verification import read_log
from wardround.common.security.peer_card import PeerCard

SOUTH = PeerCard("south", Ed25519PrivateKey.generate().public_key())


@pytest.fixture
def north(tmp_path: Path) -> Site:
    (tmp_path / "site.toml").write_text('name = "north"\n', encoding="utf-8")
    return open_site(tmp_path)


def audited(site: Site) -> list[str]:
    if not (site.folder / AUDIT_FOLDER).exists():
        return []
    return [entry.event.verdict for entry in read_log(site.folder / AUDIT_FOLDER)]


def test_each_change_of_whom_a_site_knows_is_audited(north: Site) -> None:
    take_in(north, SOUTH, SOUTH.words)
    take_in(north, SOUTH, "whatever")  # known already: no words are needed, nothing is written
    other = PeerCard("south", Ed25519PrivateKey.generate().public_key())
    take_in(north, other, other.words, is_new_key=True)
    assert peers_of(north) == [other]
    forget(north, "south")
    assert not peers_of(north)
    assert audited(north) == ["added", "replaced", "removed"]


def test_words_that_were_not_heard_take_nothing_in(north: Site) -> None:
    for heard in ("", own_card(north)[0].words, SOUTH.words[:-1]):
        with pytest.raises(InputError, match="not the words"):
            take_in(north, SOUTH, heard)
    assert not peers_of(north)
    assert not audited(north)


def test_a_site_does_not_take_itself_in(north: Site) -> None:
    own = own_card(north)[0]
    with pytest.raises(InputError, match="itself"):
        is_known(north, own)
    with pytest.raises(InputError, match="unknown site"):
        forget(north, "south")
