"""What serves others needs Linux, and says so in one sentence before it does anything."""

import socket
import sys

from wardround.common.errors import InputError


def is_linux() -> bool:
    """Whether this system has locks, Unix sockets and processes that end with their parent."""
    try:
        import fcntl  # noqa: F401 # whether it is there
    except ImportError:
        return False
    return sys.platform == "linux" and hasattr(socket, "AF_UNIX")


def require_linux(what: str) -> None:
    """Refuse to begin what other systems cannot do.

    Args:
        what: The sentence's subject, e.g. "the socket of a site's daemon".

    Raises:
        InputError: This is another system.
    """
    if not is_linux():
        msg = (
            f"{what} needs Linux (file locks, Unix sockets, processes that end with their "
            "parent), which this system has not: run it on a Linux machine or in a container."
        )
        raise InputError(msg)
