"""Boxes as text: in a cell of the manifest, or as rows of a table."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from wardround.client.data.reading.boxes.found import (
    FoundBoxes,
    boxes_of,
    is_of_image,
    number_of,
    read_bounded,
)
from wardround.client.data.reading.image import UnreadableError
from wardround.client.tasks.words import tidy
from wardround.common.study.registry import NO_CLASS

_MOST_BYTES = 16_000_000
_SEPARATORS = (",", ";", "\t")
_CLASS = ("class", "label", "category", "name", "cell_type")
_IMAGE = ("image", "filename", "file_name", "image_id", "image_name")
# How a table may call the two ends of an axis.
_ENDS = (
    ("{}0", "{}1"),
    ("{}min", "{}max"),
    ("{}_min", "{}_max"),
    ("{}1", "{}2"),
)
_LENGTHS = ("width", "height", "depth")


def is_blank(text: str) -> bool:
    """Return whether a cell says nothing, not even that there is nothing."""
    return not tidy(text)


def is_written_out(text: str, dimensions: int) -> bool:
    """Return whether a cell holds boxes, or says that there is none; otherwise it names a file."""
    if tidy(text).casefold() in ("", NO_CLASS):
        return True
    parts = [part for part in text.split(";") if part.strip()]
    return bool(parts) and all(_numbers_at_end(part) >= min(2, dimensions) for part in parts)


def _numbers_at_end(part: str) -> int:
    count = 0
    for word in reversed(part.split()[1:]):
        try:
            number_of(word)
        except ValueError:
            break
        count += 1
    return count


def read_text(text: str, dimensions: int) -> FoundBoxes:
    """Return the boxes that a cell holds: ``class x0 y0 x1 y1; class x0 y0 x1 y1``.

    In three dimensions each box has six numbers, ``x0 y0 z0 x1 y1 z1``. ``none``, or nothing, says
    that there is no box.

    Raises:
        UnreadableError: A box has another count of numbers.
    """
    if tidy(text).casefold() in ("", NO_CLASS):
        return boxes_of([], dimensions)
    named = []
    for part in text.split(";"):
        if not part.strip():
            continue
        words = part.split()
        if len(words) <= 2 * dimensions or _numbers_at_end(part) < 2 * dimensions:
            order = "x0 y0 x1 y1" if dimensions == 2 else "x0 y0 z0 x1 y1 z1"
            msg = f"a box is not a class and {2 * dimensions} numbers: write CLASS {order}."
            raise UnreadableError(msg)
        name = " ".join(words[: -2 * dimensions])
        named.append((name, [number_of(word) for word in words[-2 * dimensions :]]))
    return boxes_of(named, dimensions)


def read_table(path: Path, dimensions: int, image: Path) -> FoundBoxes:
    """Return the boxes of a table with a header: class, x0, y0, x1, y1 (z0, z1 in a volume).

    The ends may also be called xmin and xmax, x1 and x2, or x and width. Where a column image (or
    filename) is there, the rows of other images are passed over.

    Raises:
        UnreadableError: It is no such table; says the row where one can be said.
    """
    try:
        text = read_bounded(path, _MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        msg = "it is no text in UTF-8: save it as 'CSV UTF-8'."
        raise UnreadableError(msg) from None
    first = text.split("\n", 1)[0]
    separator = max(_SEPARATORS, key=first.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if any(row)]
    except csv.Error:
        msg = "it is no table: save it as 'CSV UTF-8'."
        raise UnreadableError(msg) from None
    header = _header(rows)
    name, image_column = _place(header, _CLASS), _place(header, _IMAGE)
    ends = _ends(header, dimensions)
    if name is None or ends is None:
        axes = "x0, y0, x1, y1" if dimensions == 2 else "x0, y0, z0, x1, y1, z1"
        msg = f"its first row names no columns class, {axes}: write a header above the boxes."
        raise UnreadableError(msg)
    named = []
    for number, row in enumerate(rows[1:], start=2):
        if any(cell.strip() for cell in row[len(header) :]):
            msg = (
                f"its row {number} has more cells than its first row: is a decimal comma taken for "
                "the end of a cell? Write 3.5, or part cells with semicolons."
            )
            raise UnreadableError(msg)
        cells = [*row, *[""] * (len(header) - len(row))]
        if image_column is not None and not _names(cells[image_column], image):
            continue
        try:
            named.append((tidy(cells[name]), _corners(cells, ends, separator)))
        except ValueError:
            msg = f"its row {number} holds a corner that is no number: mend it."
            raise UnreadableError(msg) from None
    return boxes_of(named, dimensions)


def _header(rows: Sequence[Sequence[str]]) -> list[str]:
    header = [tidy(name).casefold() for name in rows[0]] if rows else []
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        msg = f"it has two columns '{twice[:20]}', capitals aside: leave one."
        raise UnreadableError(msg)
    return header


def _names(written: str, image: Path) -> bool:
    return is_of_image(written, image) or is_of_image(written, image.with_suffix(""))


def _place(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


_Ends = list[tuple[int, int, bool]]


def _ends(header: Sequence[str], dimensions: int) -> _Ends | None:
    """Return where the first end, and the last end or the length, of each axis stand."""
    axes = "xyz"[:dimensions]
    for low, high in _ENDS:
        names = [(low.format(axis), high.format(axis)) for axis in axes]
        if all(a in header and b in header for a, b in names):
            return [(header.index(a), header.index(b), False) for a, b in names]
    lengths = list(zip(axes, _LENGTHS, strict=False))
    if all(a in header and b in header for a, b in lengths):
        return [(header.index(a), header.index(b), True) for a, b in lengths]
    return None


def _corners(cells: Sequence[str], ends: _Ends, separator: str) -> list[float]:
    def number(place: int) -> float:
        text = cells[place]
        # Spreadsheets that write semicolons write decimal commas; with a point it may be thousands.
        return number_of(text if separator == "," or "." in text else text.replace(",", ".", 1))

    pairs = [(number(low), number(high), wide) for low, high, wide in ends]
    return [low for low, _, _ in pairs] + [
        low + high if wide else high for low, high, wide in pairs
    ]
