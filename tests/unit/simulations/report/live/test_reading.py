"""What is read of a run folder while somebody writes it."""

import json
from pathlib import Path

import pytest
from tests.support.stage import table_study
from tests.unit.simulations.report.live.test_following import record

from wardround.common.files.tables import write_table
from wardround.server.checkpoints.history import append_record
from wardround.simulations.report.live.reading import Reader
from wardround.simulations.report.live.state import RunState, Series
from wardround.simulations.run_files.events import (
    RoundDone,
    SiteFailed,
    StageFinished,
    StageStarted,
    nobody,
    recording,
)
from wardround.simulations.run_files.folder import (
    RunFacts,
    SplitRow,
    working_on,
    write_facts,
)
from wardround.simulations.run_files.series import SeriesFacts, write_series


def looked(reader: Reader, has_ended: bool = False) -> RunState:
    state = reader.look(has_ended)
    assert isinstance(state, RunState)
    return state


def history_of(folder: Path) -> Path:
    path = folder / "checkpoints" / "federated" / "history.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "study.toml").write_text(table_study("lungs", rounds=3).to_toml())
    rows = [SplitRow(site, "train", "", 5, 5) for site in ("north", "south")]
    write_table(folder / "split.csv", rows, SplitRow)
    return folder


def test_a_folder_that_is_not_there_yet_says_nothing_and_then_what_is_in_it(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "run")
    assert looked(reader).standing == "beginning"
    (tmp_path / "run").mkdir()
    with recording(tmp_path / "run", nobody) as tell:
        tell(StageStarted("data"))
        assert looked(reader).running[0].name == "data"
    assert looked(reader, has_ended=True).standing == "nothing"


def test_events_rounds_and_sites_are_followed_and_a_missing_value_is_none(
    run: Path,
) -> None:
    reader = Reader(run)
    assert looked(reader).known_sites == ("north", "south")
    with working_on(run), recording(run, nobody) as tell:
        write_facts(run, RunFacts("1", (), "d", 0, "now"))
        tell(StageStarted("federated", 3))
        append_record(history_of(run), record(1, 0.5, "north", "south"))
        tell(RoundDone("federated", 1, 3, "auroc", float("nan"), 8, 2.0))
        tell(SiteFailed("federated", 2, "south", "it is late; its clock = 3"))
        state = looked(reader)
        assert state.standing == "running"
        assert (state.study, state.rounds_planned) == ("lungs", 3)
        assert [one.site for one in state.sites] == ["north", "south"]
        assert state.stages[0].value != state.stages[0].value
        assert "its clock = 3" in state.happenings[-1].words
        assert state.rounds[0].ended is not None
        tell(StageFinished("federated"))
        assert looked(reader).stages[0].ended is not None
    assert looked(reader).standing == "interrupted"  # nobody works on it any more


def test_rounds_that_a_resumed_run_trains_again_are_not_counted_twice(run: Path) -> None:
    reader, path = Reader(run), history_of(run)
    append_record(path, record(1, 0.5, "north"))
    length = path.stat().st_size
    append_record(path, record(2, 0.6, "north"))
    assert looked(reader).sites[0].rounds == 2
    with path.open("r+b") as stream:
        stream.truncate(length)
    append_record(path, record(2, 0.7, "north"))
    append_record(path, record(3, 0.8, "north"))
    state = looked(reader)
    assert [one.round for one in state.rounds] == [1, 2, 3]
    assert state.sites[0].rounds == 3


@pytest.mark.parametrize(
    "line",
    [
        {"event": {"kind": "RoundDone", "stage": 7}},
        {"event": {"kind": "StageStarted", "stage": ["x"]}, "time": 3},
        {"event": "RoundDone"},
        {"event": {"kind": "Exit"}},
        ["x"],
        None,
    ],
)
def test_a_log_that_somebody_changed_ends_no_page(run: Path, line: object) -> None:
    (run / "log.jsonl").write_text(json.dumps(line) + "\n")
    history_of(run).write_text('{"round": 1}\n[]\n"x"\n')
    assert looked(Reader(run)).rounds == ()


def test_a_series_is_read_run_by_run(tmp_path: Path) -> None:
    facts = SeriesFacts("1", (), "d", False, (0, 1), True, "now")
    write_series(tmp_path, facts)
    run = tmp_path / "runs" / "seed-0"
    run.mkdir(parents=True)
    reader = Reader(tmp_path)
    with working_on(run), recording(run, nobody) as tell:
        write_facts(run, RunFacts("1", (), "d", 0, "now"))
        tell(StageStarted("federated", 3))
        series = reader.look()
        assert isinstance(series, Series)
        assert [(name, state.standing) for name, state in series.runs] == [
            ("seed-0", "running"),
            ("seed-1", "not begun"),
        ]
        assert series.shown == "seed-0"
    assert reader.look(has_ended=True).standing == "interrupted"
