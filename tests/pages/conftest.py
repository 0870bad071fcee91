"""A folder with a short path: a server's socket lies deep in it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.pages.story import Place


@pytest.fixture
def place(hearing_signals: Callable[[], None]) -> Iterator[Place]:
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        opened = Place(Path(name), hearing_signals)
        try:
            yield opened
        finally:
            opened.close()
