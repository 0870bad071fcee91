"""What is shown while a simulation runs: bars on a terminal, elsewhere a line a round."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from wardround.simulations.run_files.event_texts import line_of
from wardround.simulations.run_files.events import (
    Event,
    RoundDone,
    StageFinished,
    StageStarted,
    Watch,
    nobody,
    title_of,
)
from wardround.simulations.run_files.folder import FEDERATED

_SECONDS_A_MINUTE = 60
_STEADY = 2  # the round whose time is taken for that of all

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextmanager
def watching(quiet: bool) -> Iterator[Watch]:
    """Yield a watch that shows progress on standard error, or one that shows nothing.

    A display that has gone, a terminal that was closed say, ends no run.
    """
    if quiet:
        yield nobody
        return
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield _print_line
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console)
    try:
        yield _Bars(progress).take
    finally:
        if progress.live.is_started:
            with suppress(OSError):
                progress.stop()


class _Bars:
    """One bar a stage; baselines run side by side."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def take(self, event: Event) -> None:
        """Draw one event."""
        with suppress(OSError):
            self._progress.start()  # not before: what is refused at once draws nothing
            self._draw(event)

    def _draw(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self._begin(event.stage, event.rounds or 1, event.done)
        elif isinstance(event, StageFinished):
            task = self._task(event.stage, 1)
            self._progress.update(task, completed=self._progress.tasks[task].total)
        elif isinstance(event, RoundDone):
            task = self._task(event.stage, event.rounds)
            note = "" if event.value != event.value else f"{event.metric} {event.value:.3f}"
            self._progress.update(task, completed=event.round, note=note)
            if pace := pace_of(event):
                self._progress.console.print(pace, markup=False)
        else:
            self._progress.console.print(line_of(event), markup=False)

    def _task(self, stage: str, total: int) -> "TaskID":
        """Return a stage's bar, also of one whose beginning was not told."""
        return self._tasks[stage] if stage in self._tasks else self._begin(stage, total, 0)

    def _begin(self, stage: str, total: int, done: int) -> "TaskID":
        task = self._progress.add_task(title_of(stage), total=total, completed=done, note="")
        self._tasks[stage] = task
        return task


def _print_line(event: Event) -> None:
    """Print what is worth a line in a log: each stage, each round, who is left out."""
    pace = pace_of(event) if isinstance(event, RoundDone) else ""
    for line in filter(None, (line_of(event), pace)):
        with suppress(OSError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def pace_of(event: RoundDone) -> str:
    """Return how long all rounds of the federation take, after the second; "" where it is soon.

    The first round also reads the images.
    """
    minutes = event.seconds * event.rounds / _SECONDS_A_MINUTE
    if event.stage != FEDERATED or event.round != _STEADY or minutes < 1:
        return ""
    return f"at this pace all {event.rounds} rounds take about {minutes:.0f} minutes"
