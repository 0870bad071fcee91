"""What a run has done so far, from the files that it leaves: no model is read for it.

Nothing here imports torch, so that the process that watches over the server stays small.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import wardround
from wardround.common.errors import RunError
from wardround.common.files.json_lines import read_json_lines, split_lines
from wardround.common.runtime.fields import plain
from wardround.server.checkpoints.canary import read_canary
from wardround.server.checkpoints.evidence import read_evidence
from wardround.server.operators.messages import (
    MeasuredValue,
    Refusal,
    RoundReport,
    RunDetails,
    RunRecord,
    RunSummary,
    SitePart,
    SiteValue,
)
from wardround.server.scheduling.folder import FINISHED, STARTING, STUDY_FILE, RunFolder, RunStatus
from wardround.server.scheduling.folder import RUNNING as AT_WORK
from wardround.server.scheduling.folder import WAITING as AWAITING_SITES
from wardround.server.scheduling.store import QUEUED, RUNNING, STOP, RunRow, all_runs

HISTORY_FILE = "history.jsonl"  # in the folder of the commits, which vouch for its lines
WITHHELD = (
    'no value: the sites\' policies let no metric out (metrics = "none"), or have too few patients '
    "to measure on (smallest_cell), or nobody was asked"
)
TOGETHER = ("all sites", "mean of sites")  # as server/measurement.py calls them
# What a process says of itself, while the queue says that the run is running.
_PHASES = {
    STARTING: "starting",
    AWAITING_SITES: "waiting for sites",
    AT_WORK: "running",
    FINISHED: "running",  # until its process has ended and the queue knows
}
_Json: TypeAlias = dict[str, object]


def summarise(folder: Path, row: RunRow) -> RunSummary:
    """Return how a run stands, in one line."""
    run = RunFolder(folder, row.run)
    status = run.status()
    return RunSummary(
        run=row.run,
        study=row.study,
        digest=row.digest,
        state=_phase(row, "" if status is None else status.state),
        message=_message(folder, row, "" if status is None else status.message),
        round=0 if status is None else status.round,
        rounds=0 if status is None else status.rounds,
        metric="" if status is None else status.metric,
        value=_last_value(run, status),
        submitted=row.submitted,
        started=row.started,
        ended=row.ended,
        without=() if status is None or not status.round else status.without,
        missed={} if status is None else status.missed,
    )


def _last_value(run: RunFolder, status: RunStatus | None) -> float | None:
    """Return the newest value; of a study whose rounds measure nothing, that of its end."""
    if status is None or status.value is not None or status.state != FINISHED:
        return None if status is None else status.value
    measured = (one.value for one in reversed(read_history(run, status.metric)))
    return next((value for value in measured if value is not None), None)


def describe(folder: Path, row: RunRow) -> RunDetails:
    """Return all that is known of a run."""
    run = RunFolder(folder, row.run)
    status, summary = run.status(), summarise(folder, row)
    history = read_history(run, summary.metric)
    named = run.wanted_sites() if status is None or not status.sites else status.sites
    return RunDetails(
        summary=summary,
        sites=tuple(named),
        starts=0 if status is None else status.starts,
        deadlines="" if status is None else status.deadlines,
        history=history,
        refusals=count_refusals(history),
        evidence=read_evidence(run.checkpoints),
        canary=read_canary(run.path),
    )


def record_of(folder: Path, row: RunRow) -> RunRecord:
    """Return what a report of a run is made of.

    Raises:
        RunError: The study cannot be read.
    """
    run, details = RunFolder(folder, row.run), describe(folder, row)
    try:
        study = (run.path / STUDY_FILE).read_text(encoding="utf-8")
    except OSError as error:
        msg = f"the study of run {row.run} cannot be read ({error.strerror}): check the disk."
        raise RunError(msg) from None
    lines = _lines(run)
    return RunRecord(
        details=details,
        study=study,
        server=wardround.__version__,
        parts=tuple(part for line in lines for part in _parts(line)),
        values=tuple(one for line in lines for one in _values(line, details.summary.metric)),
        measured=tuple(one for line in lines for one in _measured(line)),
    )


def read_history(run: RunFolder, metric: str) -> tuple[RoundReport, ...]:
    """Return the rounds of a run's history; a line that is being written is left out.

    Args:
        metric: The study's; its value over all sites is given.
    """
    return tuple(_round(line, metric) for line in _lines(run))


class HistoryTail:
    """Reads a run's history as it grows: each line once, however often it looks."""

    def __init__(self, run: RunFolder) -> None:
        self._path = run.checkpoints / HISTORY_FILE
        self._bytes = 0

    def rounds(self, metric: str, last: int) -> Iterator[tuple[RoundReport, float | None]]:
        """Yield the rounds that were not yielded yet, and when each was written.

        Args:
            metric: The study's.
            last: What comes after this round may be cut back yet, and is left for another look.
        """
        try:
            with self._path.open("rb") as stream:
                if self._path.stat().st_size < self._bytes:  # it was made anew, from a backup
                    self._bytes = 0
                stream.seek(self._bytes)
                lines, _ = split_lines(stream.read())
        except OSError:
            return
        for text in lines:
            if not text:
                self._bytes += 1
                continue
            line = json.loads(text)
            report = _round(line, metric)
            if report.round > last:
                return
            self._bytes += len(text) + 1
            written = line.get("written_at")
            yield report, float(written) if isinstance(written, int | float) else None


def _lines(run: RunFolder) -> list[_Json]:
    try:
        return read_json_lines(run.checkpoints / HISTORY_FILE)
    except OSError:
        return []


def ranges(numbers: Iterable[int]) -> str:
    """Return rounds as people write them: "1-3, 7"."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def count_refusals(history: Iterable[RoundReport]) -> tuple[Refusal, ...]:
    """Return who refused or was refused what, and how often, the most frequent first."""
    told = [refusal for record in history for refusal in record.refusals]
    counts = Counter((one.site, one.reason, one.asked) for one in told)
    return tuple(Refusal(*about, times=times) for about, times in counts.most_common())


def _phase(row: RunRow, said: str) -> str:
    if row.state != RUNNING:
        return row.state
    return "stopping" if row.wanted == STOP else _PHASES.get(said, "starting")


def _message(folder: Path, row: RunRow, said: str) -> str:
    if row.state == QUEUED:
        return _queued_behind(folder, row)
    return plain(said if row.state == RUNNING else row.reason)


def _queued_behind(folder: Path, row: RunRow) -> str:
    """Say which runs are before a run that is queued."""
    before = [
        one.run
        for one in all_runs(folder)
        if one.state == RUNNING or (one.state == QUEUED and one.place < row.place)
    ]
    return f"waits behind {', '.join(before)}" if before else "is next"


def _round(line: _Json, metric: str) -> RoundReport:
    return RoundReport(
        round=int(str(line["round"])),
        measured_round=int(str(line["measured_round"])),
        seconds=float(str(line["seconds"])),
        value=_overall(_rows(line, "measurements"), metric),
        sites=tuple(str(site["site"]) for site in _rows(line, "sites")),
        refusals=tuple(
            Refusal(str(one["site"]), plain(one["reason"]), str(one["asked"]), 1)
            for one in _rows(line, "refusals")
        ),
    )


def _overall(measurements: Iterable[_Json], metric: str) -> float | None:
    together = [one for one in measurements if one["site"] in TOGETHER]
    return _value(together[0], metric) if together else None


def _value(measurement: _Json, metric: str) -> float | None:
    for value in _rows(measurement, "values"):
        if value["metric"] == metric and not value["class_name"]:
            number = float(str(value["value"]))
            return number if math.isfinite(number) else None
    return None


def _values(line: _Json, metric: str) -> Iterable[SiteValue]:
    number = int(str(line["measured_round"]))
    for one in _rows(line, "measurements"):
        yield SiteValue(str(one["site"]), number, str(one["split"]), _value(one, metric))


def _measured(line: _Json) -> Iterable[MeasuredValue]:
    number = int(str(line["measured_round"]))
    for one in _rows(line, "measurements"):
        place = str(one["site"]), number, str(one["split"])
        for value in _rows(one, "values"):
            of = str(value["metric"]), str(value["class_name"])
            found = float(str(value["value"]))
            yield MeasuredValue(*place, *of, found if math.isfinite(found) else None)


def _parts(line: _Json) -> Iterable[SitePart]:
    for one in _rows(line, "sites"):
        yield SitePart(
            site=str(one["site"]),
            round=int(str(line["round"])),
            seconds=float(str(one["seconds"])),
            bytes_down=int(str(one["bytes_down"])),
            bytes_up=int(str(one["bytes_up"])),
        )


def _rows(line: _Json, name: str) -> list[_Json]:
    rows = line[name]
    return rows if isinstance(rows, list) else []
