"""TensorBoard: event files, a folder a run and below it one a site.

TensorBoard's own classes write and read them; neither TensorFlow nor torch is needed. Its scalars
have 32 bits, so a value there is the nearest such number.
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wardround.common.monitoring.trackers.course import Course, Point, plain_part
from wardround.common.monitoring.trackers.user_file import TensorboardTable

if TYPE_CHECKING:
    from tensorboard.summary.writer.record_writer import RecordWriter

_VERSION = "brain.Event:2"
_KEY_DIGITS = 8


class TensorboardTracker:
    """Writes courses below one folder."""

    def __init__(self, table: TensorboardTable) -> None:
        """Open it.

        Raises:
            ImportError: tensorboard is not installed.
        """
        import tensorboard.summary.writer.record_writer  # noqa: F401 # is it there?

        self._folder = Path(table.folder)
        self._writers: dict[Path, RecordWriter] = {}
        self._written: dict[Path, set[tuple[str, int]]] = {}

    def write(self, course: Course) -> None:
        """Write what the event files do not hold yet of a run.

        Raises:
            OSError: A file cannot be written.
        """
        place = self._folder / f"{plain_part(course.name)}-{course.key[:_KEY_DIGITS]}"
        for site in ("", *course.sites):
            folder = place / (plain_part(site) if site else "all sites")
            points = [point for point in course.points if point.site == site]
            self._write_points(folder, points)

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _write_points(self, folder: Path, points: Iterable[Point]) -> None:
        if folder not in self._written:
            self._written[folder] = set(scalars_in(folder))
        written = self._written[folder]
        news = [point for point in points if (point.name, point.step) not in written]
        if not news:
            return
        writer = self._writer(folder)
        for point in news:
            writer.write(_event(point).SerializeToString())
            written.add((point.name, point.step))
        writer.flush()

    def _writer(self, folder: Path) -> "RecordWriter":
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        if folder not in self._writers:
            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time_ns()}.wardround.{os.getpid()}"
            writer = RecordWriter((folder / name).open("xb"))
            writer.write(Event(wall_time=time.time(), file_version=_VERSION).SerializeToString())
            self._writers[folder] = writer
        return self._writers[folder]


def scalars_in(folder: Path) -> dict[tuple[str, int], float]:
    """Return the numbers that the event files of a folder hold, by name and step."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    found: dict[tuple[str, int], float] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for record in RawEventFileLoader(str(path)).Load():  # ends before a line that is torn
            event = Event.FromString(record)
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found[value.tag, event.step] = value.simple_value
    return found


def _event(point: Point) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    value = Summary.Value(tag=point.name, simple_value=point.value)
    return Event(wall_time=time.time(), step=point.step, summary=Summary(value=[value]))
