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
