"""Images that were sent to the gateway: kept, each on disk before it is said to be taken."""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.client.clinic.pacs.archive import PacsAwayError, PacsError, checked_uid, value_of
from wardround.client.clinic.pacs.receiver import SUCCESS
from wardround.client.clinic.pacs.series_folder import require_room, write_object
from wardround.client.clinic.pacs.settings import LimitsTable
from wardround.common.files.atomic import flush, flush_folder, make_private_folder

if TYPE_CHECKING:
    from pydicom import Dataset

_MOST_SERIES = 1_000  # that wait at a time
_MEGABYTE = 2**20


class IncomingFolder:
    """A folder a series, named by a hash: no name of it is the sender's."""

    def __init__(self, folder: Path, limits: LimitsTable) -> None:
        """Make the folder."""
        make_private_folder(folder)
        self._folder, self._limits, self._lock = folder, limits, threading.Lock()
        self._told: dict[str, tuple[int, float]] = {}  # objects and newest, by folder

    def take(self, dataset: "Dataset") -> int:
        """Keep an object; return the answer for whoever sent it.

        Raises:
            PacsError: It names no study or series, or is more than the limits allow.
            PacsAwayError: The disk has too little room.
        """
        study = checked_uid(value_of(dataset, "StudyInstanceUID"), "study")
        series = checked_uid(value_of(dataset, "SeriesInstanceUID"), "series")
        name = checked_uid(value_of(dataset, "SOPInstanceUID"), "object")
        with self._lock:
            require_room(self._folder, self._limits)
            place = self.place(study, series)
            if not place.is_dir():
                if sum(1 for _ in self._folder.iterdir()) >= _MOST_SERIES:
                    msg = f"{_MOST_SERIES} series wait already: no other is taken."
                    raise PacsAwayError(msg)
                make_private_folder(place)
                flush_folder(self._folder)
            path = place / f"{_hash(name)}.dcm"
            if not path.exists():
                self._require_small(place)
        write_object(path, dataset)
        flush(path)
        flush_folder(place)
        return SUCCESS

    def place(self, study: str, series: str) -> Path:
        """Return where the objects of a series are."""
        return self._folder / _hash(f"{study} {series}")

    def quiet(self, settle_seconds: float) -> Iterator[list[Path]]:
        """Yield the objects of each series that has not grown for so long, once for each growth."""
        for place in sorted(self._folder.iterdir()):
            paths = sorted(place.glob("*.dcm"))
            newest = max((path.stat().st_mtime for path in paths), default=0.0)
            if not paths or 0 <= time.time() - newest < settle_seconds:
                continue
            if self._told.get(place.name) != (len(paths), newest):
                self._told[place.name] = (len(paths), newest)
                yield paths

    def is_empty(self) -> bool:
        """Whether nothing waits that was not looked at."""
        return all(place.name in self._told for place in self._folder.iterdir())

    def remove(self, paths: Sequence[Path]) -> None:
        """Remove objects of a series; one that has come meanwhile stays."""
        for path in paths:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in paths}:
            with suppress(OSError):
                folder.rmdir()
                self._told.pop(folder.name, None)

    def _require_small(self, place: Path) -> None:
        sizes = [path.stat().st_size for path in place.glob("*.dcm")]
        too_many = len(sizes) >= self._limits.series_objects
        if too_many or sum(sizes) > self._limits.series_megabytes * _MEGABYTE:
            msg = (
                "a series that was sent is larger than limits.series_objects or "
                "limits.series_megabytes of pacs.toml: the rest is not taken."
            )
            raise PacsError(msg)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
