"""What operators are told of a run is what its rounds wrote down."""

import json
import math
from dataclasses import replace

import pytest

from wardround.common.metrics.task_sums import MetricValue
from wardround.common.study.loading import parse_study
from wardround.server.checkpoints.history import Measurement, RefusalRecord, RoundRecord, SiteRecord
from wardround.server.checkpoints.history import append_record as append
from wardround.server.checkpoints.store import CheckpointStore
from wardround.server.operators.run_events import watch_run
from wardround.server.operators.run_summaries import (
    HISTORY_FILE,
    TOGETHER,
    count_refusals,
    describe,
    summarise,
)
from wardround.server.rounds.evaluation import ALL_SITES, MEAN_OF_SITES, overall
from wardround.server.scheduling.folder import RunFolder, RunStatus
from wardround.server.scheduling.queue import StudyQueue, stop_run
from wardround.server.scheduling.store import find_run
from wardround.server.scheduling.submission import submit_study

STUDY = parse_study(
    {
        "study": {"name": "tiny", "task": "classification"},
        "data": {"classes": ["a", "b"], "size": [16, 16]},
        "model": {"network": "small-cnn", "normalisation": "group"},
        "federation": {"rounds": 3},
        "simulation": {"data": "folder"},
    }
)
METRIC = STUDY.metric


def _record(number: int, value: float = 0.5, refused: str = "") -> RoundRecord:
    site = SiteRecord("north", 10, 5, 1.0, 100, 100, 0.7)
    values = (MetricValue(METRIC, "a", 0.1, 5), MetricValue(METRIC, "", value, 10))
    return RoundRecord(
        round=number,
        measured_round=number - 1,
        seconds=2.5,
        sites=(site,),
        refusals=(RefusalRecord("south", refused),) if refused else (),
        measurements=(Measurement("north", "validation", ()), Measurement(ALL_SITES, "v", values)),
    )


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """A run that works on its second round."""
    folder = RunFolder(tmp_path, submit_study(tmp_path, STUDY).run)
    StudyQueue(tmp_path).started(folder.name)
    folder.checkpoints.mkdir()
    _stand(folder, "running", 0)
    return folder


def _stand(run: RunFolder, state: str, number: int, message: str = "") -> None:
    run.put_status(
        RunStatus(run.name, "tiny", STUDY.digest, state, number, 3, METRIC, 0.5, message=message)
    )


def _history(run: RunFolder):
    return run.checkpoints / HISTORY_FILE


def test_the_history_is_where_the_commits_keep_it_and_called_as_they_call_it(run) -> None:
    assert CheckpointStore(run.checkpoints).history_path == _history(run)
    assert set(TOGETHER) == {ALL_SITES, MEAN_OF_SITES}


def test_a_round_is_reported_with_the_number_that_picks_the_model(run, tmp_path) -> None:
    record = _record(1, 0.625, "its policy allows no training after 18:00")
    append(_history(run), record)
    (report,) = describe(tmp_path, find_run(tmp_path, run.name)).history
    assert report.value == overall(record.measurements, METRIC) == 0.625
    assert (report.round, report.measured_round, report.seconds) == (1, 0, 2.5)
    assert report.sites == ("north",)
    assert report.refusals[0].reason == "its policy allows no training after 18:00"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_was_not_measured_has_no_value(run, tmp_path, value: float) -> None:
    append(_history(run), _record(1, value))
    append(_history(run), RoundRecord(2, 1, 0.0))
    reports = describe(tmp_path, find_run(tmp_path, run.name)).history
    assert [report.value for report in reports] == [None, None]


def test_a_run_whose_rounds_measure_nothing_is_listed_with_the_value_of_its_end(
    run, tmp_path
) -> None:
    status = RunStatus(run.name, "tiny", STUDY.digest, "running", 1, 3, METRIC, None)
    run.put_status(status)
    append(_history(run), _record(3, 0.875))
    assert summarise(tmp_path, find_run(tmp_path, run.name)).value is None
    run.put_status(replace(status, state="finished", round=3))
    assert summarise(tmp_path, find_run(tmp_path, run.name)).value == 0.875


def test_a_line_that_is_being_written_is_left_out(run, tmp_path) -> None:
    append(_history(run), _record(1))
    with _history(run).open("ab") as stream:
        stream.write(b'{"round": 2, "mea')
    assert len(describe(tmp_path, find_run(tmp_path, run.name)).history) == 1


def test_refusals_are_counted_by_site_and_reason(run, tmp_path) -> None:
    for number, reason in enumerate(["budget", "policy", "budget"], start=1):
        append(_history(run), _record(number, refused=reason))
    found = count_refusals(describe(tmp_path, find_run(tmp_path, run.name)).history)
    assert [(one.site, one.reason, one.times) for one in found] == [
        ("south", "budget", 2),
        ("south", "policy", 1),
    ]


def test_a_sites_words_cannot_move_the_operators_cursor(run, tmp_path) -> None:
    append(_history(run), _record(1, refused="no\x1b[2J\r\n" + "x" * 10_000))
    (refusal,) = describe(tmp_path, find_run(tmp_path, run.name)).refusals
    assert refusal.reason.startswith("no?[2J??x")
    assert len(refusal.reason) == 500


def test_a_run_is_where_its_process_says_and_stops_when_the_operator_says(run, tmp_path) -> None:
    def state() -> str:
        return summarise(tmp_path, find_run(tmp_path, run.name)).state

    assert state() == "running"
    _stand(run, "waiting", 0, "waiting for sites: 1 of 2 are ready")
    assert state() == "waiting for sites"
    assert "1 of 2" in summarise(tmp_path, find_run(tmp_path, run.name)).message
    stop_run(tmp_path, run.name)
    assert state() == "stopping"
    StudyQueue(tmp_path).stopped(run.name)
    assert state() == "stopped"


def test_a_watcher_is_told_each_committed_round_once_and_the_end(run, tmp_path) -> None:
    queue = StudyQueue(tmp_path)

    def first(_: float) -> bool:
        append(_history(run), _record(1, refused="policy"))  # not committed yet
        return True

    def second(_: float) -> bool:
        _stand(run, "running", 1)
        return True

    def third(_: float) -> bool:
        append(_history(run), _record(2))
        append(_history(run), _record(3))
        append(_history(run), RoundRecord(4, 3, 0.0, measurements=_record(4).measurements))
        _stand(run, "finished", 3)
        queue.finished(run.name)
        return True

    steps = iter([first, second, lambda _: True, third])
    run.log("waiting", message="no note of this")
    run.log("sites ready", sites=["north"])
    events = list(watch_run(tmp_path, run.name, lambda seconds: next(steps)(seconds)))
    told = [(event.kind, event.round, event.site) for event in events]
    assert told == [
        ("note", 0, ""),
        ("state", 0, ""),
        ("refusal", 1, "south"),
        ("round", 1, ""),
        ("round", 2, ""),
        ("round", 3, ""),
        ("measured", 3, ""),
        ("end", 3, ""),
    ]
    assert events[0].sites == ("north",)
    assert (events[-1].state, events[3].sites) == ("finished", ("north",))


def test_a_round_that_was_never_committed_is_not_told(run, tmp_path) -> None:
    append(_history(run), _record(1))
    StudyQueue(tmp_path).failed(run.name, "round 1 has 1 updates and needs 2")
    events = list(watch_run(tmp_path, run.name, lambda _: True))
    assert [event.kind for event in events] == ["end"]
    assert events[0].message == "round 1 has 1 updates and needs 2"


def test_who_is_left_out_and_why_is_told_without_what_would_move_a_cursor(run, tmp_path) -> None:
    run.log("site left out", sites=["south"], reason="cannot take part: \x1b[2J 0.0.1")
    (note, _) = watch_run(tmp_path, run.name, lambda _: False)
    assert note.message == "a site is left out (cannot take part: ?[2J 0.0.1)"
    assert note.sites == ("south",)


def test_a_watch_ends_when_it_is_told_to(run, tmp_path) -> None:
    assert [event.kind for event in watch_run(tmp_path, run.name, lambda _: False)] == ["state"]


def test_a_torn_line_of_the_log_is_passed_over(run, tmp_path) -> None:
    with (run.path / "log.jsonl").open("wb") as stream:
        stream.write(b'{"event": "proc\n' + json.dumps({"event": "link lost"}).encode() + b"\n{")
    notes = list(watch_run(tmp_path, run.name, lambda _: False))
    assert [event.kind for event in notes] == ["note", "state"]
