"""What happens in a run, as it happens, from its row and its folder's files."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from wardround.common.files.json_lines import split_lines
from wardround.common.runtime.fields import plain
from wardround.common.runtime.printable import printable
from wardround.server.checkpoints.lost_sites import TRAINING
from wardround.server.operators.messages import RoundReport, RunEvent, RunSummary
from wardround.server.operators.run_summaries import HistoryTail, summarise
from wardround.server.scheduling.folder import LOG_FILE, RunFolder
from wardround.server.scheduling.store import FINISHED, find_run

# What a run's process writes into its log that no state and no round says.
_NOTES = {
    "process started": "its process was started",
    "link lost": "its connection to the sites' link was lost; it goes on from its last commit",
    "sites ready": "its sites are ready",
    "site left out": "a site is left out",
    "site joined": "a site has come",
    "site missed": "a site is not waited for any more",
    "site back": "a site is back",
    "deadline": "how long it waits",
    "canary begun": "one round is gone through",
    "canary": "the canary round is over",
}
_LOOK_SECONDS = 0.5


def watch_run(folder: Path, run: str, wait: Callable[[float], bool]) -> Iterator[RunEvent]:
    """Yield what has happened in a run, then what happens, until it is over.

    A round is told once it is committed, and once only: one that a crash undid was not told.

    Args:
        wait: Waits so many seconds; False ends the watch.

    Raises:
        InputError: There is no such run.
        RunError: The database cannot be used.
    """
    seen = _Seen.of(RunFolder(folder, run))
    while True:
        summary = summarise(folder, find_run(folder, run))
        yield from seen.news(summary)
        if summary.is_over:
            is_lost = summary.standing != summary.state
            said = (summary.standing if is_lost else "", summary.message)
            text = ": ".join(filter(None, said))
            yield _event("end", summary, text, round_=summary.round, at=summary.ended)
            return
        if not wait(_LOOK_SECONDS):
            return


@dataclass(slots=True)
class _Seen:
    """What was told of a run already."""

    run: RunFolder
    history: HistoryTail
    rounds: int = 0
    log_bytes: int = 0
    stands: tuple[str, str] = ("", "")
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)  # by site and what was asked

    @classmethod
    def of(cls, run: RunFolder) -> "_Seen":
        """Return what is known before the first look."""
        return cls(run, HistoryTail(run))

    def news(self, summary: RunSummary) -> Iterator[RunEvent]:
        """Yield what is new."""
        yield from self._notes(summary)
        yield from self._rounds(summary)
        stands = (summary.state, summary.message)
        is_said = summary.message or stands[0] != self.stands[0]
        if stands != self.stands and is_said and not summary.is_over:
            since = time.time() if any(self.stands) else None
            yield _event("state", summary, summary.message, at=since)
        self.stands = stands

    def _rounds(self, summary: RunSummary) -> Iterator[RunEvent]:
        # What is beyond the committed rounds may be cut back, but for the last model's measurement.
        last = summary.round + (summary.state == FINISHED)
        for report, at in self.history.rounds(summary.metric, last):
            if report.round > self.rounds:
                self.rounds = report.round
                yield from self._refusals(report, summary, at)
                yield _told(report, summary, at)

    def _refusals(
        self, report: RoundReport, summary: RunSummary, at: float | None
    ) -> Iterator[RunEvent]:
        """Yield who did not take part, once for as long as the reason is the same."""
        told = {(one.site, one.asked) for one in report.refusals}
        for about in self.reasons.keys() - told:
            del self.reasons[about]
        for one in report.refusals:
            if self.reasons.get((one.site, one.asked)) == one.reason:
                continue
            self.reasons[one.site, one.asked] = one.reason
            if one.asked == TRAINING:
                yield RunEvent(
                    "refusal",
                    summary.state,
                    one.reason,
                    round=report.round,
                    site=one.site,
                    time=at,
                )
            else:
                said = f"round {report.round}: {one.site} told no {one.asked} metric: {one.reason}"
                yield RunEvent("note", summary.state, said, time=at)

    def _notes(self, summary: RunSummary) -> Iterator[RunEvent]:
        for line in self._log_lines():
            note = _NOTES.get(str(line.get("event")))
            if note is not None:
                named = line.get("sites")
                sites = tuple(str(site) for site in named) if isinstance(named, list) else ()
                reason = plain(line["reason"]) if "reason" in line else ""
                said = f"{note} ({reason})" if reason else note
                yield RunEvent("note", summary.state, said, sites=sites, time=_moment(line))

    def _log_lines(self) -> Iterator[dict[str, object]]:
        try:
            with (self.run.path / LOG_FILE).open("rb") as stream:
                stream.seek(self.log_bytes)
                lines, _ = split_lines(stream.read())
        except OSError:
            return
        self.log_bytes += sum(len(line) + 1 for line in lines)
        for text in lines:
            try:
                line = json.loads(text)
            except ValueError:  # torn by a crash
                continue
            if isinstance(line, dict):
                yield line


def _moment(line: dict[str, object]) -> float | None:
    try:
        return datetime.fromisoformat(str(line["time"])).timestamp()
    except (KeyError, ValueError):
        return None


def _told(report: RoundReport, summary: RunSummary, at: float | None) -> RunEvent:
    closes = report.round > summary.round
    return RunEvent(
        kind="measured" if closes else "round",
        state=summary.state,
        round=report.measured_round if closes else report.round,
        rounds=summary.rounds,
        metric=summary.metric,
        value=report.value,
        seconds=report.seconds,
        sites=report.sites,
        time=at,
    )


def _event(
    kind: str, summary: RunSummary, message: str, round_: int = 0, at: float | None = None
) -> RunEvent:
    return RunEvent(
        kind,
        summary.state,
        message,
        round=round_,
        rounds=summary.rounds,
        metric=summary.metric,
        value=summary.value,
        time=at,
    )


def event_words(event: RunEvent) -> str:
    """Return an event as one line, in which no text of a site begins another."""
    return printable(_event_words(event))


def _event_words(event: RunEvent) -> str:
    said = {
        "round": lambda: _round_words(event),
        "measured": lambda: f"last model measured{_value(event)}",
        "refusal": lambda: f"round {event.round}: {event.site} did not take part: {event.message}",
        "note": lambda: event.message + (f": {', '.join(event.sites)}" if event.sites else ""),
        "state": lambda: _state_words(event),
        "end": lambda: _state_words(event),
    }
    words = said.get(event.kind)
    return event.message if words is None else words()


def _state_words(event: RunEvent) -> str:
    says_it = event.message.startswith(event.state)
    return event.message if says_it else ": ".join(filter(None, (event.state, event.message)))


def _round_words(event: RunEvent) -> str:
    number = f"{event.round}/{event.rounds}" if event.rounds else "-"
    return (
        f"round {number} in {event.seconds:.1f} s, "
        f"{len(event.sites)} site{'s' * (len(event.sites) != 1)}{_value(event)}"
    )


def _value(event: RunEvent) -> str:
    return "" if event.value is None else f", {event.metric} {event.value:.4f}"
