"""How messages travel between operators and a server: dataclasses to ``operators.proto`` and back.

A dataclass of ``messages.py`` and the protobuf message of the same name have the same fields; a
test holds one against the other. None is an optional field that is absent. A word of a closed set
("waiting for sites") is an enum's value (``RUN_STATE_WAITING_FOR_SITES``).
"""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from wardround.common.errors import InputError
from wardround.server.operators.messages import from_content
from wardround.server.operators.proto import operators_pb2

SERVICE: str = operators_pb2.DESCRIPTOR.services_by_name["Operators"].full_name
SOCKET_FILE = "operator.sock"
LARGEST_MESSAGE = 4 * 2**20  # bytes
_LONGEST_PATH = 100  # a socket's path may have 107 letters
_WORD_STARTS = re.compile(r"(?<=[a-z])(?=[A-Z])")
_Kind = TypeVar("_Kind")


def pack(message: object) -> bytes:
    """Return a message as it travels.

    Raises:
        ValueError: A value is not one that its field can hold.
    """
    return bytes(_to_protobuf(message).SerializeToString())


def read_question(kind: type[_Kind], data: bytes) -> _Kind:
    """Return a question that travelled.

    A field that is unknown is refused: a newer client means something by it that would not be done.

    Raises:
        InputError: It is not a message of this kind, or has more than that.
    """
    message = _parse(kind, data)
    if len(UnknownFieldSet(message)):  # no question has messages inside
        msg = (
            f"the message {kind.__name__} has fields that are unknown here: "
            "both sides must run the same version."
        )
        raise InputError(msg)
    return from_content(kind, _plain_values(message))


def read_reply(kind: type[_Kind], data: bytes) -> _Kind:
    """Return a reply that travelled; what a newer server says besides is passed over.

    Raises:
        InputError: It is not a message of this kind.
    """
    return from_content(kind, _plain_values(_parse(kind, data)))


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


def _to_protobuf(message: object) -> Message:
    if not is_dataclass(message) or isinstance(message, type):
        msg = f"{type(message).__name__} is no message"
        raise TypeError(msg)
    kind = getattr(operators_pb2, type(message).__name__)
    known = kind.DESCRIPTOR.fields_by_name
    values = {
        field.name: _travelling(getattr(message, field.name), known[field.name])
        for field in fields(message)
    }
    return kind(**values)  # None leaves a field absent


def _travelling(value: Any, field: FieldDescriptor) -> Any:
    if isinstance(value, tuple):
        return [_travelling(one, field) for one in value]
    if is_dataclass(value):
        return _to_protobuf(value)
    if field.enum_type is not None:
        return f"{_prefix(field.enum_type)}{value.upper().replace(' ', '_')}"
    return value


def _parse(kind: type, data: bytes) -> Message:
    try:
        return getattr(operators_pb2, kind.__name__).FromString(data)
    except DecodeError:
        msg = (
            f"what came is no message {kind.__name__} of operators.proto: "
            "both sides must run the same version."
        )
        raise InputError(msg) from None


def _plain_values(message: Message) -> dict[str, Any]:
    """Return a message's fields: what is absent as None, an enum that is unspecified not at all."""
    content: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.has_presence and not message.HasField(field.name):
            content[field.name] = None
        elif field.enum_type is None:
            content[field.name] = _plain(value, field)
        elif value != 0:
            content[field.name] = _word(value, field.enum_type)
    return content


def _plain(value: Any, field: FieldDescriptor) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_plain_values(one) if isinstance(one, Message) else one for one in value]
    return _plain_values(value) if isinstance(value, Message) else value


def _word(number: int, kind: EnumDescriptor) -> str | None:
    """Return the word of an enum's value, None for one that is unknown, which no field takes."""
    value = kind.values_by_number.get(number)
    if value is None:
        return None
    return str(value.name).removeprefix(_prefix(kind)).lower().replace("_", " ")


def _prefix(kind: EnumDescriptor) -> str:
    return f"{_WORD_STARTS.sub('_', kind.name).upper()}_"
