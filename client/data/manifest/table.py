"""A table as people save it: from bytes to a header and rows, counted as a spreadsheet counts them.

A hospital's manifest and a researcher's are read here, by the same rules: UTF-8 or UTF-16, with a
byte-order mark or without; cells apart by commas, semicolons, tabs or bars; blanks that can be seen
and blanks that cannot. What cannot be read for certain is refused with its row.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wardround.client.tasks.words import tidy
from wardround.common.errors import DataError
from wardround.common.files.account import this_account

SEPARATORS = (",", ";", "\t", "|")
_NOTHING = " ".join(SEPARATORS)  # what a row without content is made of
RESERVED = ("patient", "image", "label", "mask", "split", "site", "scanner", "box", "boxes")

_SAVE = "save it as 'CSV UTF-8'"
_BYTE_ORDER_MARKS = (  # the longer first: that of UTF-32 begins like that of UTF-16
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
_NO_TABLES = (  # what a file begins with, and what it then is
    (b"PK\x03\x04", "a workbook (.xlsx, .ods) or a zip archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)"),
    (b"\x1f\x8b", "compressed"),
    (b"%PDF", "a PDF"),
    (b"<", "a page of HTML or XML"),
)
_SAID_SEPARATOR = re.compile(r'"?sep=(.)"?[,;\t|]*')  # Excel's own first line
_PROBE = 4096  # bytes in which UTF-16 without a mark is looked for


class _NoTableError(Exception):
    """What is wrong with a file that should be a table, and the remedy."""

    def __init__(self, fact: str, remedy: str) -> None:
        super().__init__(fact)
        self.fact, self.remedy = fact, remedy


@dataclass(frozen=True, slots=True)
class Line:
    """A row with something in it.

    Attributes:
        row: Its number in the user's own file as a spreadsheet counts (the header is row 1).
        cells: As they stand there, without blanks around them; at least one a column.
    """

    row: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """What a file holds.

    Attributes:
        path: The file.
        header: The names of the columns, without blanks around them; "" where a column has none.
        lines: Rows below the header; those that are empty are left out, and counted.
        separator: What stands between two cells.
    """

    path: Path
    header: tuple[str, ...]
    lines: tuple[Line, ...]
    separator: str = ","

    @property
    def has_decimal_commas(self) -> bool:
        """Whether a comma may be a decimal mark: it is where spreadsheets write semicolons."""
        return self.separator == ";"

    def places(self, name: str) -> tuple[int, ...]:
        """Return where a column stands, capitals aside; the one that is written so goes first."""
        wanted = name.casefold()
        found = [n for n, one in enumerate(self.header) if one.casefold() == wanted]
        return tuple(sorted(found, key=lambda n: self.header[n] != name))

    def place(self, name: str) -> int | None:
        """Return where a column stands; None where there is none."""
        return next(iter(self.places(name)), None)

    @property
    def names_columns(self) -> bool:
        """Whether any name in the header is one of a manifest: else it may be a patient's row."""
        return any(_is_reserved(name) for name in self.header)


def read_table(path: Path, called: str = "the manifest") -> Table:
    """Return a table.

    Args:
        called: How messages call it.

    Raises:
        DataError: It is missing, may not be read, is no table, or is empty; says the row where
            one can be said, and never what stands in it.
    """
    try:
        data = path.read_bytes()
        text = _decode(data)
        separator, records = _split(text)
        return _table(path, separator, records)
    except FileNotFoundError:
        msg = f"there is no manifest {path}: write one, with a row for each examination."
        raise DataError(msg) from None
    except PermissionError:
        msg = (
            f"{called} {path} may not be read by the account {this_account().name}: give it the "
            "right to read."
        )
        raise DataError(msg) from None
    except OSError as error:
        msg = f"{called} {path} cannot be read ({error.strerror}): look at the disk or the mount."
        raise DataError(msg) from None
    except _NoTableError as error:
        msg = f"{called} {path} {error.fact}: {error.remedy}."
        raise DataError(msg) from None


def _decode(data: bytes) -> str:
    for start, kind in _NO_TABLES:
        if data.startswith(start):
            fact = f"is {kind} and no table of text"
            raise _NoTableError(fact, f"{_SAVE}, a row for each examination")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "")
    encoding = encoding or _without_mark(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding in ("utf-8", "utf-8-sig"):
            row = 1 + len(re.findall(rb"\r\n?|\n", data[: error.start]))
            fact = f"cannot be read, for row {row} holds a letter that is not UTF-8"
        else:
            fact = f"cannot be read as {encoding.upper()}, as which it begins"
        raise _NoTableError(fact, _SAVE) from None
    if "\0" in text:
        row = 1 + len(re.findall(r"\r\n?|\n", text[: text.index("\0")]))
        fact = f"is damaged, for row {row} holds bytes that are 0"
        raise _NoTableError(fact, f"{_SAVE} anew, or take it from a backup")
    return text


def _without_mark(data: bytes) -> str:
    """Return how a file without a byte-order mark is written: in UTF-16 every second byte is 0."""
    probe = data[:_PROBE]
    even, odd = probe[::2].count(0), probe[1::2].count(0)
    if odd > len(probe) // 6 and not even:
        return "utf-16-le"
    if even > len(probe) // 6 and not odd:
        return "utf-16-be"
    return "utf-8"


def _split(text: str) -> tuple[str, Iterator[tuple[int, list[str]]]]:
    """Return the separator, and the rows from the header on."""
    first = text.lstrip("\ufeff").splitlines()[0] if text.strip() else ""
    if said := _SAID_SEPARATOR.fullmatch(first.strip(" ")):
        separator = said[1]
        return separator, (record for record in _records(text, separator) if record[0] > 1)
    separator = max(SEPARATORS, key=lambda one: _fit(text, one))
    return separator, _records(text, separator)


def _fit(text: str, separator: str) -> tuple[int, int]:
    """Return how well a separator fits the header: columns that are known, columns at all."""
    try:
        _, cells = next(_records(text, separator), (0, []))
    except _NoTableError:
        return 0, 0
    names = [tidy(cell) for cell in cells]
    return sum(map(_is_reserved, names)), len(names)


def _is_reserved(name: str) -> bool:
    word, dot, rest = name.casefold().partition(".")
    return word in RESERVED and (not dot or (word == "image" and bool(rest)))


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows with something in them."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True
    )
    row = 0
    try:
        for row, cells in enumerate(reader, start=1):
            if any(tidy(cell).strip(_NOTHING) for cell in cells):
                yield row, cells
    except csv.Error:
        fact = f"cannot be read from row {row + 1} on, where a quote opens and is not closed"
        raise _NoTableError(fact, 'take it out, or write "" for a quote inside a cell') from None


def _table(path: Path, separator: str, records: Iterator[tuple[int, list[str]]]) -> Table:
    first = next(records, None)
    if first is None:
        fact = "is empty"
        raise _NoTableError(fact, "give it a header and a row for each examination")
    header = tuple(tidy(name) for name in first[1])
    lines = []
    for row, cells in records:
        if [tidy(cell) for cell in cells] == list(header):
            continue  # two exports, one below the other
        _check_quotes(row, cells, separator, len(header))
        filled = [*(cell.strip() for cell in cells), *[""] * (len(header) - len(cells))]
        lines.append(Line(row, tuple(filled)))
    return Table(path, header, tuple(lines), separator)


def _check_quotes(row: int, cells: Sequence[str], separator: str, width: int) -> None:
    """Refuse a cell that has swallowed rows: a quote opens in it, and a later stray one closes."""
    for cell in cells:
        if "\n" not in cell and "\r" not in cell:
            continue
        within = cell.splitlines()[1:]
        if width > 2 and any(line.count(separator) >= width - 2 for line in within):
            fact = f"cannot be read from row {row} on, where a quote opens and takes in later rows"
            raise _NoTableError(fact, 'take it out, or write "" for a quote inside a cell')
