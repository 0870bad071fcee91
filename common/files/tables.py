"""CSV tables: a header, and a line a row; rows of one kind of dataclass both ways."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_type_hints

from wardround.common.errors import InputError
from wardround.common.files.atomic import BY_UMASK, replace_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")


def write_table(path: Path, rows: Iterable[Row], kind: type[Row]) -> None:
    """Write rows as CSV, a column a field, replacing the file at once.

    Raises:
        OSError: It cannot be written; the old one stays.
    """
    names = [field.name for field in fields(kind)]
    write_cells(path, names, ([getattr(row, name) for name in names] for row in rows))


def read_table(path: Path, kind: type[Row]) -> list[Row]:
    """Read what :func:`write_table` wrote; an absent file holds no rows.

    Args:
        kind: Its fields are made from the cells' text: ``str``, ``int`` and ``float`` can be.

    Raises:
        ValueError, TypeError, KeyError: It is not a table of such rows.
        OSError: It cannot be read.
    """
    if not path.exists():
        return []
    types = get_type_hints(kind)
    with path.open(newline="", encoding="utf-8") as stream:
        lines = csv.reader(stream)
        header = next(lines, [])
        made = [types[name] for name in header]
        in_order = header == [field.name for field in fields(kind)]
        rows = []
        for line in filter(None, lines):
            cells = [make(text) for make, text in zip(made, line, strict=True)]
            rows.append(kind(*cells) if in_order else kind(**dict(zip(header, cells, strict=True))))
        return rows


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Refuse a file of a run folder that somebody changed, which is named.

    Inside stands what reads the file and makes rows or arrays of it, and nothing else.

    Raises:
        InputError: It cannot be read as what it should be.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError, OSError, csv.Error):
        msg = (
            f"{path} is damaged or was written by another version of wardround: "
            "repeat the run, or make the report with the version that run.json names."
        )
        raise InputError(msg) from None


def read_kept_table(path: Path, kind: type[Row]) -> list[Row]:
    """Read a table of a run folder, which anybody may have changed since; see :func:`read_table`.

    Raises:
        InputError: It is damaged.
    """
    with refusing_damage(path):
        return read_table(path, kind)


def write_cells(path: Path, header: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Write a table whose columns no dataclass names, replacing the file at once.

    Raises:
        OSError: It cannot be written; the old one stays.
    """

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(header)
            writer.writerows(lines)

    replace_file(path, write, BY_UMASK, durable=False)
