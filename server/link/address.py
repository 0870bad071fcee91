"""Where the server's own processes find its link: a file that each start of it writes anew."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wardround.common.files.atomic import make_private_folder, replace_file

LINK_FOLDER, ADDRESS_FILE = "link", "inner.json"
_LOOK_SECONDS = 0.1  # a person waits for this


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """The inner listener of one start of the link.

    Attributes:
        secret: What it wants to see; it tells this start from others.
    """

    port: int
    secret: str = field(repr=False)

    @property
    def host_and_port(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"


def write_address(folder: Path, address: LinkAddress) -> None:
    """Say where the link of a server folder listens; only the folder's owner can read it."""
    make_private_folder(folder / LINK_FOLDER)
    replace_file(folder / LINK_FOLDER / ADDRESS_FILE, json.dumps(asdict(address)).encode())


def read_address(folder: Path) -> LinkAddress | None:
    """Return where the last link of a server folder listened, None if there was none."""
    try:
        content = json.loads((folder / LINK_FOLDER / ADDRESS_FILE).read_text())
        return LinkAddress(int(content["port"]), str(content["secret"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def wait_for_link(
    folder: Path, not_this: LinkAddress | None, stopped: Callable[[], bool]
) -> LinkAddress | None:
    """Wait until a link has written where it listens.

    Args:
        not_this: A link that is known to be gone.
        stopped: Ends the waiting, with None.
    """
    while not stopped():
        address = read_address(folder)
        if address is not None and address != not_this:
            return address
        time.sleep(_LOOK_SECONDS)
    return None
