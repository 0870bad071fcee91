"""What a terminal shows while a simulation runs: stage, round, metric, time left."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wardround.simulations.run_files.events import (
    Event,
    RoundDone,
    StageFinished,
    StageStarted,
    Watch,
    nobody,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_TITLES = {
    "data": "reading and splitting the data",
    "federated": "training together",
    "pooled": "training on pooled data",
    "test": "testing every model on every site",
    "report": "writing the report",
    "server": "starting the server",
    "joining": "sites join over TLS",
    "sites": "starting the sites",
    "federation": "training together",
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
    progress = Progress(*columns, console=console)
    try:
        yield _Bars(progress).take
    finally:
        if progress.live.is_started:
            progress.stop()


class _Bars:
    """One bar a stage; baselines run side by side."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def take(self, event: Event) -> None:
        """Draw one event."""
        self._progress.start()  # not before: what is refused at once draws nothing
        if isinstance(event, StageStarted):
            title, total = title_of(event.stage), event.rounds or 1
            self._tasks[event.stage] = self._progress.add_task(title, total=total, note="")
        elif isinstance(event, StageFinished):
            task = self._tasks[event.stage]
            self._progress.update(task, completed=self._progress.tasks[task].total)
        elif isinstance(event, RoundDone):
            note = "" if event.value != event.value else f"{event.metric} {event.value:.3f}"
            self._progress.update(self._tasks[event.stage], completed=event.round, note=note)
        else:
            self._progress.console.print(
                f"round {event.round}: {event.site} is left out: {event.reason}", markup=False
            )


def title_of(stage: str) -> str:
    """Return how a person calls a stage."""
    site = stage.removeprefix("local-")
    return _TITLES.get(stage, f"{site} training alone")
