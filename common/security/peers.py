"""The other sites' public keys: whose signatures a site counts where it masks its updates.

They lie in the site folder, put there by a person, or by a simulation. No message changes them: a
server that could would be all the others. A server has such a list too, to know a site's messages
from what somebody else made up; what it holds has no part in what a site believes.
"""

import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from wardround.common.errors import DataError, InputError, known_names
from wardround.common.files.atomic import replace_file
from wardround.common.security.peer_card import PeerCard

PEERS_FILE = "peers.json"
_MOST = 10_000


def read_peers(folder: Path) -> dict[str, Ed25519PublicKey]:
    """Return the keys of the sites that are known in a folder, by name.

    Raises:
        DataError: There is no list, or the file is damaged.
    """
    path = folder / PEERS_FILE
    try:
        said = json.loads(path.read_bytes())
        if not isinstance(said, dict) or not 0 < len(said) <= _MOST:
            raise ValueError
        keys = {str(name): bytes.fromhex(key) for name, key in said.items()}
        if len(set(keys.values())) != len(keys):  # one site under two names is a roster of one
            raise ValueError
        return {name: Ed25519PublicKey.from_public_bytes(key) for name, key in keys.items()}
    except FileNotFoundError:
        msg = (
            f"nobody here knows the sites' public keys ({PEERS_FILE}), without which nothing is "
            "masked: 'wardround site peers import' takes in another site's at a hospital, and "
            "'wardround server peers import' at the server."
        )
        raise DataError(msg) from None
    except (ValueError, TypeError, RecursionError):
        msg = f"{PEERS_FILE} is not a list of public keys by site: put it back from a backup."
        raise DataError(msg) from None
    except OSError as error:
        msg = f"{PEERS_FILE} cannot be read ({error.strerror}): check the folder's owner."
        raise DataError(msg) from None


def write_peers(folder: Path, peers: Mapping[str, Ed25519PublicKey], durable: bool = True) -> None:
    """Write down whom a site knows.

    Raises:
        OSError: It cannot be written.
    """
    said = {name: key.public_bytes_raw().hex() for name, key in sorted(peers.items())}
    replace_file(folder / PEERS_FILE, json.dumps(said, indent=1) + "\n", durable=durable)


def known_peers(folder: Path) -> dict[str, Ed25519PublicKey]:
    """Return the keys of the sites that are known in a folder; none where nobody is.

    Raises:
        DataError: The file is damaged.
    """
    return read_peers(folder) if (folder / PEERS_FILE).exists() else {}


def require_new(
    peers: Mapping[str, Ed25519PublicKey], card: PeerCard, own: PeerCard | None, is_new_key: bool
) -> bool:
    """Check that a card may be taken in; return whether it says anything that is not known.

    Args:
        own: The card of the site whose list it is; a server has none.
        is_new_key: Whether a person says that the site has another key now.

    Raises:
        InputError: It names this site or holds its key, a key that is known under another name, or
            another key than the one that is known; or its name differs from a known one by the case
            of letters alone.
    """
    if own is not None and (card.site == own.site or card.key == own.key):
        msg = f"this is {own.site} itself: a site needs the keys of the others, not its own."
        raise InputError(msg)
    holder = next((n for n, key in peers.items() if key == card.key and n != card.site), None)
    if holder is not None:
        msg = (
            f"the key of {card.site} is known as that of {holder}: two sites never have one key. "
            f"If {holder} has another name now, remove the old one first."
        )
        raise InputError(msg)
    spelt = next((n for n in peers if _folded(n) == _folded(card.site) and n != card.site), None)
    if spelt is not None:
        msg = (
            f"{card.site} is the name of {spelt} in other letters, and a person would take one for "
            "the other: have one of the two take another name, or remove the old one first."
        )
        raise InputError(msg)
    before = peers.get(card.site)
    if before is not None and before != card.key and not is_new_key:
        known = PeerCard(card.site, before).words
        msg = (
            f"{card.site} is known with another key ({known}): ask a person there, by another way "
            "than the server, whether it has a new one; then give --replace."
        )
        raise InputError(msg)
    return before != card.key


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def add_peer(folder: Path, card: PeerCard) -> None:
    """Have a folder know a site by the key of its card.

    Raises:
        DataError: The list is damaged.
        InputError: It cannot be written.
    """
    _rewrite(folder, {**known_peers(folder), card.site: card.key})


def remove_peer(folder: Path, site: str) -> None:
    """Forget a site; what it signs counts no longer.

    Raises:
        DataError: The list is damaged.
        InputError: Nobody of that name is known, or the list cannot be written.
    """
    peers = known_peers(folder)
    if site not in peers:
        raise InputError(known_names("site", site, peers))
    _rewrite(folder, {name: key for name, key in peers.items() if name != site})


def _rewrite(folder: Path, peers: Mapping[str, Ed25519PublicKey]) -> None:
    path = folder / PEERS_FILE
    try:
        if peers:
            write_peers(folder, peers)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}): check the folder's owner."
        raise InputError(msg) from None
