"""Corrections out of the picture archive: new segmentations, and reports that were verified."""

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from wardround.client.clinic.pacs.archive import Archive, PacsAwayError, PacsError, StudyQuery
from wardround.client.clinic.review.dicom_objects.reading import (
    CaseIndex,
    NobodysOpinionError,
    ReadObject,
    origin_of,
)
from wardround.client.clinic.review.record import Opinion
from wardround.client.clinic.review.taking import Desk, Taken
from wardround.client.site.folder import REVIEW_FOLDER
from wardround.common.errors import InputError
from wardround.common.files.atomic import make_private_folder

_KINDS = {"mask": "SEG", "label": "SR"}


@dataclass
class TakenFromArchive(Taken):
    """As :class:`Taken`, of an archive.

    Attributes:
        known: Objects that were taken before.
        passed_over: Why objects are nobody's opinion, by how many.
    """

    known: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)


def take_from_archive(
    desk: Desk, archive: Archive, reader: str = "", query: StudyQuery | None = None
) -> TakenFromArchive:
    """Take what readers stored in the archive since the last time.

    Args:
        desk: Where it is handed in.
        archive: The site's.
        reader: Who is written down where an object names nobody.
        query: Which studies are asked for; None for all that have such objects.

    Raises:
        PacsAwayError: It cannot be reached.
    """
    kind = _KINDS[desk.study.task.column]
    index = CaseIndex(desk.site, desk.study, desk.cases)
    taken = TakenFromArchive()
    seen = {one.origin for one in desk.listed.corrections.lines if one.origin}
    studies = archive.find_studies(query or StudyQuery(modality=kind))
    place = desk.site.folder / REVIEW_FOLDER / "incoming"
    shutil.rmtree(place, ignore_errors=True)  # of a process that was killed
    make_private_folder(place)
    try:
        for study in studies:
            if not index.has_study(study.uid):
                continue
            for series in archive.find_series(study.uid):
                if series.modality != kind:
                    continue
                _take_series(desk, archive, index, (study.uid, series.uid), (taken, seen, reader))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return taken


def _take_series(
    desk: Desk,
    archive: Archive,
    index: CaseIndex,
    uids: tuple[str, str],
    state: tuple[TakenFromArchive, set[str], str],
) -> None:
    taken, seen, reader = state
    try:
        listed = archive.find_objects(*uids)
        if all(origin_of(one.uid) in seen for one in listed):
            taken.known += len(listed)
            return
        with TemporaryDirectory(dir=desk.site.folder / REVIEW_FOLDER / "incoming") as folder:
            files = archive.fetch_series(*uids, Path(folder) / "objects")
            take_files(desk, index, files, taken, (seen, reader))
    except PacsAwayError:
        raise
    except PacsError as error:
        taken.refused.append(f"a series of the archive: {error}")


def take_files(
    desk: Desk,
    index: CaseIndex,
    files: Iterable[Path],
    taken: TakenFromArchive,
    state: tuple[set[str], str],
) -> None:
    """Take DICOM objects in files; what is wrong with one is said, the others are taken."""
    seen, reader = state
    for path in files:
        said = "an object"
        try:
            found = index.read(path)
            if found.origin in seen:
                taken.known += 1
                continue
            said = f"an object of case {found.case}"
            opinion = _opinion(desk, found, path)
            taken.written += desk.hand_in(reader or found.reader, [opinion], "pacs")
            seen.add(found.origin)
        except NobodysOpinionError as error:
            taken.passed_over[str(error)] += 1
        except InputError as error:
            taken.refused.append(f"{said}: {error}")


def _opinion(desk: Desk, found: ReadObject, path: Path) -> Opinion:
    if found.label:
        checked = desk.label_opinion(found.case, found.label)
        return Opinion(checked.case, "label", checked.new, checked.own, found.origin)
    return desk.mask_opinion(found.case, found.content or path.read_bytes(), ".dcm", found.origin)
