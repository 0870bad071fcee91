"""Whom a site knows by their public keys, as a person decides it; each change is audited."""

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.client.site.folder import AUDIT_FOLDER, Site
from wardround.common.errors import InputError
from wardround.common.security.audit_log import AuditLog, Event
from wardround.common.security.peer_card import PeerCard, same_words
from wardround.common.security.peers import add_peer, known_peers, remove_peer, require_new
from wardround.common.security.signing_key import open_key


def own_card(site: Site) -> tuple[PeerCard, Ed25519PrivateKey]:
    """Return what a site tells the others, and the key that signs it; made where there is none.

    Raises:
        InputError: The key cannot be used.
    """
    key = open_key(site.key_folder)
    return PeerCard(site.name, key.public_key()), key


def peers_of(site: Site) -> list[PeerCard]:
    """Return the other sites that a site knows, by name.

    Raises:
        DataError: Its list is damaged.
    """
    others = known_peers(site.folder)
    others.pop(site.name, None)  # a simulation writes all of them into each folder
    return [PeerCard(name, key) for name, key in sorted(others.items())]


def is_known(site: Site, card: PeerCard, is_new_key: bool = False) -> bool:
    """Return whether a site knows this very key; it is checked that it could.

    Args:
        is_new_key: Whether a person says that the other site has another key now.

    Raises:
        InputError: The card cannot be taken in.
        DataError: The site's list is damaged.
    """
    return not require_new(known_peers(site.folder), card, own_card(site)[0], is_new_key)


def take_in(site: Site, card: PeerCard, heard: str, is_new_key: bool = False) -> None:
    """Have a site know another one, whose words a person has heard.

    Raises:
        InputError: The words are others, or the card cannot be taken in; the list stays.
        AuditError: The audit log cannot be written; the list stays.
    """
    if is_known(site, card, is_new_key):
        return
    if not same_words(heard, card.words):
        msg = (
            f"these are not the words of this file: it does not hold the key that {card.site} has, "
            "or a word was misheard. Have them read again, or ask for the file anew."
        )
        raise InputError(msg)
    was_known = card.site in known_peers(site.folder)
    _note(site, card, "replaced" if was_known else "added")
    add_peer(site.folder, card)


def forget(site: Site, name: str) -> None:
    """Have a site no longer know another one.

    Raises:
        InputError: It does not know it.
        AuditError: The audit log cannot be written; the list stays.
    """
    for card in peers_of(site):
        if card.site == name:
            _note(site, card, "removed")
    remove_peer(site.folder, name)


def _note(site: Site, card: PeerCard, verdict: str) -> None:
    """Write down which key it is about, by its hash: an entry of the log holds fixed words."""
    found = hashlib.sha256(card.key.public_bytes_raw()).hexdigest()
    log = AuditLog(site.folder / AUDIT_FOLDER, own_card(site)[1])
    log.append(Event(kind="peer", verdict=verdict, sha256=found))
