"""Series of an archive as folders of files, e.g. to predict: each whole, or not there."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from wardround.client.clinic.pacs.archive import (
    Archive,
    FoundSeries,
    PacsAwayError,
    PacsError,
    StudyQuery,
)
from wardround.common.files.atomic import make_private_folder, put_in_place


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of a query's series.

    Attributes:
        new: Series that were fetched.
        held: Series whose folder was there already.
        failed: Why others could not be fetched, one sentence each.
    """

    new: int
    held: int
    failed: tuple[str, ...]


def fetch_all(archive: Archive, query: StudyQuery, series_description: str, out: Path) -> Fetched:
    """Fetch the series that a query finds into a folder each, named by the series' identifier.

    Args:
        series_description: A pattern with ``*`` and ``?``, whatever the capitals.
        out: The folder that they are put into.

    Raises:
        PacsAwayError: The archive is away; what was fetched stays, and is not fetched again.
    """
    make_private_folder(out)
    new, held, failed = 0, 0, []
    for one in _wanted(archive, query, series_description):
        folder, part = out / one.uid, out / f".{one.uid}.part"
        if folder.is_dir():
            held += 1
            continue
        shutil.rmtree(part, ignore_errors=True)
        try:
            archive.fetch_series(one.study_uid, one.uid, part)
        except PacsAwayError:
            archive.ping()  # raises if it is the archive that is away, and not this series
            failed.append("not all of its objects came")
        except PacsError as error:
            failed.append(str(error))
        else:
            put_in_place(part, folder)
            new += 1
        shutil.rmtree(part, ignore_errors=True)
    return Fetched(new, held, tuple(failed))


def _wanted(archive: Archive, query: StudyQuery, description: str) -> Iterator[FoundSeries]:
    for study in archive.find_studies(query):
        for series in archive.find_series(study.uid):
            right = not query.modality or series.modality == query.modality
            if right and fnmatchcase(series.description.casefold(), description.casefold()):
                yield series
