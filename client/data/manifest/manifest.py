"""The manifest: one row an examination, read and checked before any image is opened.

Messages name rows and columns only: a patient identifier or the name of a patient's file never
stands in one.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wardround.client.data.manifest.columns import Columns, find_columns
from wardround.client.data.manifest.examination import Examination, Location
from wardround.client.data.manifest.label_words import LabelWords, label_words
from wardround.client.data.manifest.patients import rows_of_dates, rows_of_look_alikes
from wardround.client.data.manifest.rows import RowProblems, RowReader, name_rows
from wardround.client.data.manifest.table import Table, read_table
from wardround.client.data.reading.boxes.reader import has_box_reader
from wardround.client.data.reading.readers import has_reader
from wardround.client.site.folder import Site
from wardround.common.errors import DataError
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a site's manifest says.

    Attributes:
        examinations: In the manifest's order.
        notes: Sentences for whoever works at the site; they name rows and nobody.
    """

    examinations: tuple[Examination, ...]
    notes: tuple[str, ...] = ()


def read_manifest(site: Site, study: Study) -> tuple[Examination, ...]:
    """Return the site's examinations, as :func:`open_manifest` finds them."""
    return open_manifest(site, study).examinations


def open_manifest(site: Site, study: Study) -> Manifest:
    """Return what the site's manifest says, in the manifest's order.

    Args:
        site: Says where the manifest and the images lie. With ``skip_unreadable`` a missing file
            is no reason to refuse the manifest. A tolerant site leaves out every row that cannot
            be used, and only that one: what leaves then depends on no other patient's row.
        study: Says which columns are needed and which labels exist.

    Raises:
        DataError: The manifest is missing, empty, lacks a column, or has unusable rows; says
            every problem at once.
    """
    table, words = read_table(site.manifest_path), label_words(site, study)
    scanners = site.settings.scanners
    said: tuple[str, ...] = ()
    if site.corrections_path.exists():
        from wardround.client.data.manifest.corrections import corrected  # few sites have any

        table, said = corrected(table, site, study, words)
    reading = read_rows(
        table,
        study,
        site.data_root,
        scanners,
        one_by_one=site.is_tolerant,
        is_split=site.settings.rows_of is not None,
        words=words,
    )
    examinations, problems = reading.examinations, reading.problems
    notes = (*reading.notes, *said)
    if not examinations and not site.is_tolerant:
        msg = f"the manifest {site.manifest_path} has a header but no rows: add one an examination."
        raise DataError(msg)
    examinations = _come_by_now(examinations, study)
    if not site.settings.skip_unreadable:
        _check_files(examinations, reading)
    if site.is_tolerant:
        kept, left_out = problems.without_unusable(examinations)
        if left_out:
            logger.warning("rows of the manifest are left out. %s", left_out)
        return Manifest(kept, notes)
    # A simulated site's rows are named as they stand in the researcher's own file.
    problems.raise_if_any(Path(site.settings.rows_of or site.manifest_path))
    return Manifest(examinations, notes)


def _come_by_now(examinations: Sequence[Examination], study: Study) -> tuple[Examination, ...]:
    """Return the examinations without those of a later wave than the study's."""
    if study.continual is None:
        return tuple(examinations)
    return tuple(one for one in examinations if one.wave <= study.continual.wave)


@dataclass(frozen=True, slots=True)
class Reading:
    """The rows of a table, and what is wrong with them.

    Attributes:
        table: Its lines are in the order of the examinations.
        notes: As in :class:`Manifest`.
    """

    table: Table
    columns: Columns
    examinations: tuple[Examination, ...]
    problems: RowProblems
    notes: tuple[str, ...]
    reader: RowReader


def read_rows(  # noqa: PLR0913 (a table, and what is known of whose it is)
    table: Table,
    study: Study,
    root: Path,
    scanners: Collection[str] = (),
    one_by_one: bool = False,
    is_split: bool = False,
    words: LabelWords | None = None,
) -> Reading:
    """Return the examinations of a table, whoever's it is; no image is looked into.

    Args:
        root: Folder that relative paths start from.
        scanners: Names of simulated scanners.
        one_by_one: Whether patients are independent: no row is unusable for another patient's.
        is_split: Whether a simulation wrote the table, and each row's number in the user's own.
        words: The site's for the classes; those of the study alone if left out.

    Raises:
        DataError: A column is missing, or stands there twice.
    """
    columns = find_columns(table, study)
    reader = RowReader(
        study, columns, table, root, scanners, is_split, words or label_words(None, study)
    )
    examinations = tuple(reader.examination(line) for line in table.lines)
    if not one_by_one:
        reader.check_marks()
    _check_splits(examinations, reader.problems, one_by_one)
    apart, together = rows_of_look_alikes(examinations)
    if apart and not one_by_one:
        for row in apart:
            remedy = "write one name where it is one patient, else names that differ by more"
            fact = "patients in different splits have names that look alike"
            reader.problems.add(row, fact, remedy)
    now = {one.row for one in _come_by_now(examinations, study)}
    # A class that comes later is none of an earlier study's, which may be repeated all the same.
    reader.problems.forgive({one.row for one in examinations} - now)
    notes = [*reader.notes()]
    if alike := [*(apart if one_by_one else ()), *together]:
        notes.append(
            f"patients have names that differ only in capitals, blanks, leading zeros or letters "
            f"that look alike, in {name_rows(sorted(alike))}: write one name where it is one "
            "patient, or the test is not one"
        )
    if dates := rows_of_dates(examinations):
        notes.append(
            f"the patient is a date in {name_rows(dates)}: if a spreadsheet made it of a name, "
            "write the name again in a column of text"
        )
    return Reading(table, columns, examinations, reader.problems, tuple(notes), reader)


def _check_splits(
    examinations: Sequence[Examination], problems: RowProblems, one_by_one: bool
) -> None:
    """Check that the column is filled everywhere or nowhere, and each patient is in one split.

    Args:
        one_by_one: Whether patients are independent: who names no split has none, whatever the
            other patients' rows say.
    """
    named = {e.patient: e.split for e in reversed(examinations) if e.split is not None}
    for examination in examinations:
        if one_by_one and examination.patient not in named:
            continue
        if named and examination.split is None:
            problems.add(
                examination.row,
                "the column split is empty, but not in other rows",
                "fill it everywhere or nowhere",
            )
        elif named and examination.split != named[examination.patient]:
            problems.add(
                examination.row,
                "the patient is also in another split",
                "give all rows of a patient the same split",
            )


def _check_files(examinations: Sequence[Examination], reading: Reading) -> None:
    for examination in examinations:
        for column, location in _named_locations(examination, reading.columns):
            fault = reading.reader.files.fault_of(location.path, column)
            is_known = has_box_reader if column == "boxes" else has_reader
            if fault is None and not is_known(location.path):
                remedy = "use NIfTI, DICOM, PNG, JPEG, TIFF, BMP, GIF, .npy or .npz"
                if column == "boxes":
                    remedy = "use COCO (.json), Pascal VOC (.xml), .csv, DICOM, or a mask"
                fault = f"the file that the column {column} names is of an unknown format", remedy
            if fault is not None:
                reading.problems.add(examination.row, *fault)


def _named_locations(examination: Examination, columns: Columns) -> Iterator[tuple[str, Location]]:
    for (column, _), location in zip(columns.images, examination.images, strict=True):
        if location is not None:
            yield column, location
    if examination.mask is not None:
        yield "mask", examination.mask
    if examination.boxes is not None and examination.boxes.location is not None:
        yield "boxes", examination.boxes.location
