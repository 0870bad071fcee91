"""What a terminal shows while a simulation runs: stage, round, metric, time left."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wardround.simulations.watch import Event, RoundDone, SiteFailed, StageStarted, Watch, nobody

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_TITLES = {
    "data": "reading and splitting the data",
    "federated": "training together",
    "pooled": "training on pooled data",
    "test": "testing every model on every site",
    "report": "writing the report",
}


@contextmanager
def watching(quiet: bool) -> Iterator[Watch]:
    """Yield a watch that draws progress bars on standard error, or one that draws nothing."""
    if quiet:
        yield nobody
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
    with Progress(*columns, console=console) as progress:
        bars = _Bars(progress)
        yield bars.take
        bars.finish()


class _Bars:
    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._current: TaskID | None = None

    def take(self, event: Event) -> None:
        """Draw one event."""
        if isinstance(event, StageStarted):
            self.finish()
            self._current = self._progress.add_task(
                title_of(event.stage), total=event.rounds or 1, note=""
            )
        elif isinstance(event, RoundDone) and self._current is not None:
            note = "" if event.value != event.value else f"{event.metric} {event.value:.3f}"
            self._progress.update(self._current, completed=event.round, note=note)
        elif isinstance(event, SiteFailed):
            self._progress.console.print(
                f"round {event.round}: {event.site} is left out: {event.reason}", markup=False
            )

    def finish(self) -> None:
        """Fill the bar of the stage that just ended."""
        if self._current is not None:
            task = next(t for t in self._progress.tasks if t.id == self._current)
            self._progress.update(self._current, completed=task.total)


def title_of(stage: str) -> str:
    """Return how a person calls a stage."""
    site = stage.removeprefix("local-")
    return _TITLES.get(stage, f"{site} training alone")
