"""A run asked for its rounds: it stands still, ends where it is left, and goes on from there."""

import _thread
import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.support.studies.tiny_runs import write_tiny_study

import wardround as wr
from wardround.common.parameters.schema import read_parameters
from wardround.simulations.notebook import lockstep
from wardround.simulations.run_files.events import StageStarted, Watch


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> wr.Study:
    return wr.load_study(write_tiny_study(tmp_path_factory.mktemp("rounds"), federation__rounds=4))


@pytest.fixture(scope="module")
def whole(study: wr.Study, tmp_path_factory: pytest.TempPathFactory) -> wr.SimulationResult:
    return wr.simulate(study, tmp_path_factory.mktemp("whole") / "run", compare=False, threads=1)


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    assert [one.name for one in threading.enumerate() if one.name.startswith("wardround")] == []


def rounds_of(study: wr.Study, folder: Path) -> wr.Rounds:
    return wr.simulate_rounds(study, folder, compare=False, threads=1)


def require_same(one: wr.SimulationResult, other: wr.SimulationResult) -> None:
    first, second = (read_parameters(run.models["federated"]) for run in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert one.status == other.status == "finished"


def test_a_loop_that_is_left_leaves_a_run_that_another_loop_goes_on_with(
    study: wr.Study, whole: wr.SimulationResult, tmp_path: Path
) -> None:
    rounds = rounds_of(study, tmp_path / "run")
    seen = []
    for one in rounds:
        seen.append(one.number)
        if one.number == 2:
            break
    assert rounds.result.status == "interrupted"
    assert rounds.result.report.is_file()
    seen += [one.number for one in rounds]
    assert seen == [1, 2, 3, 4]
    require_same(rounds.result, whole)
    assert [one.number for one in rounds] == []  # a finished run has no further rounds


def test_an_exception_in_the_loop_ends_the_run_and_resume_finishes_it(
    study: wr.Study, whole: wr.SimulationResult, tmp_path: Path
) -> None:
    def look() -> None:
        for one in rounds_of(study, tmp_path / "run"):
            _ = 1 / (2 - one.number)

    with pytest.raises(ZeroDivisionError):
        look()
    assert wr.open_run(tmp_path / "run").status == "interrupted"
    require_same(wr.resume(tmp_path / "run", threads=1), whole)


def test_an_interrupted_cell_says_how_to_go_on(study: wr.Study, tmp_path: Path) -> None:
    def interrupt(event: object) -> None:
        if isinstance(event, wr.RoundDone):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stop:
        wr.simulate(study, tmp_path / "run", compare=False, threads=1, on_event=interrupt)
    assert f"wardround.resume('{tmp_path / 'run'}')" in stop.value.__notes__[0]
    assert wr.open_run(tmp_path / "run").status == "interrupted"
    assert wr.resume(tmp_path / "run", threads=1).status == "finished"


def test_work_that_tells_nothing_for_long_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockstep, "_PATIENCE_SECONDS", 0.05)
    ended: list[type[BaseException]] = []

    def work(watch: Watch) -> None:
        watch(StageStarted("data"))
        try:
            while True:
                time.sleep(0.01)
        except BaseException as stop:
            ended.append(type(stop))
            raise

    # A shell has what it starts in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.2, _thread.interrupt_main).start()
        with pytest.raises(KeyboardInterrupt):
            list(lockstep.events_of(work))
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [lockstep.StoppedByReaderError]


def test_what_the_work_raises_is_raised_in_the_loop_with_its_sentence(tmp_path: Path) -> None:
    study = write_tiny_study(tmp_path)
    (tmp_path / "manifest.csv").write_text("patient,label\n")
    with pytest.raises(wr.InputError, match="manifest"):
        list(rounds_of(wr.load_study(study), tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(TypeError, match="unexpected keyword argument 'round'"):
        wr.simulate_rounds(study, round=3)  # type: ignore[call-arg]


def test_a_thread_and_a_running_event_loop_can_simulate(
    study: wr.Study, whole: wr.SimulationResult, tmp_path: Path
) -> None:
    async def cell() -> wr.SimulationResult:  # as Jupyter runs one
        return wr.simulate(study, tmp_path / "loop", compare=False, threads=1)

    async def elsewhere() -> wr.SimulationResult:
        return await asyncio.to_thread(
            wr.simulate, study, tmp_path / "thread", compare=False, threads=1
        )

    require_same(asyncio.run(cell()), whole)
    require_same(asyncio.run(elsewhere()), whole)


def test_a_result_has_tables_and_shows_itself_escaped(whole: wr.SimulationResult) -> None:
    history = whole.history
    assert list(history["round"]) == [0, 1, 2, 3, 4]
    assert {"model", "site", "score", "label"} <= {*whole.predictions.columns}
    assert {*whole.split.site} == {"north", "south"}
    assert whole.privacy.empty
    assert list(whole.privacy.columns)[:2] == ["site", "part"]
    assert 0 <= whole.value() <= 1
    assert whole.value(site="nobody") != whole.value(site="nobody")  # NaN
    with pytest.raises(wr.ModelError, match="Did you mean 'federated'"):
        whole.models["federatd"]
    shown = whole._repr_html_()
    assert len(shown) < 2_000
    assert "<script" not in shown
    assert len(repr(whole)) < 500


def test_tables_are_lists_where_pandas_is_not_installed(
    whole: wr.SimulationResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    assert whole.metrics[0]["model"] == "federated"
    assert whole.privacy == []
