"""Columns of a researcher's own data: one value a row, checked, as the text of a manifest."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wardround.common.errors import DataError

_MOST_NAMED = 5
_MOST_CLASSES = 1_000


def as_list(
    values: Iterable[Any], what: str, rows: int | None = None, counted: str = ""
) -> list[Any]:
    """Return a column as a list of plain values.

    Args:
        values: A list, an array, a tensor or a column of a data frame.
        what: How messages call it, e.g. "labels".
        rows: How many there must be; None takes any number.
        counted: How messages call these rows, e.g. "images".

    Raises:
        DataError: It is no column, or of another length.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        msg = f"{what} is {type(values).__name__}: give a list or an array with a value each row."
        raise DataError(msg)
    if hasattr(values, "detach"):  # a tensor, which may need a gradient
        values = values.detach().cpu().numpy()
    array = np.asarray(values) if hasattr(values, "__array__") else None
    if array is not None and array.ndim != 1:
        shape = "x".join(str(size) for size in array.shape)
        remedy = (
            "give one value a row, e.g. labels.argmax(axis=1)"
            if what == "labels" and array.ndim == 2
            else "give one value a row"
        )
        msg = f"{what} has the shape {shape}: {remedy}."
        raise DataError(msg)
    found = [_plain(value) for value in (values if array is None else array.tolist())]
    if rows is not None and len(found) != rows:
        msg = f"there are {rows} {counted} and {len(found)} {what}: give one for each."
        raise DataError(msg)
    return found


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


def is_absent(value: Any) -> bool:
    """Whether a cell says that there is no value: None, NaN, NaT, pandas.NA, blanks."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA is neither true nor false
        return True


def require_present(values: Sequence[Any], what: str, remedy: str) -> None:
    """Refuse a column with cells that hold nothing.

    Raises:
        DataError: Names the rows, from 0.
    """
    absent = [at for at, value in enumerate(values) if is_absent(value)]
    if absent:
        msg = f"{what} holds nothing in {rows_named(absent)}: {remedy}."
        raise DataError(msg)


def rows_named(rows: Sequence[int]) -> str:
    """Return a few rows in words; they count from 0, as in Python."""
    shown = ", ".join(map(str, rows[:_MOST_NAMED]))
    more = f" and {len(rows) - _MOST_NAMED} more" if len(rows) > _MOST_NAMED else ""
    return f"row{'' if len(rows) == 1 else 's'} {shown}{more} (from 0)"


def as_text(value: Any) -> str:
    """Return a value as a manifest writes it; a whole number has no point."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value).strip()


@dataclass(frozen=True, slots=True)
class Labels:
    """What each row is, in words, and the classes in the study's order."""

    texts: tuple[str, ...]
    classes: tuple[str, ...]


def as_labels(values: Sequence[Any], classes: Sequence[str] | None) -> Labels:
    """Return labels as names of classes.

    Args:
        values: Names, booleans, or whole numbers; with ``classes`` the numbers are places in it.
        classes: The classes in order; None takes those that occur, sorted.

    Raises:
        DataError: A label is missing, is no class, or is a measured number.
    """
    require_present(values, "labels", "leave such rows out, or give them a class")
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    broken = [v for v in numbers if isinstance(v, float) and not v.is_integer()]
    if broken:
        msg = f"labels holds {broken[0]:g}: give classes, as names or as whole numbers from 0."
        raise DataError(msg)
    if classes is None:
        found = sorted({as_text(v) for v in values}, key=_in_order)
        _require_classes(found)
        return Labels(tuple(as_text(v) for v in values), tuple(found))
    names = tuple(str(name) for name in classes)
    texts = []
    for at, value in enumerate(values):
        text = as_text(value)
        if text not in names and text.isdecimal() and int(text) < len(names):
            text = names[int(text)]
        if text not in names:
            msg = f"labels holds none of the classes in row {at} (from 0): {', '.join(names)}."
            raise DataError(msg)
        texts.append(text)
    return Labels(tuple(texts), names)


def _in_order(text: str) -> tuple[int, float, str]:
    return (0, float(text), "") if text.isdecimal() else (1, 0.0, text)


def _require_classes(found: Sequence[str]) -> None:
    if len(found) < 2:
        only = found[0] if found else "none"
        msg = f"labels holds one class only ({only}): a classification needs at least 2."
        raise DataError(msg)
    if len(found) > _MOST_CLASSES:
        msg = f"labels holds {len(found)} different values: are these classes? Give names of some."
        raise DataError(msg)


def is_number(value: Any) -> bool:
    """Whether a cell of a table is a number or a truth value."""
    return isinstance(value, int | float | np.bool_)


def rounded(value: float, digits: int = 3) -> float:
    """Return a number with so many digits that count."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))
