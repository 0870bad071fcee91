"""Words of a table in the one form in which they are compared, and the study's word for each."""

import math
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_INVISIBLE = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters, by Unicode, that show nothing
_QUOTES = {"“": "”", "„": "“”", "«": "»", "‟": "”", "‘": "’", "‚": "‘’"}
_KEPT_AS_TEXT = re.compile(r'="(.*)"')  # how a spreadsheet is made to keep leading zeros


@lru_cache(maxsize=4096)  # few texts stand in many cells: classes, sites, scanners
def tidy(text: str) -> str:
    """Return a cell's text in the one form in which texts are compared.

    Composed letters (NFC, where a Mac decomposes them); every blank an ordinary one, single and
    none outside; no signs that show nothing; no quotes of a word processor around it.
    """
    if text.isascii() and text.isprintable():
        plain = " ".join(text.split())
    else:
        composed = unicodedata.normalize("NFC", text)
        plain = " ".join("".join(_visible(letter) for letter in composed).split())
    if kept := _KEPT_AS_TEXT.fullmatch(plain):
        return kept[1].strip()
    if len(plain) > 1 and plain[-1] in _QUOTES.get(plain[0], ""):
        return plain[1:-1].strip()
    return plain


def _visible(letter: str) -> str:
    if letter.isspace() or letter in _INVISIBLE:
        return " "
    return "" if unicodedata.category(letter) in ("Cf", "Cc") else letter


def word_among(text: str, words: Iterable[str]) -> str | None:
    """Return the one of a study's words that a cell stands for; None where it is none of them.

    As it is written first; then capitals and ways to write a letter aside, and 1.0 as 1.
    """
    return _word_among(text, tuple(words))


@lru_cache(maxsize=4096)
def _word_among(text: str, known: tuple[str, ...]) -> str | None:
    if text in known:
        return text
    for key in (_folded, _as_number):
        wanted = key(text)
        alike = [one for one in known if wanted is not None and key(one) == wanted]
        if len(alike) == 1:
            return alike[0]
    return None


def whole_number(text: str) -> int | None:
    """Return the number of 2, 2.0 or 2,0; None for any other text."""
    found = re.fullmatch(r"\+?(\d{1,9})([.,]0+)?", text)
    return int(found[1]) if found and found[1].isascii() else None


def number_in(text: str) -> float | None:
    """Return the finite number that a cell is, its decimal mark a point; None for other text."""
    try:
        number = float(text.replace("\u2212", "-"))  # a word processor's minus
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None


def _folded(text: str) -> str | None:
    return tidy(text).casefold()


def _as_number(text: str) -> str | None:
    number = whole_number(text)
    return None if number is None else str(number)
