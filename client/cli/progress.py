"""A bar on a terminal for work on many files; elsewhere nothing."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def counting(title: str, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Yield what is told how many files are done, of how many; the bar goes when the work ends."""
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield _nobody
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(title, total=None)

        def show(done: int, count: int) -> None:
            bars.update(bar, completed=done, total=count)

        yield show


def _nobody(done: int, count: int) -> None:
    return None
