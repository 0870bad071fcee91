"""Markdown from text that others wrote: it shows as it stands, and is nothing but text."""

import re
from collections.abc import Iterable, Iterator, Sequence

from wardround.common.runtime.printable import printable

_MARKS = re.compile(r"([\\`*\[\]<>|])")
_AT_THE_START = re.compile(r"^([#+=-]|\d+[.)])(?=\s|$|[-=])")
_LONGEST = 10_000


def inline(text: str) -> str:
    """Return a text as one line that Markdown shows as it stands."""
    escaped = _MARKS.sub(r"\\\1", printable(" ".join(text.split()), _LONGEST))
    return _AT_THE_START.sub(lambda found: _escaped_start(found.group(1)), escaped)


def table_lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, and an empty one; every cell is escaped here."""
    yield _row(head)
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield _row(row)
    yield ""


def fenced(text: str, language: str) -> Iterator[str]:
    """Yield a text as a block that ends nowhere but at its end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    yield f"{fence}{language}"
    yield from (printable(line, _LONGEST) for line in text.splitlines())
    yield fence


def _escaped_start(mark: str) -> str:
    """A number's own sign is behind its digits."""
    return f"{mark[:-1]}\\{mark[-1]}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(inline(cell) or " " for cell in cells) + " |"
