"""The rows of a manifest as examinations, and what is wrong with them.

Messages name rows and columns only: a patient identifier or the name of a patient's file never
stands in one.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wardround.client.data.manifest.cells import (
    channel_cells,
    is_missing,
    may_hold_channels,
    parse_location,
    parse_number,
    parse_split,
    parse_wave,
    patient_fault,
    spreadsheet_fault,
    with_decimal_point,
)
from wardround.client.data.manifest.columns import SOURCE_ROW, WAVE, Columns
from wardround.client.data.manifest.covariates import listed_words
from wardround.client.data.manifest.examination import BoxCell, Examination, Location, SplitName
from wardround.client.data.manifest.files import FileFinder
from wardround.client.data.manifest.label_words import LabelWords
from wardround.client.data.manifest.table import Line, Table
from wardround.client.data.reading.boxes.reader import parse_cell
from wardround.client.data.reading.boxes.text import is_blank
from wardround.client.tasks.task import UnusableLabelError
from wardround.client.tasks.words import tidy, word_among
from wardround.common.errors import DataError
from wardround.common.study.plans.subgroups import Grouping, groupings_of
from wardround.common.study.sections.data import Covariate
from wardround.common.study.study import Study

ROWS_NAMED = 5  # enough to find the pattern, and one line of a terminal
_WORDS_NAMED = 8
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+")


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

    def forgive(self, rows: Collection[int]) -> None:
        """Forget what is wrong with some rows."""
        for what, found in tuple(self.rows.items()):
            if left := [row for row in found if row not in rows]:
                self.rows[what] = left
            else:
                del self.rows[what]

    def in_words(self) -> str:
        """Return a sentence for each fact."""
        return " ".join(
            f"{fact} in {name_rows(rows)}: {remedy}." for (fact, remedy), rows in self.rows.items()
        )

    def without_unusable(
        self, examinations: Sequence[Examination]
    ) -> tuple[tuple[Examination, ...], str]:
        """Return the examinations of the other rows, and in words which were left out."""
        unusable = {row for rows in self.rows.values() for row in rows}
        return tuple(e for e in examinations if e.row not in unusable), self.in_words()


def name_rows(rows: Sequence[int], most: int = ROWS_NAMED) -> str:
    """Return "row 7", or "rows 2, 3, 5, 8, 9 and 17 more"."""
    if len(rows) == 1:
        return f"row {rows[0]}"
    first = ", ".join(str(row) for row in rows[:most])
    more = len(rows) - most
    return f"rows {first}" + (f" and {more} more" if more > 0 else "")


@dataclass(slots=True)
class RowReader:
    """Reads rows and gathers what is wrong with them.

    Args:
        root: Folder that relative paths start from.
        scanners: Names of simulated scanners; a hospital's column of that name is its own.
        is_split: Whether a simulation wrote the table, and each row's number in the user's own.
        words: The site's words for the classes.
    """

    study: Study
    columns: Columns
    table: Table
    root: Path
    scanners: Collection[str] = ()
    is_split: bool = False
    words: LabelWords = field(default_factory=LabelWords)
    problems: RowProblems = field(default_factory=RowProblems)
    files: FileFinder = field(init=False)
    groupings: tuple[Grouping, ...] = field(init=False)
    _no_category: dict[str, list[int]] = field(default_factory=dict)
    _marks: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    _without_boxes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.files = FileFinder(self.root)
        self.groupings = tuple(one for one in groupings_of(self.study) if not one.from_image)

    def examination(self, line: Line) -> Examination:
        """Return what a row says; what is wrong with it is among the problems."""
        raw, columns = line.cells, self.columns
        cells = [tidy(cell) for cell in raw]
        row = self._row(line.row, cells)
        if any(cells[len(self.table.header) :]):
            self.problems.add(row, "there are more cells than columns", _remedy_of_more(self.table))
        patient = cells[columns.patient]
        self._note(row, patient_fault(patient))
        covariates = self._covariates(row, cells)
        return Examination(
            row,
            patient,
            self._images(row, raw),
            self._label(row, cells),
            self._mask(row, raw),
            self._split(row, cells),
            covariates,
            self._scanner(row, cells),
            self._groups(cells, covariates),
            self._boxes(row, raw),
            self._wave(row, cells),
        )

    def notes(self) -> Iterator[str]:
        """Yield a sentence for what is no problem, but should be looked at."""
        yield from self.columns.absent
        for column, rows in self._no_category.items():
            yield (
                f"the column {column} holds words that the study does not list, in "
                f"{name_rows(rows)}: they count as missing"
            )
        if self._without_boxes:
            yield (
                f"the column boxes is empty in {name_rows(self._without_boxes)}: these count as "
                "images that were looked at and hold nothing; write none there if so"
            )

    def check_marks(self) -> None:
        """Refuse a column of numbers that has commas in one row and points in another."""
        if self.table.separator == ",":  # there a comma in a number is refused anyway
            return
        for column, rows in self._marks.items():
            name, mark = column
            if mark == "." and (name, ",") in self._marks:
                fact = f"the column {name} has a point in its number, and a comma in other rows"
                for row in rows:
                    self.problems.add(
                        row, fact, "write all numbers in one way, none with thousands"
                    )

    def _row(self, row: int, cells: Sequence[str]) -> int:
        written = self.columns.cell(SOURCE_ROW, cells) if self.is_split else ""
        return int(written) if written.isdecimal() else row

    def _note(self, row: int, fault: tuple[str, str] | None) -> bool:
        if fault is not None:
            self.problems.add(row, *fault)
        return fault is not None

    def _of_one_file(self, row: int, texts: tuple[str, ...]) -> tuple[str, ...]:
        """Return the cell of each channel, where one file holds them all."""
        text = tidy(texts[0])
        if text and not may_hold_channels(text):
            fact = f"the column image names one file for {len(texts)} channels"
            remedy = "name a NIfTI file of four axes, or give each channel a column image.CHANNEL"
            self.problems.add(row, fact, remedy)
            return texts
        return channel_cells(text, len(texts))

    def _images(self, row: int, raw: Sequence[str]) -> tuple[Location | None, ...]:
        """Return where each channel lies; None for an optional one that the row lacks."""
        named = self.columns.images
        optional = self.study.data.optional_channels
        texts = tuple("" if place is None else raw[place] for _, place in named)
        if len(texts) > 1 and len({place for _, place in named}) == 1:
            texts = self._of_one_file(row, texts)
            optional = ()  # one file has all channels, or none
        if optional and not any(tidy(text) for text in texts):
            columns = ", ".join(name for name, _ in named)
            remedy = "name at least one file, or drop the row"
            self.problems.add(row, f"the columns {columns} are all empty", remedy)
            return (Location(self.root),) * len(texts)
        return tuple(
            None if not tidy(text) and channel in optional else self._location(row, name, text)
            for channel, (name, _), text in zip(
                self.study.data.channels, named, texts, strict=False
            )
        )

    def _location(self, row: int, column: str, text: str) -> Location:
        if not tidy(text):
            self.problems.add(row, f"the column {column} is empty", "name a file, or drop the row")
            return Location(self.root)
        if self._note(row, spreadsheet_fault(column, tidy(text))):
            return Location(self.root)
        try:
            return parse_location(text, self._found)
        except ValueError:
            remedy = "write file.npy#17, file.npz#array#17 or scan.nii.gz#0"
            self.problems.add(row, f"the column {column} does not name an item", remedy)
            return Location(self.root)

    def _found(self, file: str) -> Path:
        return self.files.find(file).path

    def _label(self, row: int, cells: Sequence[str]) -> tuple[float, ...] | None:
        if self.columns.target is None:
            return self.words.read("", self.study)
        if self.study.task.column != "label":
            return None
        text = self.columns.target_text(cells)
        if self.study.task.outcome:
            text = ";".join(self._with_point(part.strip()) for part in text.split(";"))
        if self._note(row, spreadsheet_fault("label", text)):
            return None
        try:
            return self.words.read(text, self.study)
        except UnusableLabelError as error:
            self.problems.add(row, error.fact, error.remedy)
            return None

    def _mask(self, row: int, raw: Sequence[str]) -> Location | None:
        if self.study.task.column != "mask" or self.columns.target is None:
            return None
        return self._location(row, "mask", raw[self.columns.target])

    def _boxes(self, row: int, raw: Sequence[str]) -> BoxCell | None:
        if self.study.task.column != "boxes" or self.columns.target is None:
            return None
        text = raw[self.columns.target]
        if self._note(row, spreadsheet_fault("boxes", tidy(text))):
            return BoxCell()
        if is_blank(text):
            self._without_boxes.append(row)
        try:
            return parse_cell(text, self.study.data.dimensions, self._found)
        except ValueError:
            remedy = "write boxes.json#17, masks.npy#17 or masks.npz#array#17"
            self.problems.add(row, "the column boxes does not name an item", remedy)
            return BoxCell()

    def _split(self, row: int, cells: Sequence[str]) -> SplitName | None:
        try:
            return parse_split(self.columns.cell("split", cells))
        except ValueError:
            remedy = "write train, validation or test"
            self.problems.add(row, "the column split names no split", remedy)
            return None

    def _wave(self, row: int, cells: Sequence[str]) -> int:
        if self.study.continual is None:
            return 1
        try:
            return parse_wave(self.columns.cell(WAVE, cells))
        except ValueError:
            remedy = "write a whole number from 1 on, or leave it empty, which means 1"
            self.problems.add(row, "the column wave names no wave of data", remedy)
            return 1

    def _scanner(self, row: int, cells: Sequence[str]) -> str:
        if not self.scanners:
            return ""
        name = self.columns.cell("scanner", cells)
        if name and name not in self.scanners:
            self.problems.add(
                row, "the column scanner names none of site.toml", "add it there, or leave it empty"
            )
        return name

    def _groups(self, cells: Sequence[str], covariates: Sequence[str]) -> tuple[str, ...]:
        """Return the row's group by each grouping that the manifest tells; no cell is refused."""
        known = (covariate.name for covariate in self.study.data.covariates)
        texts = dict(zip(known, covariates, strict=True))
        found = []
        for grouping in self.groupings:
            text = texts.get(grouping.name)
            if text is None:
                text = self.columns.cell(grouping.name, cells)
            text = self._with_point(text)
            wrong = is_missing(text) or spreadsheet_fault(grouping.name, text) is not None
            found.append(grouping.group_of("" if wrong else text))
        return tuple(found)

    def _covariates(self, row: int, cells: Sequence[str]) -> tuple[str, ...]:
        return tuple(
            self._covariate(row, covariate, "" if place is None else cells[place])
            for covariate, place in zip(
                self.study.data.covariates, self.columns.covariates, strict=True
            )
        )

    def _covariate(self, row: int, covariate: Covariate, text: str) -> str:
        optional = covariate.name in self.study.data.optional
        if is_missing(text) and text not in covariate.values and not optional:
            fact = f"the column {covariate.name} holds no value"
            self.problems.add(row, fact, "fill it in, or let data.optional of the study name it")
            return text
        if not covariate.values:
            return self._number(row, covariate.name, text)
        words = listed_words(covariate)
        word = word_among(text, words)
        if word is None and not is_missing(text):
            fault = spreadsheet_fault(covariate.name, text)
            if not optional and fault is None:
                fact = f"the column {covariate.name} holds a word that the study does not list"
                known = ", ".join(words[:_WORDS_NAMED]) + (", ..." if words[_WORDS_NAMED:] else "")
                fault = fact, f"write one of {known}"
            self._note(row, fault)
            self._no_category.setdefault(covariate.name, []).append(row)
        return text if word is None else word

    def _number(self, row: int, column: str, text: str) -> str:
        for mark, other in (",.", ".,"):
            if mark in text and other not in text:
                self._marks.setdefault((column, mark), []).append(row)
        plain = self._with_point(text)
        try:
            parse_number(plain)
        except ValueError as error:
            remedy = "write a number, or leave it empty"
            fault = spreadsheet_fault(column, text)
            self._note(row, fault or (f"the column {column} is {error}", remedy))
        return plain

    def _with_point(self, text: str) -> str:
        """Return a number as Python reads it, where the table says that its comma is decimal."""
        if self.table.separator == ",":
            return text
        # Only semicolons say for certain that 1,234 is no thousand.
        if self.table.separator != ";" and _THOUSANDS.fullmatch(text):
            return text
        return with_decimal_point(text)


def _remedy_of_more(table: Table) -> str:
    named = {",": "commas", ";": "semicolons", "\t": "tabs"}.get(table.separator, "bars")
    return f"quote cells with {named}"
