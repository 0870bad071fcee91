"""What an archive sends, written to the disk: a series in a folder of its own, bounded."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.client.clinic.pacs.archive import (
    PacsAwayError,
    PacsError,
    checked_uid,
    too_many_objects,
    value_of,
)
from wardround.client.clinic.pacs.settings import LimitsTable

if TYPE_CHECKING:
    from pydicom import Dataset

_GIGABYTE = 2**30
_MEGABYTE = 2**20


class SeriesFolder:
    """The folder that a series is received into: numbered files, each object once, bounded."""

    def __init__(self, folder: Path, series_uid: str, limits: LimitsTable) -> None:
        """Make the folder.

        Raises:
            PacsError: It holds something, or the disk has too little room.
        """
        from wardround.common.files.atomic import make_private_folder

        make_private_folder(folder)
        if any(folder.iterdir()):
            msg = f"{folder} is not empty: a series is received into a folder of its own."
            raise PacsError(msg)
        self._folder, self._series, self._limits = folder, series_uid, limits
        self._seen: set[str] = set()
        self._bytes = 0
        self.paths: list[Path] = []
        require_room(folder, limits)

    def add(self, dataset: "Dataset") -> None:
        """Write an object; one that was received before is left out.

        Raises:
            PacsError: It is of another series, or more than the limits allow.
        """
        uid = checked_uid(value_of(dataset, "SOPInstanceUID"), "object")
        if value_of(dataset, "SeriesInstanceUID") != self._series:
            msg = "the archive sent an object of another series than it was asked for."
            raise PacsError(msg)
        if uid in self._seen:
            return
        if len(self._seen) >= self._limits.series_objects:
            raise PacsError(too_many_objects(self._limits.series_objects))
        require_room(self._folder, self._limits)
        path = self._folder / f"{len(self._seen) + 1:05d}.dcm"
        write_object(path, dataset)
        self._bytes += path.stat().st_size
        if self._bytes > self._limits.series_megabytes * _MEGABYTE:
            msg = (
                f"the series is larger than limits.series_megabytes = "
                f"{self._limits.series_megabytes}: raise it in pacs.toml if that is right."
            )
            raise PacsError(msg)
        self._seen.add(uid)
        self.paths.append(path)

    def require(self, listed: Iterable[str]) -> None:
        """Compare what came with what the archive lists.

        Args:
            listed: Identifiers of the series' objects.

        Raises:
            PacsAwayError: Objects are missing; they may still be on their way into the archive.
        """
        missing = len(set(listed) - self._seen)
        if missing:
            msg = (
                f"the archive sent {len(self._seen)} of {len(self._seen) + missing} objects of the "
                "series: it may still be receiving it."
            )
            raise PacsAwayError(msg)


def require_room(folder: Path, limits: LimitsTable) -> None:
    """Make sure that a disk keeps the room that the limits want.

    Raises:
        PacsAwayError: It has less: what is to be received waits.
    """
    free = shutil.disk_usage(folder).free
    if free < limits.free_gigabytes * _GIGABYTE:
        msg = (
            f"the disk has {free / _GIGABYTE:.1f} GB left, less than limits.free_gigabytes = "
            f"{limits.free_gigabytes:g}: make room, nothing is received until then."
        )
        raise PacsAwayError(msg)


def write_object(path: Path, dataset: "Dataset") -> None:
    """Write a data set as a DICOM file (PS3.10), readable for this account alone.

    Raises:
        PacsError: It is not what can be written.
        OSError: The disk does not take it.
    """
    import pydicom

    from wardround.common.files.atomic import replace_file

    def write(part: Path) -> None:
        pydicom.dcmwrite(part, dataset, enforce_file_format=True, overwrite=True)

    try:
        replace_file(path, write, durable=False)
    except OSError:
        raise
    except Exception as error:  # of a foreign data set any element may be unwritable
        msg = f"the archive sent an object that is no valid DICOM ({type(error).__name__})."
        raise PacsError(msg) from None
