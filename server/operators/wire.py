"""How messages travel between operators and a server."""

from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from wardround.common.errors import InputError
from wardround.server.operators.messages import to_content

SERVICE = "wardround.operators.v1.Operators"
SOCKET_FILE = "operator.sock"
LARGEST_MESSAGE = 4 * 2**20  # bytes
_LONGEST_PATH = 100  # a socket's path may have 107 letters


def pack(message: object) -> bytes:
    """Return a message as it travels."""
    content = Struct()
    content.update(to_content(message))
    return bytes(content.SerializeToString())


def unpack(data: bytes) -> dict[str, Any]:
    """Return the plain values of a message that travelled."""
    values: dict[str, Any] = MessageToDict(Struct.FromString(data))
    return values


def socket_target(path: Path) -> str:
    """Return how gRPC calls a socket.

    Raises:
        InputError: The path is too long for one.
    """
    whole = path.resolve()
    if len(str(whole).encode()) > _LONGEST_PATH:
        msg = f"{whole} is too long for a socket: keep the server folder at a shorter path."
        raise InputError(msg)
    return f"unix:{whole}"
