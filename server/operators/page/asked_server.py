"""The server that a page asks: through the operators' API, or in the server's own process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from wardround.server.operators.messages import (
    AboutRun,
    Nothing,
    RunEvent,
    RunRecord,
    Runs,
    RunSummary,
    ServerSummary,
    Sites,
    Submission,
    Submitted,
)
from wardround.server.operators.operations import Operations

Begun = Callable[[Callable[[], object]], None]


class AskedServer(Protocol):
    """What a page asks; a ServerLine is one.

    Each method raises :class:`WardroundError` with a sentence where it is refused or not answered.
    """

    def runs(self) -> Runs:
        """Return all runs."""

    def sites(self) -> Sites:
        """Return all sites."""

    def server(self) -> ServerSummary:
        """Return how the server stands."""

    def record(self, run: str) -> RunRecord:
        """Return what a page about a run is made of."""

    def watch(self, run: str, begun: Begun = ...) -> Iterator[RunEvent]:
        """Yield what has happened and what happens in a run.

        Args:
            begun: Is given what ends the watch, from any thread.
        """

    def submit(self, submission: Submission) -> Submitted:
        """Hand a study in."""

    def stop(self, run: str) -> RunSummary:
        """Want a run to stop."""

    def resume(self, run: str) -> RunSummary:
        """Queue a run again."""


@dataclass(frozen=True, slots=True)
class OwnServer:
    """The server whose process this is."""

    operations: Operations

    def runs(self) -> Runs:
        """Return all runs."""
        return self.operations.runs(Nothing())

    def sites(self) -> Sites:
        """Return all sites."""
        return self.operations.sites(Nothing())

    def server(self) -> ServerSummary:
        """Return how the server stands."""
        return self.operations.server(Nothing())

    def record(self, run: str) -> RunRecord:
        """Return what a page about a run is made of."""
        return self.operations.record(AboutRun(run))

    def watch(self, run: str, begun: Begun = lambda _: None) -> Iterator[RunEvent]:
        """Yield what has happened and what happens in a run."""
        ended = Event()
        begun(ended.set)
        yield from self.operations.watch(AboutRun(run), lambda seconds: not ended.wait(seconds))

    def submit(self, submission: Submission) -> Submitted:
        """Hand a study in."""
        return self.operations.submit(submission)

    def stop(self, run: str) -> RunSummary:
        """Want a run to stop."""
        return self.operations.stop(AboutRun(run))

    def resume(self, run: str) -> RunSummary:
        """Queue a run again."""
        return self.operations.resume(AboutRun(run))
