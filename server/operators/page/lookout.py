"""What a page knows at a moment: asked of a server no oftener than needed, and only while read.

Runs and sites are asked for at each look. What is costly is asked for when it is new: the record of
a run after a round or a change of state, and then not at every look; how the server itself stands
now and then. What happens in a run comes as it happens, by a watch that ends when nobody looks.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from wardround.common.errors import WardroundError
from wardround.server.operators.messages import (
    RunEvent,
    RunRecord,
    RunSummary,
    ServerSummary,
    SiteSummary,
)
from wardround.server.operators.page.asked_server import AskedServer

MOST_SHOWN = 4  # runs with their course on one page
MOST_EVENTS = 200  # of a run that are kept
_RECORD_SECONDS, _OLD_RECORD_SECONDS = 4.0, 60.0
_SERVER_SECONDS = 5.0
_UNREAD_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class ShownRun:
    """A run whose course is shown.

    Attributes:
        summary: How it stands now.
        record: What is known of it, up to some seconds ago; None until it was asked for.
        events: The latest, in order.
    """

    summary: RunSummary
    record: RunRecord | None
    events: tuple[RunEvent, ...]


@dataclass(frozen=True, slots=True)
class Sight:
    """What is to be seen.

    Attributes:
        trouble: Why the server does not answer now; what is shown is then what it last said.
        server: None where it has not answered yet.
        shown: The runs under way; where there are none, the last that ended.
    """

    trouble: str = ""
    server: ServerSummary | None = None
    runs: tuple[RunSummary, ...] = ()
    sites: tuple[SiteSummary, ...] = ()
    shown: tuple[ShownRun, ...] = ()


class Lookout:
    """Looks at a server for all readers of a page; one thread looks at a time."""

    def __init__(
        self,
        server: AskedServer,
        clock: Callable[[], float] = time.monotonic,
        rest_seconds: float = _UNREAD_SECONDS / 3,
    ) -> None:
        self._server, self._clock, self._rest_seconds = server, clock, rest_seconds
        self._last = Sight()
        self._records: dict[str, _Kept] = {}
        self._watches: dict[str, _Watch] = {}
        self._server_at, self._looked_at = -math.inf, -math.inf
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._resting = threading.Thread(target=self._rest, name="page-rest", daemon=True)
        self._resting.start()

    def look(self) -> Sight:
        """Return what is to be seen now."""
        with self._lock:
            self._looked_at = self._clock()
            try:
                self._last = self._ask()
            except WardroundError as error:
                old = self._last
                self._last = Sight(str(error), old.server, old.runs, old.sites, old.shown)
            return self._last

    def close(self) -> None:
        """Ask no more."""
        self._closing.set()
        with self._lock:
            self._end_watches()

    def _ask(self) -> Sight:
        runs, sites = self._server.runs().runs, self._server.sites().sites
        summary = self._last.server
        if summary is None or self._last.trouble or self._is_due(self._server_at, _SERVER_SECONDS):
            summary, self._server_at = self._server.server(), self._clock()
        chosen = choose(runs)
        for gone in self._watches.keys() - {run.run for run in chosen}:
            self._watches.pop(gone).end()
            self._records.pop(gone, None)
        return Sight("", summary, runs, sites, tuple(self._show(run) for run in chosen))

    def _is_due(self, at: float, seconds: float) -> bool:
        return self._clock() - at >= seconds

    def _show(self, run: RunSummary) -> ShownRun:
        kept = self._records.get(run.run)
        if kept is None or self._is_old(kept, run):
            kept = _Kept(_mark(run), self._clock(), self._server.record(run.run))
            self._records[run.run] = kept
        watch = self._watches.get(run.run)
        is_cut = watch is not None and watch.is_over and not run.is_over  # resumed, or refused
        if watch is None or (is_cut and self._is_due(watch.began, _SERVER_SECONDS)):
            watch = self._watches[run.run] = _Watch(self._server, run.run, self._clock())
        return ShownRun(run, kept.record, watch.events)

    def _is_old(self, kept: "_Kept", run: RunSummary) -> bool:
        if kept.mark[0] != _mark(run)[0]:  # it begins, or ends
            return True
        is_new = kept.mark != _mark(run)
        return self._is_due(kept.at, _RECORD_SECONDS if is_new else _OLD_RECORD_SECONDS)

    def _rest(self) -> None:
        """End what goes on by itself once nobody looks."""
        while not self._closing.wait(self._rest_seconds):
            with self._lock:
                if self._is_due(self._looked_at, _UNREAD_SECONDS):
                    self._end_watches()

    def _end_watches(self) -> None:
        for watch in self._watches.values():
            watch.end()
        self._watches.clear()


def choose(runs: tuple[RunSummary, ...]) -> tuple[RunSummary, ...]:
    """Return the runs whose course is shown: those under way, or else the last that ended."""
    under_way = [run for run in runs if not run.is_over and run.state != "queued"]
    if under_way:
        return tuple(under_way[:MOST_SHOWN])
    ended = [run for run in runs if run.is_over]
    return tuple(sorted(ended, key=lambda run: run.ended or run.submitted)[-1:])


@dataclass(frozen=True, slots=True)
class _Kept:
    """A record, and what it was asked for."""

    mark: tuple[str, int]
    at: float
    record: RunRecord


def _mark(run: RunSummary) -> tuple[str, int]:
    return run.state, run.round


@dataclass(slots=True)
class _Watch:
    """The watch of one run, in a thread of its own."""

    server: AskedServer
    run: str
    began: float
    is_over: bool = False
    _events: deque[RunEvent] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS))
    _cancel: Callable[[], object] = lambda: None
    _is_ended: bool = False

    def __post_init__(self) -> None:
        threading.Thread(target=self._follow, name="page-watch", daemon=True).start()

    @property
    def events(self) -> tuple[RunEvent, ...]:
        """The latest events, in order."""
        return tuple(self._events.copy())

    def end(self) -> None:
        """Watch no more."""
        self._is_ended = True
        self._cancel()

    def _begin(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel
        if self._is_ended:  # before it had begun
            cancel()

    def _follow(self) -> None:
        try:
            for event in self.server.watch(self.run, self._begin):
                self._events.append(event)
        except WardroundError:  # the server has ended; whoever looks is told, and a new one begins
            pass
        finally:
            self.is_over = True
