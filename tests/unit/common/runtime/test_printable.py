"""One function prints the text of the other side."""

import io
import logging
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from wardround.common.runtime.printable import (
    PrintableFormatter,
    cell,
    is_plain,
    printable,
    quoted,
    word,
)


@given(st.text(st.characters(), max_size=200))
def test_what_is_printed_can_be_seen_and_obeys_nothing(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert is_plain(shown)
    assert printable(shown) == shown
    assert all(line.startswith("  | ") and line.isprintable() for line in quoted(text).split("\n"))


@given(st.text(st.characters(), max_size=200))
def test_a_page_keeps_its_newlines_and_nothing_else_that_a_text_may_not_hold(text: str) -> None:
    shown = printable(text, lines=True)
    assert shown == "\n".join(printable(line) for line in text.split("\n"))
    assert shown.count("\n") == text.count("\n")


def test_an_escape_is_shown_and_a_long_text_ends_in_dots() -> None:
    assert printable("a\x1b[2Jb\u202ec") == "a\\x1b[2Jb\\u202ec"
    assert printable("Zürich\u00a0肺炎") == "Zürich 肺炎"
    assert printable("abcdefgh", 6) == "abc..."
    assert printable("a\nb", lines=True) == "a\nb"


def test_a_cell_reads_no_markup() -> None:
    said = io.StringIO()
    Console(file=said).print(cell("[bold red]deny[/] \x1b[2J"))
    assert said.getvalue() == "[bold red]deny[/] \\x1b[2J\n"


def test_no_text_begins_a_line_of_a_log() -> None:
    record = logging.LogRecord(
        "x", logging.INFO, "f", 1, "code=%s", ("a\n2026 INFO all well",), None
    )
    assert PrintableFormatter("%(message)s").format(record) == "code=a\\n2026 INFO all well"


def test_a_path_with_blanks_is_one_word_of_a_command() -> None:
    assert word(Path("/srv/our site")) == "'/srv/our site'"
    assert word("東京 病院") == "'東京 病院'"
    assert word("north") == "north"
