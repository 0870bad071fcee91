"""Keeping Flower's own account of a run from the screen; ours holds the same."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quieten_flower(level: int) -> Iterator[None]:
    """Let Flower say only what is at least this serious, e.g. ``logging.WARNING``."""
    theirs = logging.getLogger("flwr")
    before = theirs.level
    theirs.setLevel(level)
    try:
        yield
    finally:
        theirs.setLevel(before)


@contextmanager
def overhear_flower() -> Iterator[list[str]]:
    """Keep what Flower warns of from the screen, and give it as it comes: for an error of ours."""
    theirs, heard = logging.getLogger("flwr"), _Heard(logging.WARNING)
    handlers, spreads = theirs.handlers, theirs.propagate
    theirs.handlers, theirs.propagate = [heard], False
    try:
        with quieten_flower(logging.WARNING):
            yield heard.lines
    finally:
        theirs.handlers, theirs.propagate = handlers, spreads


class _Heard(logging.Handler):
    """Keeps what each record says."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's words."""
        self.lines.append(record.getMessage())
