"""Unix sockets: in a folder that its owner alone may enter, and systemd's."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wardround.common.errors import InputError
from wardround.common.runtime.system.files import open_folder_itself, opened_by_owner_alone
from wardround.common.runtime.system.required import is_linux, require_linux

_LONGEST_PATH = 100  # a socket's path may have 107 letters


def listening_socket(path: Path) -> socket.socket:
    """Return a socket that listens at a path and that this account alone may open.

    What lies at the path is removed first.

    Raises:
        InputError: The path is too long for this system.
        OSError: It cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with opened_by_owner_alone(), _short(path) as name:
            path.unlink(missing_ok=True)
            listener.bind(name)
        listener.listen(8)
    except BaseException:
        listener.close()
        raise
    return listener


def connected_socket(path: Path, seconds: float) -> socket.socket:
    """Return a socket that is connected to the one that listens at a path.

    Args:
        seconds: How long each of its calls may take.

    Raises:
        InputError: This system has no such sockets, or the path is too long for it.
        OSError: Nobody listens there, or it may not be opened.
    """
    require_linux("the socket of a site's daemon")
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        channel.settimeout(seconds)
        with _short(path) as name:
            channel.connect(name)
    except BaseException:
        channel.close()
        raise
    return channel


def notify_service_manager(state: str) -> None:
    """Tell systemd, where it started this process."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name or not is_linux():
        return
    address = f"\0{name[1:]}" if name.startswith("@") else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, suppress(OSError):
        channel.sendto(state.encode(), address)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a name for a socket that is short enough, however deep its folder lies.

    Raises:
        InputError: The path is too long, and this system knows no other name for it.
    """
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    if not is_linux():
        msg = f"the path of {path} is longer than {_LONGEST_PATH} letters: move its folder."
        raise InputError(msg)
    descriptor = open_folder_itself(path.parent.resolve())
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


def take_again(listener: socket.socket) -> None:
    """Let a listener have the port of a program that has just ended.

    Elsewhere the same option would let two programs have one port at a time.
    """
    if os.name == "posix":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
