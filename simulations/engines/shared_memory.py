"""Arrays of Flower messages in shared memory: written once, read by every worker.

A message is taken apart into a shell (everything small, pickled through a pipe) and its arrays,
which lie in one shared segment. The segment's first eight bytes count how often it was rewritten,
so that a reader which comes too late notices.
"""

import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from wardround.common.flower.messages.content import arrays_of
from wardround.common.runtime.system.shared_memory import Segment, make_segment, open_segment

_HEADER = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one array lies in a segment."""

    dtype: str
    shape: tuple[int, ...]
    stype: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Shell:
    """A message's content without its arrays.

    Attributes:
        records: The small records, by name.
        places: For each array record its arrays' places, by name.
        segment: Name of the shared segment; "" where there are no arrays.
        edition: The segment's count when the arrays were written.
    """

    records: dict[str, ConfigRecord | MetricRecord]
    places: dict[str, dict[str, Place]]
    segment: str
    edition: int


class Outbox:
    """A segment that one process writes and others read; grows when a message needs more."""

    def __init__(self) -> None:
        self._memory: Segment | None = None
        self._edition = 0
        self._last: tuple[dict[str, ArrayRecord], Shell] | None = None

    @property
    def segment(self) -> str:
        """Name of the segment; "" where there is none yet."""
        return self._memory.name if self._memory is not None else ""

    def find(self, content: RecordDict) -> Shell | None:
        """Return the shell of a content whose arrays were the last to be written here."""
        if self._last is not None and _are_the_same(self._last[0], arrays_of(content)):
            return replace(self._last[1], records=_small(content))
        return None

    def put(self, content: RecordDict) -> Shell:
        """Write a content's arrays, once for all messages that share them one after the other."""
        written = self.find(content)
        if written is not None:
            return written
        shared = arrays_of(content)
        arrays = list(_arrays(content))
        self._require(_HEADER.size + sum(len(array.data) for _, _, array in arrays))
        self._edition += 1
        shell = self._write(content, arrays)
        self._last = (shared, shell)
        return shell

    def close(self) -> None:
        """Free the segment."""
        self._last = None
        if self._memory is not None:
            self._memory.close()
            self._memory.unlink()
            self._memory = None

    def _write(self, content: RecordDict, arrays: list[tuple[str, str, Array]]) -> Shell:
        places: dict[str, dict[str, Place]] = {
            name: {} for name, record in content.items() if isinstance(record, ArrayRecord)
        }
        offset = _HEADER.size
        buffer = _view(self._memory)
        if arrays:
            _HEADER.pack_into(buffer, 0, self._edition)
        for record, name, array in arrays:
            end = offset + len(array.data)
            buffer[offset:end] = array.data
            places[record][name] = Place(
                array.dtype, tuple(array.shape), array.stype, offset, end - offset
            )
            offset = end
        segment = self._memory.name if self._memory is not None and arrays else ""
        return Shell(_small(content), places, segment, self._edition)

    def _require(self, size: int) -> None:
        if self._memory is not None and self._memory.size >= size:
            return
        self.close()
        self._memory = make_segment(size)


class Outboxes:
    """Segments each of which is rewritten only when nobody has still to read it."""

    def __init__(self) -> None:
        self._boxes = [Outbox()]

    def put(self, content: RecordDict, unread: Collection[str]) -> Shell:
        """Write a content's arrays where no order is that a worker has not read yet.

        Args:
            content: Of the message; the arrays of the message before are not written again.
            unread: Names of the segments that somebody may still read.
        """
        written = self._boxes[-1].find(content)
        if written is not None:
            return written
        box = next((box for box in self._boxes if box.segment not in unread), None)
        if box is None:
            box = Outbox()
        else:
            self._boxes.remove(box)
        self._boxes.append(box)
        return box.put(content)

    def close(self) -> None:
        """Free the segments."""
        for box in self._boxes:
            box.close()


class Inbox:
    """Reads what the outboxes of other processes wrote."""

    def __init__(self) -> None:
        self._attached: dict[str, Segment] = {}
        self._last: tuple[str, int, dict[str, ArrayRecord]] | None = None

    def take(self, shell: Shell, keep: bool = False) -> RecordDict | None:
        """Return the content of a shell; None if its arrays have been overwritten since.

        Args:
            keep: Whether the same arrays are likely to be asked for again.
        """
        records = self._kept(shell)
        if records is None:
            records = self._read(shell)
            if records is None:
                return None
            self._last = (shell.segment, shell.edition, records) if keep else None
        return RecordDict({**shell.records, **records})

    def close(self) -> None:
        """Detach from all segments."""
        for memory in self._attached.values():
            memory.close()
        self._attached.clear()

    def _kept(self, shell: Shell) -> dict[str, ArrayRecord] | None:
        if self._last is None or self._last[:2] != (shell.segment, shell.edition):
            return None
        return self._last[2]

    def _read(self, shell: Shell) -> dict[str, ArrayRecord] | None:
        buffer = _view(self._attach(shell.segment) if shell.segment else None)
        records = {name: _record(buffer, places) for name, places in shell.places.items()}
        if shell.segment and _HEADER.unpack_from(buffer, 0)[0] != shell.edition:
            return None
        return records

    def _attach(self, name: str) -> Segment:
        if name not in self._attached:
            for stale in self._attached.values():
                stale.close()
            self._attached = {name: open_segment(name)}
        return self._attached[name]


def _view(memory: Segment | None) -> memoryview:
    """Return a segment's bytes, none where there is no segment."""
    buffer = None if memory is None else memory.buf
    return memoryview(b"") if buffer is None else buffer


def _record(buffer: memoryview, places: Mapping[str, Place]) -> ArrayRecord:
    record = ArrayRecord()
    for name, place in places.items():
        data = bytes(buffer[place.offset : place.offset + place.length])
        record[name] = Array(place.dtype, place.shape, place.stype, data)
    return record


def _small(content: RecordDict) -> dict[str, ConfigRecord | MetricRecord]:
    return {n: r for n, r in content.items() if not isinstance(r, ArrayRecord)}


def _are_the_same(one: Mapping[str, ArrayRecord], other: Mapping[str, ArrayRecord]) -> bool:
    """Return whether two contents hold the very same records of arrays."""
    return one.keys() == other.keys() and all(one[name] is other[name] for name in one)


def _arrays(content: RecordDict) -> Iterator[tuple[str, str, Array]]:
    for name, record in arrays_of(content).items():
        for key, array in record.items():
            yield name, key, array
