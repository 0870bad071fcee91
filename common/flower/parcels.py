"""A Flower message as a file: written while it arrives, read where it is answered.

A site's daemon never holds a model. It writes the objects of an order to a file as they come, the
worker reads them from there and writes its answer to another, and the daemon sends that, object
after object. A file is whole or absent, so that an answer outlives the daemon that was to send it.
Nothing waits for the disk: after a power cut a torn file is thrown away, and the server asks again.

Written against Flower 1.41; ``tests/unit/test_flower_supernode.py`` holds the contract.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from flwr.app import Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)

from wardround.common.errors import ModelError

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_MAGIC, _END = b"wardround parcel 1\n", b"end\n"
_LENGTH = struct.Struct(">Q")
_ID_BYTES = 32
_MOST_HEADER_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a message says of itself, without its content.

    Attributes:
        message: Its metadata, and its error where it carries one.
        tree: Which objects its content is made of.
    """

    message: ProtoMessage
    tree: ObjectTree

    @property
    def message_id(self) -> str:
        """The message's id."""
        return str(self.message.metadata.message_id)

    @property
    def run_id(self) -> int:
        """Flower's number of the run; not the run of an order."""
        return int(self.message.metadata.run_id)

    @property
    def kind(self) -> str:
        """What is asked, e.g. "train"."""
        return str(self.message.metadata.message_type)

    @property
    def group(self) -> str:
        """How the server calls the messages that belong together, e.g. "round 3"."""
        return str(self.message.metadata.group_id)

    @property
    def object_ids(self) -> list[str]:
        """The ids of its objects, each once, in the order in which they travel."""
        return list(dict.fromkeys(tree.object_id for tree in iterate_object_tree(self.tree)))

    def opened(self) -> Message:
        """Return the message with no content in it, for an answer to refer to."""
        return message_from_proto(self.message)


class ParcelWriter:
    """Writes a message's objects as they come; the file appears when all are there."""

    def __init__(self, path: Path, envelope: Envelope) -> None:
        self._path = path
        self._part = path.with_suffix(".part")
        descriptor = os.open(
            self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        self._stream: BinaryIO = os.fdopen(descriptor, "wb")
        self._stream.write(_MAGIC)
        for head in (envelope.message, envelope.tree):
            data = head.SerializeToString()
            self._stream.write(_LENGTH.pack(len(data)) + data)

    def add(self, object_id: str, content: bytes) -> None:
        """Write an object."""
        self._stream.write(bytes.fromhex(object_id) + _LENGTH.pack(len(content)))
        self._stream.write(content)

    def finish(self) -> None:
        """Put the file in its place."""
        self._stream.write(_END)
        self._stream.close()
        self._part.replace(self._path)

    def abandon(self) -> None:
        """Remove what was written."""
        with suppress(OSError):  # what a full disk did not take is written again by close()
            self._stream.close()
        self._part.unlink(missing_ok=True)


class Parcel:
    """A message in a file.

    Raises:
        ModelError: It is no such file, or not a whole one.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb")
        try:
            self._read(path)
        except (ValueError, struct.error) as error:
            self._stream.close()
            msg = f"{path.name} is not a whole message ({type(error).__name__}): it is dropped."
            raise ModelError(msg) from None

    def __enter__(self) -> "Parcel":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def content(self, object_id: str) -> bytes:
        """Return an object as it travels.

        Raises:
            KeyError: It is not in the file.
        """
        start, length = self._places[object_id]
        self._stream.seek(start)
        return self._stream.read(length)

    def length(self, object_id: str) -> int:
        """Return the bytes of an object as it travels."""
        return self._places[object_id][1]

    def begins_with(self, object_id: str, prefix: bytes) -> bool:
        """Whether an object begins with these bytes; it is not read for that."""
        self._stream.seek(self._places[object_id][0])
        return self._stream.read(len(prefix)) == prefix

    def _read(self, path: Path) -> None:
        size = path.stat().st_size
        if self._stream.read(len(_MAGIC)) != _MAGIC:
            msg = "another format"
            raise ValueError(msg)
        message = ProtoMessage.FromString(self._read_head(size))
        self.envelope = Envelope(message, ObjectTree.FromString(self._read_head(size)))
        self._places = dict(self._find_objects(size))

    def _read_head(self, size: int) -> bytes:
        (length,) = _LENGTH.unpack(self._stream.read(_LENGTH.size))
        if length > min(size, _MOST_HEADER_BYTES):
            msg = "a head is longer than the file"
            raise ValueError(msg)
        return self._stream.read(length)

    def _find_objects(self, size: int) -> Iterator[tuple[str, tuple[int, int]]]:
        last = size - len(_END)
        while (place := self._stream.tell()) < last:
            head = self._stream.read(_ID_BYTES + _LENGTH.size)
            (length,) = _LENGTH.unpack(head[_ID_BYTES:])
            start = place + len(head)
            if start + length > last:
                msg = "an object is longer than the file"
                raise ValueError(msg)
            yield head[:_ID_BYTES].hex(), (start, length)
            self._stream.seek(start + length)
        if place != last or self._stream.read() != _END:
            msg = "its end is missing"
            raise ValueError(msg)


def write_message(path: Path, message: Message) -> None:
    """Write a message to a file.

    Raises:
        OSError: The disk is full, say; no file is left.
    """
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
        writer = ParcelWriter(path, Envelope(_without_content(message), get_object_tree(message)))
        try:
            for object_id, item in get_all_nested_objects(message).items():
                writer.add(object_id, item.deflate())
            writer.finish()
        except BaseException:
            writer.abandon()
            raise


def write_envelope(path: Path, envelope: Envelope) -> None:
    """Write a message whose content was not taken in, so that it can be refused."""
    ParcelWriter(path, envelope).finish()


def _without_content(message: Message) -> ProtoMessage:
    if message.has_error():
        return message_to_proto(message)
    return message_to_proto(Message(RecordDict(), metadata=message.metadata))  # type: ignore[call-overload] # Flower's own, undeclared way
