"""The rounds of a run as spans: who was asked and answered when, how long the server took.

It stands around grid and strategy of a run whose server sends traces, and is not there otherwise.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from flwr.app import Message

from wardround.common.flower.site_grid import PassingGrid, SiteGrid
from wardround.common.messages.instructions import TRAIN
from wardround.common.messages.replies import SiteUpdate
from wardround.common.monitoring.traces import Attribute, Span, Traces, open_traces
from wardround.common.parameters.schema import Model, Parameters
from wardround.server.rounds.loop import RoundFinished
from wardround.server.scheduling.process import Rounds
from wardround.server.strategies.strategy import Site, Strategy

_MOST_ASKED = 4096  # of a round that are told; a run of more sites is cut short


def traced(
    rounds: Rounds, endpoint: str, run: str, names: Callable[[], Mapping[int, str]]
) -> Rounds:
    """Return the way of a run's rounds with spans sent of each, or as it was if none can be.

    Args:
        names: Gives the sites by their node ids.
    """
    traces = open_traces(endpoint, "wardround-server")
    if traces is None:
        return rounds
    trace = RoundTrace(run, traces, names)

    def note(finished: RoundFinished) -> None:
        rounds.note(finished)
        with suppress(Exception):  # a trace must not matter
            trace.note_round(finished)

    grid = TracedGrid(rounds.grid, trace)
    return Rounds(grid, note, lambda strategy: TracedStrategy(strategy, trace), traces.close)


class RoundTrace:
    """What was measured of the round at hand."""

    def __init__(self, run: str, traces: Traces, names: Callable[[], Mapping[int, str]]) -> None:
        self._run, self._traces, self._names = run, traces, names
        self._sent: dict[str, _Asked] = {}
        self._asked: list[_Asked] = []
        self._combining = 0.0
        self._finishing = (0.0, 0.0)

    def note_sent(self, message_id: str, node: int, kind: str) -> None:
        """Note that a site was asked."""
        if len(self._sent) < _MOST_ASKED:
            self._sent[message_id] = _Asked(node, kind, time.time(), 0.0)

    def note_reply(self, message_id: str) -> None:
        """Note that its reply is here."""
        if message_id in self._sent and len(self._asked) < _MOST_ASKED:
            self._asked.append(replace(self._sent.pop(message_id), end=time.time()))

    def note_combined(self, seconds: float) -> None:
        """Note how long an update took to be taken in."""
        self._combining += seconds

    def note_finished(self, begin: float, end: float) -> None:
        """Note when the next model was made."""
        self._finishing = begin, end

    def note_round(self, finished: RoundFinished) -> None:
        """Have a round that was committed sent as a span, and begin anew."""
        record, (begin, end), now = finished.record, self._finishing, time.time()
        trained = {site.site: site.seconds for site in record.sites}
        names = self._names()
        first = min([begin - record.seconds, *(one.begin for one in self._asked)])
        combine: dict[str, Attribute] = {"wardround.accumulate_seconds": self._combining}
        inside = (
            *(one.span(names.get(one.node, ""), trained) for one in self._asked),
            Span("aggregate", begin, end, combine),
            Span("commit", end, now),
        )
        attributes: dict[str, Attribute] = {
            "wardround.run": self._run,
            "wardround.round": record.round,
            "wardround.rounds": finished.rounds,
            "wardround.sites": len(record.sites),
            "wardround.refusals": len(record.refusals),
        }
        self._traces.write([Span("round", first, now, attributes, inside)])
        self._asked, self._combining = [], 0.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question to a site, and when its answer was there."""

    node: int
    kind: str
    begin: float
    end: float

    def span(self, site: str, trained: Mapping[str, float]) -> Span:
        """Return it as a span; a training's own time is what the site says of it."""
        inside: tuple[Span, ...] = ()
        seconds = trained.get(site, 0.0)
        if self.kind.startswith(TRAIN) and seconds:
            told: dict[str, Attribute] = {"wardround.told_by": "site"}
            inside = (Span("train", max(self.begin, self.end - seconds), self.end, told),)
        about: dict[str, Attribute] = {"wardround.site": site, "wardround.kind": self.kind}
        return Span("ask site", self.begin, self.end, about, inside)


class TracedGrid(PassingGrid):
    """A grid whose questions and replies are noted."""

    def __init__(self, grid: SiteGrid, trace: RoundTrace) -> None:
        super().__init__(grid)
        self._trace = trace

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages to their sites; return their ids."""
        sent = list(messages)
        about = [(one.metadata.dst_node_id, one.metadata.message_type) for one in sent]
        ids = list(self._grid.push_messages(sent))
        for message_id, (node, kind) in zip(ids, about, strict=True):
            self._trace.note_sent(message_id or "", node, kind)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages that are there."""
        for reply in self._grid.pull_messages(message_ids):
            self._trace.note_reply(reply.metadata.reply_to_message_id)
            yield reply


class TracedStrategy:
    """A strategy whose aggregation is timed."""

    def __init__(self, strategy: Strategy, trace: RoundTrace) -> None:
        self._strategy, self._trace = strategy, trace

    def cohorts(self, sites: Sequence[Site]) -> Sequence[Sequence[Site]]:
        """Return who works at the same time."""
        return self._strategy.cohorts(sites)

    def begin(self, number: int, parameters: Model) -> None:
        """Prepare for a round."""
        self._strategy.begin(number, parameters)

    def model(self) -> Model:
        """Return the model that the next cohort of this round is sent."""
        return self._strategy.model()

    def auxiliary(self) -> Parameters:
        """Return what an instruction carries beside the model."""
        return self._strategy.auxiliary()

    def accumulate(self, update: SiteUpdate) -> None:
        """Take one site's update in."""
        begin = time.perf_counter()
        self._strategy.accumulate(update)
        self._trace.note_combined(time.perf_counter() - begin)

    def finish(self) -> Parameters:
        """Return the next model."""
        begin = time.time()
        made = self._strategy.finish()
        self._trace.note_finished(begin, time.time())
        return made

    def state(self) -> Parameters:
        """Return what must survive a crash."""
        return self._strategy.state()

    def restore(self, state: Parameters) -> None:
        """Go on from a state."""
        self._strategy.restore(state)
