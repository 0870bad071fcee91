"""Series of an archive as folders of files, e.g. to predict: each whole, or not there."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import parse_qsl

from wardround.client.clinic.pacs.archive import (
    Archive,
    FoundSeries,
    PacsAwayError,
    PacsError,
    StudyQuery,
    is_uid,
    open_archive,
)
from wardround.client.site.folder import open_site
from wardround.common.errors import InputError, known_names
from wardround.common.files.atomic import make_private_folder, put_in_place

PREFIX = "pacs:"
"""What begins an input that asks a site's archive: ``pacs:SITE?modality=MR&series=*t1*``."""
_KEYS = ("study", "modality", "study_description", "series", "from", "to")


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


def query_of(
    study: str = "", modality: str = "", description: str = "", days: tuple[str, str] = ("", "")
) -> StudyQuery:
    """Return a query, its parts checked.

    Args:
        study: A Study Instance UID.
        description: A pattern of the study's description.
        days: First and last, YYYYMMDD; "" where open.

    Raises:
        InputError: A part is not what it should be.
    """
    for day in filter(None, days):
        if not (day.isdecimal() and day.isascii() and len(day) == len("20260901")):
            msg = f"{day!r} is no day: write it as YYYYMMDD, e.g. 20260901."
            raise InputError(msg)
    if study and not is_uid(study):
        msg = f"{study!r} is no Study Instance UID: digits and dots, at most 64."
        raise InputError(msg)
    first, last = days
    return StudyQuery(
        study_uid=study,
        modality=modality.upper(),
        description=description,
        date_from=first,
        date_to=last,
    )


def fetch_asked(text: str, out: Path) -> Fetched:
    """Fetch what an input asks of a site's archive, as ``pacs:SITE?modality=MR&series=*t1*``.

    Args:
        text: Its keys: study, modality, study_description, series, from and to.
        out: The folder that the series are put into.

    Raises:
        InputError: It asks for something else, or the site has no archive.
        PacsAwayError: The archive is away.
    """
    site, _, asked = text.removeprefix(PREFIX).partition("?")
    said = dict(parse_qsl(asked, keep_blank_values=True))
    for key in said:
        if key not in _KEYS:
            raise InputError(known_names("key after 'pacs:SITE?'", key, _KEYS))
    query = query_of(
        said.get("study", ""),
        said.get("modality", ""),
        said.get("study_description", ""),
        (said.get("from", ""), said.get("to", "")),
    )
    archive = open_archive(open_site(Path(site)).folder)
    return fetch_all(archive, query, said.get("series", "*"), out)


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
