"""Writes a Flower message to a file while it arrives, and goes on where it was interrupted.

The objects come first and what the message says of itself last, so that the objects of a message
that was not fetched to its end serve the next one that is made of the same.

Written against Flower 1.41;
``tests/unit/common/flower/supernode/test_message_files.py`` holds the contract.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from flwr.app import Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    no_object_id_recompute,
)

from wardround.common.files.atomic import OWNER_ONLY, put_in_place
from wardround.common.flower.messages.envelope import Envelope
from wardround.common.runtime.system.files import PLAINLY

MAGIC, END = b"wardround parcel 2\n", b"end\n"
LENGTH = struct.Struct(">Q")
ID_BYTES = 32  # a SHA-256
HEAD_BYTES = ID_BYTES + LENGTH.size


class MessageFileWriter:
    """Writes a message's objects as they come; the file appears when all are there.

    Args:
        goes_on: Whether to keep what an interrupted writer of this file left.

    Attributes:
        held: The objects that are written, with their lengths.
    """

    def __init__(self, path: Path, envelope: Envelope, goes_on: bool = False) -> None:
        self._path, self._envelope = path, envelope
        self._part = path.with_suffix(".part")
        descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT | PLAINLY, OWNER_ONLY)
        self._stream: BinaryIO = os.fdopen(descriptor, "r+b")
        self.held = self._take_up() if goes_on else self._begin()

    def add(self, object_id: str, content: bytes) -> None:
        """Write an object."""
        self._stream.write(bytes.fromhex(object_id) + LENGTH.pack(len(content)))
        self._stream.write(content)
        self.held[object_id] = len(content)

    def finish(self) -> None:
        """Put the file in its place."""
        place = self._stream.tell()
        for head in (self._envelope.message, self._envelope.tree):
            data = head.SerializeToString()
            self._stream.write(LENGTH.pack(len(data)) + data)
        self._stream.write(LENGTH.pack(place) + END)
        self._stream.close()
        put_in_place(self._part, self._path, durable=False)

    def leave(self) -> None:
        """Keep what was written for another time."""
        with suppress(OSError):  # what a full disk did not take is written again by close()
            self._stream.close()

    def abandon(self) -> None:
        """Remove what was written."""
        self.leave()
        self._part.unlink(missing_ok=True)

    def _begin(self) -> dict[str, int]:
        self._stream.seek(0)
        self._stream.truncate()
        self._stream.write(MAGIC)
        return {}

    def _take_up(self) -> dict[str, int]:
        """Return the objects that an earlier writer left, and be ready to write after them.

        Each is compared with its name: a power cut may have torn any of them. A file that is
        mostly of another message is begun anew.
        """
        wanted, found, end = set(self._envelope.object_ids), dict[str, int](), len(MAGIC)
        for object_id, content in self._left():
            found[object_id] = len(content)
            end += HEAD_BYTES + len(content)
        held = {one: length for one, length in found.items() if one in wanted}
        if 2 * sum(held.values()) <= sum(found.values()):
            return self._begin()
        self._stream.seek(end)
        self._stream.truncate()
        return held

    def _left(self) -> Iterator[tuple[str, bytes]]:
        if self._stream.read(len(MAGIC)) != MAGIC:
            return
        size = os.fstat(self._stream.fileno()).st_size
        while len(head := self._stream.read(HEAD_BYTES)) == HEAD_BYTES:
            object_id, (length,) = head[:ID_BYTES].hex(), LENGTH.unpack(head[ID_BYTES:])
            if length > size:
                return
            content = self._stream.read(length)
            if get_object_id(content) != object_id:
                return
            yield object_id, content


def write_message(path: Path, message: Message) -> None:
    """Write a message to a file.

    Raises:
        OSError: The disk is full, say; no file is left.
    """
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
        writer = MessageFileWriter(
            path, Envelope(_without_content(message), get_object_tree(message))
        )
        try:
            for object_id, item in get_all_nested_objects(message).items():
                writer.add(object_id, item.deflate())
            writer.finish()
        except BaseException:
            writer.abandon()
            raise


def write_envelope(path: Path, envelope: Envelope) -> None:
    """Write a message whose content was not taken in, so that it can be refused."""
    MessageFileWriter(path, envelope).finish()


def _without_content(message: Message) -> ProtoMessage:
    if message.has_error():
        return message_to_proto(message)
    return message_to_proto(Message(RecordDict(), metadata=message.metadata))  # type: ignore[call-overload] # Flower's own, undeclared way
