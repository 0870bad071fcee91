"""The other sites' public keys: whose signatures a site counts where it masks its updates.

They lie in the site folder, put there by a person, or by a simulation. No message changes them: a
server that could would be all the others. A server has such a list too, to know a site's messages
from what somebody else made up; what it holds has no part in what a site believes.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from wardround.common.errors import DataError
from wardround.common.files.atomic import replace_file

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
        if len(set(said.values())) != len(said):  # one site under two names is a roster of one
            raise ValueError
        return {
            str(name): Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
            for name, key in said.items()
        }
    except FileNotFoundError:
        msg = (
            f"nobody here knows the sites' public keys, without which nothing is masked: put "
            f"{PEERS_FILE} into the folder."
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
