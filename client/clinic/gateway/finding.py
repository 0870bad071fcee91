"""Series that wait for an answer: those that the archive lists, and those that were sent."""

import logging
import time
from datetime import date, timedelta
from fnmatch import fnmatchcase

from wardround.client.clinic.gateway.answer import object_uids
from wardround.client.clinic.gateway.incoming import IncomingFolder
from wardround.client.clinic.gateway.queue import GIVEN_UP, WAITING, Work, WorkQueue
from wardround.client.clinic.pacs.archive import (
    Archive,
    FoundSeries,
    PacsAwayError,
    PacsError,
    StudyQuery,
    value_of,
)
from wardround.client.clinic.pacs.identity import series_digest
from wardround.client.clinic.pacs.settings import ServeTable
from wardround.client.clinic.pacs.source import read_source

logger = logging.getLogger(__name__)
# What a model answers with, or what has no pixels: never asked about.
_NO_IMAGES = ("SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "DOC", "AU")
LAST_ASKED = "last asked"


def find_in_archive(archive: Archive, queue: WorkQueue, rules: ServeTable, model: str) -> None:
    """Ask an archive, and add what fits the rules and has stopped growing.

    Raises:
        PacsError: The archive refuses, or PacsAwayError: it is away.
    """
    began = time.time()
    query = StudyQuery(modality=rules.modality, date_from=_first_day(queue, rules.days))
    for study in archive.find_studies(query):
        if not _fits(study.description, rules.study_description):
            continue
        try:
            for series in archive.find_series(study.uid):
                if _is_wanted(series, rules):
                    _add_listed(archive, queue, rules, series, model)
        except PacsAwayError:
            raise
        except PacsError as error:  # of this study alone: the others are asked for all the same
            logger.warning("a study's series cannot be listed: %s", error)
    queue.note(LAST_ASKED, str(int(began)))


def find_received(
    incoming: IncomingFolder, queue: WorkQueue, rules: ServeTable, model: str
) -> None:
    """Add the series that were sent and have stopped growing; what no rule wants is removed."""
    for paths in incoming.quiet(rules.settle_seconds):
        try:
            (first,) = read_source(paths[:1]).datasets
            place = (value_of(first, "StudyInstanceUID"), value_of(first, "SeriesInstanceUID"))
            series = FoundSeries(
                *place, value_of(first, "Modality"), value_of(first, "SeriesDescription")
            )
            study_fits = _fits(value_of(first, "StudyDescription"), rules.study_description)
            if study_fits and _is_wanted(series, rules):
                state = queue.add((*place, model), series_digest(object_uids(paths)))
                if state in (WAITING, GIVEN_UP):
                    continue
        except PacsError:  # nothing that is an image: nobody could answer it
            pass
        incoming.remove(paths)


def remove_answered(incoming: IncomingFolder, work: Work) -> None:
    """Remove the images that were sent, now that they have their answer; none if more came."""
    paths = sorted(incoming.place(work.study, work.series).glob("*.dcm"))
    if paths and series_digest(object_uids(paths)) == work.objects:
        incoming.remove(paths)


def _add_listed(
    archive: Archive, queue: WorkQueue, rules: ServeTable, series: FoundSeries, model: str
) -> None:
    """Add a series of the archive once it has not grown for a while.

    As long as the archive says how many objects it has, no more is asked of it.
    """
    place = (series.study_uid, series.uid, model)
    count = series.objects
    objects: list[str] | None = None
    if count is None:
        objects = [one.uid for one in archive.find_objects(series.study_uid, series.uid)]
        count = len(objects)
    if not queue.settled(place, count, rules.settle_seconds):
        return
    if objects is None:
        objects = [one.uid for one in archive.find_objects(series.study_uid, series.uid)]
    if objects:
        queue.add(place, series_digest(objects))


def _is_wanted(series: FoundSeries, rules: ServeTable) -> bool:
    if series.modality in _NO_IMAGES:
        return False
    right = not rules.modality or series.modality == rules.modality
    return right and _fits(series.description, rules.series_description)


def _fits(text: str, pattern: str) -> bool:
    return fnmatchcase(text.casefold(), pattern.casefold())


def _first_day(queue: WorkQueue, days: int) -> str:
    """Return the day from which studies are asked for: before the last time that this was done."""
    asked = queue.counts().facts.get(LAST_ASKED, "")
    then = float(asked) if asked.isdecimal() else time.time()
    day = date.fromtimestamp(min(then, time.time())) - timedelta(days=days)
    return f"{day:%Y%m%d}"
