"""The manifest: one row an examination, read and checked before any image is opened.

Messages name rows and columns only: a patient identifier or the name of a patient's file never
stands in one.
"""

import csv
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wardround.client.data.manifest.cells import (
    parse_location,
    parse_number,
    parse_split,
)
from wardround.client.data.manifest.examination import Examination, Location, SplitName
from wardround.client.data.manifest.label_words import LabelWords, label_words
from wardround.client.data.reading.readers import has_reader
from wardround.client.site.folder import Site
from wardround.client.tasks.registry import task_of
from wardround.client.tasks.task import UnusableLabelError
from wardround.common.errors import DataError
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)
ROWS_NAMED = 5  # enough to find the pattern, and one line of a terminal


@dataclass(slots=True)
class RowProblems:
    """Facts that make rows unusable, each with its rows and its remedy, in the order found."""

    rows: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def add(self, row: int, fact: str, remedy: str) -> None:
        """Note that a row is unusable."""
        self.rows.setdefault((fact, remedy), []).append(row)

    def raise_if_any(self, manifest: Path) -> None:
        """Refuse the manifest with everything that is wrong.

        Raises:
            DataError: There is at least one problem.
        """
        if self.rows:
            msg = f"the manifest {manifest} is refused. {self.in_words()}"
            raise DataError(msg)

    def in_words(self) -> str:
        """Return a sentence for each fact."""
        return " ".join(
            f"{fact} in {name_rows(rows)}: {remedy}." for (fact, remedy), rows in self.rows.items()
        )

    def without_unusable(self, examinations: Sequence[Examination]) -> tuple[Examination, ...]:
        """Return the examinations of the other rows; at the site it is said which were left out."""
        if self.rows:
            logger.warning("rows of the manifest are left out. %s", self.in_words())
        unusable = {row for rows in self.rows.values() for row in rows}
        return tuple(e for e in examinations if e.row not in unusable)


def name_rows(rows: Sequence[int]) -> str:
    """Return "row 7", or "rows 2, 3, 5, 8, 9 and 17 more"."""
    if len(rows) == 1:
        return f"row {rows[0]}"
    first = ", ".join(str(row) for row in rows[:ROWS_NAMED])
    more = len(rows) - ROWS_NAMED
    return f"rows {first}" + (f" and {more} more" if more > 0 else "")


def read_manifest(site: Site, study: Study) -> tuple[Examination, ...]:
    """Return the site's examinations, in the manifest's order.

    Args:
        site: Says where the manifest and the images lie. With ``skip_unreadable`` a missing file
            is no reason to refuse the manifest. A tolerant site leaves out every row that cannot
            be used, and only that one: what leaves then depends on no other patient's row.
        study: Says which columns are needed and which labels exist.

    Raises:
        DataError: The manifest is missing, empty, lacks a column, or has unusable rows; says
            every problem at once.
    """
    lines = _read_lines(site.manifest_path)
    header = [name.strip() for name in lines[0][1]]
    columns = _find_columns(header, study, site.manifest_path)
    reader = _RowReader(site, study, columns, site.data_root, words=label_words(site, study))
    examinations = tuple(
        reader.examination(row, cells + [""] * (len(header) - len(cells)), len(header))
        for row, cells in lines[1:]
    )
    if not examinations and not site.is_tolerant:
        msg = f"the manifest {site.manifest_path} has a header but no rows: add one an examination."
        raise DataError(msg)
    _check_splits(examinations, reader.problems, one_by_one=site.is_tolerant)
    if not site.settings.skip_unreadable:
        _check_files(examinations, columns, reader.problems)
    if site.is_tolerant:
        return reader.problems.without_unusable(examinations)
    reader.problems.raise_if_any(site.manifest_path)
    return examinations


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the filled lines with their spreadsheet row numbers; the first is the header."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = [
                (row, cells)
                for row, cells in enumerate(csv.reader(stream), start=1)
                if any(cell.strip() for cell in cells)
            ]
    except FileNotFoundError:
        msg = f"there is no manifest {path}: write one, with a row for each examination."
        raise DataError(msg) from None
    except (OSError, UnicodeDecodeError, csv.Error):
        msg = f"the manifest {path} cannot be read: save it as a comma-separated file in UTF-8."
        raise DataError(msg) from None
    if not lines:
        msg = f"the manifest {path} is empty: give it a header and a row for each examination."
        raise DataError(msg)
    return lines


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where the study's columns stand; None for one that is absent."""

    patient: int
    images: tuple[tuple[str, int], ...]
    target: int
    split: int | None
    scanner: int | None
    covariates: tuple[int, ...]


def _image_columns(header: Sequence[str], study: Study) -> tuple[str, ...]:
    if study.data.kind == "table":
        return ()
    names = tuple(c if c == "image" else f"image.{c}" for c in study.data.channels)
    if len(names) == 1 and names[0] not in header and "image" in header:
        return ("image",)
    return names


def _find_columns(header: list[str], study: Study, manifest: Path) -> _Columns:
    images = _image_columns(header, study)
    covariates = tuple(covariate.name for covariate in study.data.covariates)
    wanted = ("patient", *images, study.task.column, *covariates)
    missing = [column for column in wanted if column not in header]
    if missing:
        msg = (
            f"the manifest {manifest} lacks the column {', '.join(missing)}; "
            f"it has: {', '.join(header)}. Add what is missing, separated by commas."
        )
        raise DataError(msg)
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        msg = f"the manifest {manifest} has two columns {', '.join(twice)}: rename one of each."
        raise DataError(msg)
    place = {name: index for index, name in enumerate(header)}
    return _Columns(
        place["patient"],
        tuple((name, place[name]) for name in images),
        place[study.task.column],
        place.get("split"),
        place.get("scanner"),
        tuple(place[name] for name in covariates),
    )


@dataclass(slots=True)
class _RowReader:
    """Reads rows and gathers what is wrong with them."""

    site: Site
    study: Study
    columns: _Columns
    root: Path
    problems: RowProblems = field(default_factory=RowProblems)
    words: LabelWords = field(default_factory=LabelWords)

    def examination(self, row: int, cells: list[str], width: int) -> Examination:
        cells = [cell.strip() for cell in cells]
        if any(cells[width:]):
            self.problems.add(row, "there are more cells than columns", "quote cells with commas")
        columns = self.columns
        if not cells[columns.patient]:
            self.problems.add(row, "the column patient is empty", "name the patient")
        images = (self._location(row, name, cells[place]) for name, place in columns.images)
        return Examination(
            row,
            cells[columns.patient],
            tuple(images),
            self._label(row, cells),
            self._mask(row, cells),
            self._split(row, cells),
            self._covariates(row, cells),
            self._scanner(row, cells),
        )

    def _location(self, row: int, column: str, text: str) -> Location:
        if not text:
            self.problems.add(row, f"the column {column} is empty", "name a file, or drop the row")
        try:
            return parse_location(text, self.root)
        except ValueError:
            remedy = "write file.npy#17 or file.npz#array#17"
            self.problems.add(row, f"the column {column} does not name an item", remedy)
            return Location(self.root)

    def _label(self, row: int, cells: list[str]) -> tuple[float, ...] | None:
        if task_of(self.study).labels is None:
            return None
        try:
            return self.words.read(cells[self.columns.target], self.study)
        except UnusableLabelError as error:
            self.problems.add(row, error.fact, error.remedy)
            return None

    def _mask(self, row: int, cells: list[str]) -> Location | None:
        if task_of(self.study).labels is not None:
            return None
        return self._location(row, "mask", cells[self.columns.target])

    def _split(self, row: int, cells: list[str]) -> SplitName | None:
        if self.columns.split is None:
            return None
        try:
            return parse_split(cells[self.columns.split])
        except ValueError:
            remedy = "write train, validation or test"
            self.problems.add(row, "the column split names no split", remedy)
            return None

    def _scanner(self, row: int, cells: list[str]) -> str:
        # Only a simulated site has scanners by name; a hospital's column of that name is its own.
        if self.columns.scanner is None or not self.site.settings.scanners:
            return ""
        name = cells[self.columns.scanner]
        if name and name not in self.site.settings.scanners:
            self.problems.add(
                row, "the column scanner names none of site.toml", "add it there, or leave it empty"
            )
        return name

    def _covariates(self, row: int, cells: list[str]) -> tuple[str, ...]:
        texts = tuple(cells[place] for place in self.columns.covariates)
        for covariate, text in zip(self.study.data.covariates, texts, strict=True):
            if covariate.values:
                continue
            try:
                parse_number(text)
            except ValueError:
                remedy = "write a number, or leave it empty"
                self.problems.add(row, f"the column {covariate.name} is not a number", remedy)
        return texts


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


def _check_files(
    examinations: Sequence[Examination], columns: _Columns, problems: RowProblems
) -> None:
    known: dict[Path, bool] = {}
    for examination in examinations:
        for column, location in _named_locations(examination, columns):
            if location.path not in known:
                known[location.path] = location.path.exists()
            if not known[location.path]:
                remedy = "put the files there, or mend the column or data_root of site.toml"
                problems.add(
                    examination.row, f"the file that the column {column} names is missing", remedy
                )
            elif not has_reader(location.path):
                remedy = "use NIfTI, DICOM, PNG, JPEG, TIFF, BMP, GIF, .npy or .npz"
                fact = f"the file that the column {column} names is of an unknown format"
                problems.add(examination.row, fact, remedy)


def _named_locations(examination: Examination, columns: _Columns) -> Iterator[tuple[str, Location]]:
    for (column, _), location in zip(columns.images, examination.images, strict=True):
        yield column, location
    if examination.mask is not None:
        yield "mask", examination.mask
