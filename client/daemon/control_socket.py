"""The local socket of a site's daemon: its owner asks what it is doing, or tells it to stop.

One line of JSON each way, over a Unix socket in the site folder that its owner alone may open.
"""

import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from wardround.common.errors import InputError, RunError
from wardround.common.runtime.system.sockets import connected_socket, listening_socket

SOCKET_FILE = "site.sock"
_LONGEST_LINE = 65_536  # a command and its reply are one line of JSON each, far shorter
_SECONDS = 10.0  # a caller that sends nothing must not hold the daemon's only listener

Reply = Callable[[], dict[str, object]]


class ControlSocket:
    """Answers what is asked over a site folder's socket, in a thread of its own.

    Only whoever holds the site's lock may make one: a socket that a killed daemon left is removed.

    Args:
        folder: The site folder.
        replies: What is done for each command.

    Raises:
        RunError: The socket cannot be made.
    """

    def __init__(self, folder: Path, replies: Mapping[str, Reply]) -> None:
        self._path = folder / SOCKET_FILE
        self._replies = dict(replies)
        try:
            self._listener = listening_socket(self._path)
        except OSError as error:
            msg = f"cannot make the socket {self._path} ({error.strerror}): check the folder."
            raise RunError(msg) from None
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Answer no more, and remove the socket."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            with caller, suppress(OSError, ValueError):
                caller.settimeout(_SECONDS)
                self._reply(caller)

    def _reply(self, caller: socket.socket) -> None:
        asked = json.loads(_read_line(caller))
        command = str(asked.get("command", "")) if isinstance(asked, dict) else ""
        reply = self._replies.get(command)
        said = {"error": "unknown command"} if reply is None else reply()
        caller.sendall(json.dumps(said).encode() + b"\n")


def ask_daemon(folder: Path, command: str) -> dict[str, object]:
    """Return what the daemon of a site folder answers.

    Raises:
        InputError: This account may not ask.
        RunError: None runs there, it does not answer, or is of another version.
    """
    path = folder / SOCKET_FILE
    try:
        channel = connected_socket(path, _SECONDS)
    except (FileNotFoundError, ConnectionRefusedError):
        msg = f"no daemon runs for {folder}: start it with 'wardround site start {folder}'."
        raise RunError(msg) from None
    except OSError as error:
        msg = f"cannot open {path} ({error.strerror}): use the account the daemon runs under."
        raise InputError(msg) from None
    with channel:
        try:
            channel.sendall(json.dumps({"command": command}).encode() + b"\n")
            said = json.loads(_read_line(channel))
        except (OSError, ValueError):
            said = None
    if not isinstance(said, dict) or "error" in said:
        msg = f"the daemon of {folder} does not answer: look at its log, or start it anew."
        raise RunError(msg)
    return said


def _read_line(channel: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
        heard = channel.recv(_LONGEST_LINE)
        if not heard:
            break
        line += heard
    return line
