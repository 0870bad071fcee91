"""What pages about runs are put together from: sections, tables, times and sizes in words."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from wardround.common.runtime.printable import printable

_TEXT = ' class="text"'


def told(text: str) -> str:
    """Return text of a site, a study or a server as HTML: it cannot act, and hides nothing."""
    return escape(printable(text))


def section(title: str, body: str, level: int = 2) -> str:
    """Return a section with its heading; its body is HTML already."""
    return f"<section>\n<h{level}>{told(title)}</h{level}>\n{body}\n</section>\n"


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], style: str = "") -> str:
    """Return a table of texts, the first of each row its heading.

    Args:
        style: A class of all cells but the headings.
    """
    lines = []
    for first, *others in rows:
        cells = "".join(f'<td class="{style}">{told(cell)}</td>' for cell in others)
        lines.append(f'<tr><th scope="row">{told(first)}</th>{cells}</tr>')
    return whole_table(caption, head, lines, head if style == "text" else ())


def whole_table(
    caption: str, head: Sequence[str], rows: Iterable[str], texts: Sequence[str] = ()
) -> str:
    """Return a table of rows that are HTML already.

    Args:
        texts: Which columns hold words and not numbers: their heads stand to the left as they do.
    """
    columns = "".join(
        f'<th scope="col"{_TEXT if name in texts else ""}>{told(name)}</th>' for name in head
    )
    body = "\n".join(rows)
    return (
        f'<div class="wide"><table>\n<caption>{told(caption)}</caption>\n'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n"
    )


def size_words(count: int) -> str:
    """Return a number of bytes as people write it."""
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def time_words(seconds: float | None) -> str:
    """Return a moment in UTC, to the minute."""
    return "–" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
