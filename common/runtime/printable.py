"""Text of the other side, before it is read or printed: it must not be able to draw on a screen.

A terminal obeys control sequences (ECMA-48): text that holds one can wipe what was printed before
it, write something else in its place, or fill the clipboard. Bidirectional marks and line
separators change what is seen without changing what is there (Boucher and Anderson 2023, "Trojan
source"). So no string of a study may hold such characters, and whatever is printed all the same
goes through :func:`printable`.
"""

import logging
import shlex
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

# Control, format (bidirectional marks among them), line and paragraph separators, lone surrogates.
_REFUSED = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})
_LONGEST = 4_000  # characters of one text on a screen
_WIDTH = 76
_DEEPEST = 16


def is_plain(text: str, allowed: str = "") -> bool:
    """Return whether a text holds no control character, format character or line separator.

    Args:
        allowed: Characters that are taken all the same, e.g. a newline.
    """
    return all(sign in allowed or unicodedata.category(sign) not in _REFUSED for sign in text)


def printable(text: str, longest: int = _LONGEST, lines: bool = False) -> str:
    r"""Return a text as it may be shown on a terminal or written to a log.

    What cannot be seen, or would be obeyed, becomes an escape that can be read, e.g. ``\x1b``;
    accents, umlauts and every script stay as they are.

    Args:
        longest: Characters kept; the rest becomes three dots.
        lines: Whether newlines stay: for a whole page of ours, never for a single text of theirs.
    """
    kept = text if len(text) <= longest else text[: max(longest - 3, 0)] + "..."
    if lines:
        return "\n".join(map(_one_line, kept.split("\n")))
    return _one_line(kept)


def quoted(text: str) -> str:
    """Return a text in lines that each begin with "  | ", so that none passes for one of ours.

    Blanks are drawn together and lines broken: no run of blanks reaches the terminal's own line
    break, behind which the text would stand without its mark.
    """
    width = _WIDTH // 2 if _is_wide(text) else _WIDTH
    parts = (textwrap.wrap(printable(part), width) or [""] for part in text.split("\n"))
    return "\n".join(f"  | {line}" for lines in parts for line in lines)


def refused_texts(content: object, place: str = "", depth: int = 0) -> Iterator[str]:
    """Yield a sentence for each string of nested content that holds a character to refuse.

    Args:
        content: What a TOML or JSON reader returns: keys are looked at like values.
        place: The dotted name of the content.
        depth: Of that name: content may be nested so deep that nobody can look through it.
    """
    if depth > _DEEPEST:
        yield f"{printable(place, 200)} is nested {depth} deep, as no key of a study is: remove it."
    elif isinstance(content, str):
        yield from _refused_signs(content, place)
    elif isinstance(content, Mapping):
        for key, value in content.items():
            name = f"{place}.{key}" if place else str(key)
            yield from _refused_signs(str(key), f"the key {name}")
            yield from refused_texts(value, name, depth + 1)
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from refused_texts(value, f"{place}[{number}]", depth + 1)


def _refused_signs(text: str, place: str) -> Iterator[str]:
    found = next((sign for sign in text if not is_plain(sign, _allowed_at(place))), None)
    if found is not None:
        yield (
            f"{printable(place, 200)} holds the character U+{ord(found):04X}, which a screen "
            "obeys or hides: remove it."
        )


class PrintableFormatter(logging.Formatter):
    """A log's format in which no text of the other side begins a line or moves the cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 # logging's own name
        """Return the line of a record, without the traceback that may follow it."""
        return printable(super().formatMessage(record))


def _allowed_at(place: str) -> str:
    return "\n" if place in ("study.description", "description") else ""


def cell(text: str, longest: int = 200, style: str = "") -> "Text":
    """Return a text for a table of rich, in which no markup of theirs is read."""
    from rich.text import Text

    return Text(printable(text, longest), style=style)


def write_lines(text: str) -> None:
    """Write a page of ours to standard output; what theirs is in it can neither hide nor draw."""
    sys.stdout.write(printable(text, sys.maxsize, lines=True))


def _one_line(text: str) -> str:
    # Nearly every text is: asked at once, a page of 100 kB costs nothing.
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(sign: str) -> str:
    if sign.isprintable():
        return sign
    if unicodedata.category(sign) == "Zs":  # a blank of another width
        return " "
    return sign.encode("unicode_escape").decode("ascii")


def _is_wide(text: str) -> bool:
    return any(unicodedata.east_asian_width(sign) in "WF" for sign in text)


def word(value: object) -> str:
    """Return a name or a path as a shell takes it for one word, for a command that is shown."""
    return shlex.quote(str(value))
