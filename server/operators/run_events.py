"""What happens in a run, as it happens, from its row and its folder's files."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wardround.common.files.json_lines import split_lines
from wardround.common.runtime.fields import plain
from wardround.server.checkpoints.lost_sites import TRAINING
from wardround.server.operators.messages import RoundReport, RunEvent, RunSummary
from wardround.server.operators.run_summaries import read_history, summarise
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
    seen = _Seen(RunFolder(folder, run))
    while True:
        summary = summarise(folder, find_run(folder, run))
        yield from seen.news(summary)
        if summary.is_over:
            is_lost = summary.standing != summary.state
            said = (summary.standing if is_lost else "", summary.message)
            yield _event("end", summary, ": ".join(filter(None, said)), round_=summary.round)
            return
        if not wait(_LOOK_SECONDS):
            return


@dataclass(slots=True)
class _Seen:
    """What was told of a run already."""

    run: RunFolder
    rounds: int = 0
    log_bytes: int = 0
    stands: tuple[str, str] = ("", "")
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)  # by site and what was asked

    def news(self, summary: RunSummary) -> Iterator[RunEvent]:
        """Yield what is new."""
        yield from self._notes(summary)
        yield from self._rounds(summary)
        stands = (summary.state, summary.message)
        is_said = summary.message or stands[0] != self.stands[0]
        if stands != self.stands and is_said and not summary.is_over:
            yield _event("state", summary, summary.message)
        self.stands = stands

    def _rounds(self, summary: RunSummary) -> Iterator[RunEvent]:
        # What is beyond the committed rounds may be cut back, but for the last model's measurement.
        last = summary.round + (summary.state == FINISHED)
        for report in read_history(self.run, summary.metric):
            if self.rounds < report.round <= last:
                self.rounds = report.round
                yield from self._refusals(report, summary)
                yield _told(report, summary)

    def _refusals(self, report: RoundReport, summary: RunSummary) -> Iterator[RunEvent]:
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
                    "refusal", summary.state, one.reason, round=report.round, site=one.site
                )
            else:
                said = f"round {report.round}: {one.site} told no {one.asked} metric: {one.reason}"
                yield RunEvent("note", summary.state, said)

    def _notes(self, summary: RunSummary) -> Iterator[RunEvent]:
        for line in self._log_lines():
            note = _NOTES.get(str(line.get("event")))
            if note is not None:
                named = line.get("sites")
                sites = tuple(str(site) for site in named) if isinstance(named, list) else ()
                reason = plain(line["reason"]) if "reason" in line else ""
                said = f"{note} ({reason})" if reason else note
                yield RunEvent("note", summary.state, said, sites=sites)

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


def _told(report: RoundReport, summary: RunSummary) -> RunEvent:
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
    )


def _event(kind: str, summary: RunSummary, message: str, round_: int = 0) -> RunEvent:
    return RunEvent(
        kind,
        summary.state,
        message,
        round=round_,
        rounds=summary.rounds,
        metric=summary.metric,
        value=summary.value,
    )
