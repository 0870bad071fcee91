"""A Flower message as a file: written while it arrives, read where it is answered.

A site's daemon never holds a model. It writes the objects of an instruction to a file as they
come, the worker reads them from there and writes its reply to another, and the daemon sends that,
object after object. A file is whole or absent, so that a reply outlives the daemon that was to
send it. Nothing waits for the disk: after a power cut a torn file is thrown away, and the server
asks again.

Written against Flower 1.41;
``tests/unit/common/flower/supernode/test_message_files.py`` holds the contract.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from google.protobuf.message import DecodeError

from wardround.common.errors import ModelError
from wardround.common.flower.messages.envelope import Envelope
from wardround.common.flower.messages.message_file_writer import (
    END,
    HEAD_BYTES,
    ID_BYTES,
    LENGTH,
    MAGIC,
)
from wardround.common.runtime.system.files import read_at


class MessageFile:
    """A message in a file; threads may share it.

    Raises:
        ModelError: It is no such file, or not a whole one.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb")
        try:
            self._read()
        except (ValueError, struct.error, DecodeError) as error:
            self._stream.close()
            msg = f"{path.name} is not a whole message ({type(error).__name__}): it is dropped."
            raise ModelError(msg) from None

    def __enter__(self) -> "MessageFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def content(self, object_id: str) -> bytes:
        """Return an object as it travels.

        Raises:
            KeyError: It is not in the file.
        """
        start, length = self._places[object_id]
        return read_at(self._stream.fileno(), length, start)

    def length(self, object_id: str) -> int:
        """Return the bytes of an object as it travels."""
        return self._places[object_id][1]

    def begins_with(self, object_id: str, prefix: bytes) -> bool:
        """Whether an object begins with these bytes; it is not read for that."""
        start, _ = self._places[object_id]
        return read_at(self._stream.fileno(), len(prefix), start) == prefix

    def _read(self) -> None:
        last = os.fstat(self._stream.fileno()).st_size - LENGTH.size - len(END)
        if last < len(MAGIC) or self._stream.read(len(MAGIC)) != MAGIC:
            msg = "another format"
            raise ValueError(msg)
        self._stream.seek(last)
        (heads,) = LENGTH.unpack(self._stream.read(LENGTH.size))
        if self._stream.read() != END or not len(MAGIC) <= heads <= last:
            msg = "its end is missing"
            raise ValueError(msg)
        self._stream.seek(heads)
        message = ProtoMessage.FromString(self._read_head(last))
        self.envelope = Envelope(message, ObjectTree.FromString(self._read_head(last)))
        self._places = dict(self._find_objects(heads))

    def _read_head(self, last: int) -> bytes:
        (length,) = LENGTH.unpack(self._stream.read(LENGTH.size))
        if self._stream.tell() + length > last:
            msg = "a head is longer than the file"
            raise ValueError(msg)
        return self._stream.read(length)

    def _find_objects(self, last: int) -> Iterator[tuple[str, tuple[int, int]]]:
        self._stream.seek(place := len(MAGIC))
        while place < last:
            head = self._stream.read(HEAD_BYTES)
            (length,) = LENGTH.unpack(head[ID_BYTES:])
            start = place + HEAD_BYTES
            if start + length > last:
                msg = "an object is longer than the file"
                raise ValueError(msg)
            yield head[:ID_BYTES].hex(), (start, length)
            place = self._stream.seek(start + length)
