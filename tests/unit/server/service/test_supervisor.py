"""The supervisor over children that are no processes; children that are; a run's folder."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from wardround.common.errors import RunError
from wardround.common.runtime.system import processes as offspring
from wardround.common.runtime.system.processes import Child, Pause, last_words
from wardround.server.scheduling.folder import FAILED, RUNNING, RunFolder, RunStatus
from wardround.server.service import supervisor
from wardround.server.service.supervisor import Supervisor, hold_server


@dataclass
class Turn:
    run: str


@dataclass
class Line:
    """A queue that remembers what it was told."""

    waiting: list[str] = field(default_factory=list)
    stopping: set[str] = field(default_factory=set)
    told: list[tuple[str, ...]] = field(default_factory=list)

    def next_run(self) -> Turn | None:
        return Turn(self.waiting[0]) if self.waiting else None

    def started(self, run: str) -> None:
        self.waiting.remove(run)
        self.told.append(("started", run))

    def finished(self, run: str) -> None:
        self.told.append(("finished", run))

    def failed(self, run: str, reason: str) -> None:
        self.told.append(("failed", run, reason))

    def stopped(self, run: str) -> None:
        self.told.append(("stopped", run))

    def wanted_state(self, run: str) -> str:
        return "stop" if run in self.stopping else "run"


@dataclass
class Puppet:
    """A child that ends as it is told in advance; None stays until it is asked to end."""

    code: int | None
    settled: bool = True
    pid: int = 1
    started_at: float = 0.0
    asked: bool = False

    @property
    def exit_code(self) -> int | None:
        return self.code

    @property
    def has_settled(self) -> bool:
        return self.settled

    def ask_to_end(self) -> None:
        self.asked = True
        self.code = 130 if self.code is None else self.code

    def has_been_ending(self, seconds: float) -> bool:
        return self.asked

    def end(self, patience_seconds: float) -> int:
        self.ask_to_end()
        return self.code or 0


@dataclass
class Stage:
    """A supervisor whose children are puppets."""

    folder: Path
    line: Line
    link: Callable[[], Puppet]
    studies: list[Puppet]
    started: list[str] = field(default_factory=list)
    links: list[Puppet] = field(default_factory=list)

    def play(self, until: Callable[[], bool], on_tick: Callable[[], None] = lambda: None) -> None:
        works = Supervisor(self.folder, self.line, on_tick)

        def child(module: str, arguments: list[str], log: Path) -> Puppet:
            self.started.append(" ".join([module, *arguments]))
            if module == "link.process":
                self.links.append(self.link())
                return self.links[-1]
            return self.studies.pop(0)

        works._child = child  # type: ignore[method-assign, assignment]
        end = time.monotonic() + 10
        works.run(lambda: until() or time.monotonic() > end)
        assert time.monotonic() < end


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_TICK_SECONDS", 0.005)
    monkeypatch.setattr(supervisor, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(offspring, "_FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "two").mkdir()
    return Stage(tmp_path, Line(["one"]), lambda: Puppet(None), [])


def test_a_study_that_ends_is_finished_and_the_next_has_its_turn(stage: Stage) -> None:
    stage.line.waiting.append("two")
    stage.studies = [Puppet(0), Puppet(0)]
    stage.play(lambda: ("finished", "two") in stage.line.told)
    assert stage.started == ["link.process", "scheduling.process one", "scheduling.process two"]
    assert all(link.asked for link in stage.links)


def test_what_is_due_now_and_then_is_looked_after_while_a_study_runs(stage: Stage) -> None:
    stage.studies, looked = [Puppet(None)], []

    def on_tick() -> None:
        if "scheduling.process one" in stage.started:
            looked.append(1)

    stage.play(lambda: len(looked) > 3, on_tick)


def test_a_study_that_cannot_go_on_has_failed_for_the_reason_in_its_status(stage: Stage) -> None:
    status = RunStatus("one", "s", "d", FAILED, message="round 3 has 1 update and needs 2.")
    RunFolder(stage.folder, "one").put_status(status)
    stage.studies = [Puppet(3)]
    stage.play(lambda: len(stage.line.told) == 2)
    assert stage.line.told[-1] == ("failed", "one", "round 3 has 1 update and needs 2.")


def test_a_study_that_falls_is_started_again_until_it_falls_too_often_at_one_place(
    stage: Stage,
) -> None:
    stage.studies = [Puppet(-9) for _ in range(9)]
    stage.play(lambda: len(stage.line.told) == 2)
    assert stage.started.count("scheduling.process one") == 5
    assert stage.line.told[-1][:2] == ("failed", "one")
    assert "fell 5 times after round 0" in stage.line.told[-1][2]


def test_a_study_that_falls_on_a_full_disk_has_failed_for_that_reason(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil._ntuple_diskusage(2**30, 2**30, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    stage.studies = [Puppet(1) for _ in range(9)]
    stage.play(lambda: len(stage.line.told) == 2)
    assert "is full. Make room there and resume the run." in stage.line.told[-1][2]


def test_a_study_that_falls_and_gets_on_is_started_as_often_as_it_needs(stage: Stage) -> None:
    run = RunFolder(stage.folder, "one")

    class Advancing(Puppet):
        @property
        def exit_code(self) -> int | None:
            before = run.status()
            run.put_status(RunStatus("one", "s", "d", RUNNING, (before.round if before else 0) + 1))
            return 1

    stage.studies = [*(Advancing(1) for _ in range(8)), Puppet(0)]
    stage.play(lambda: ("finished", "one") in stage.line.told)
    assert stage.started.count("scheduling.process one") == 9


def test_a_study_that_is_to_stop_is_told_so_and_not_started_again(stage: Stage) -> None:
    study = Puppet(None)
    stage.studies = [study]
    stage.line.stopping.add("one")
    stage.play(lambda: ("stopped", "one") in stage.line.told)
    assert study.asked
    assert stage.started.count("scheduling.process one") == 1


def test_a_study_that_runs_is_told_to_end_with_its_server_and_stays_in_the_queue(
    stage: Stage,
) -> None:
    study = Puppet(None)
    stage.studies = [study]
    stage.play(lambda: "scheduling.process one" in stage.started)
    assert study.asked
    assert stage.line.told == [("started", "one")]


def test_a_link_that_falls_is_started_again_and_one_that_cannot_start_ends_the_server(
    stage: Stage,
) -> None:
    stage.line.waiting.clear()
    links = iter([Puppet(-9), Puppet(None)])
    stage.link = lambda: next(links)
    stage.play(lambda: len(stage.links) == 2)
    log = stage.folder / "link" / "link.log"
    log.parent.mkdir()
    log.write_text("INFO something\ncannot listen on 127.0.0.1:80 (Permission denied).\n")
    stage.link = lambda: Puppet(3, settled=False)
    with pytest.raises(RunError, match="cannot start: cannot listen on"):
        stage.play(lambda: False)


def test_one_server_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    again = hold_server(tmp_path)
    with hold_server(tmp_path), pytest.raises(RunError, match="a server works in"), again:
        pass
    with hold_server(tmp_path):
        pass


# --- Children that are processes ------------------------------------------------------------------


def test_a_child_writes_to_its_log_and_one_that_will_not_end_is_ended(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('ready', flush=True); time.sleep(60)"
    )
    log = tmp_path / "logs" / "child.log"
    child = Child([sys.executable, "-c", script], os.environ, log)
    until = time.monotonic() + 20
    while last_words(log) != "ready":
        assert time.monotonic() < until
        time.sleep(0.01)
    assert child.exit_code is None
    child.ask_to_end()
    assert not child.has_been_ending(60)
    assert child.end(0.1) == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own way")
def test_a_child_ends_with_its_parent_however_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grandchild = (
        "import time; from wardround.common.runtime.system.processes import end_with_parent;"
        "end_with_parent(); print('ready', flush=True); time.sleep(60)"
    )
    parent = (
        "import os, sys, time; from pathlib import Path;"
        "from wardround.common.runtime.system.processes import Child;"
        f"child = Child([sys.executable, '-c', {grandchild!r}], os.environ, Path('log'));"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    pid_log = tmp_path / "parent"
    monkeypatch.chdir(tmp_path)
    child = Child([sys.executable, "-c", parent], os.environ, pid_log)
    until = time.monotonic() + 30
    while last_words(tmp_path / "log") != "ready":
        assert time.monotonic() < until
        time.sleep(0.01)
    pid = int(last_words(pid_log))
    os.kill(child.pid, signal.SIGKILL)
    child.end(5.0)
    while Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in _status(pid):
        assert time.monotonic() < until
        time.sleep(0.01)


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "\nState:\tZ"


def test_a_log_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offspring, "_LOG_BYTES", 10)
    log = tmp_path / "child.log"
    log.write_text("a" * 11)
    Child([sys.executable, "-c", ""], os.environ, log).end(20)
    assert log.read_text() == ""
    assert (tmp_path / "child.old.log").read_text() == "a" * 11
    assert last_words(log) == "it said nothing"


def test_pauses_grow_until_a_child_has_lasted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(offspring, "_FIRST_PAUSE_SECONDS", 0.5)
    pause, short = Pause(), Puppet(1, started_at=100.0)
    waits = []
    for _ in range(9):
        pause.note_end(short)  # type: ignore[arg-type]
        began = clock[0]
        while not pause.is_over:
            clock[0] += 0.25
        waits.append(clock[0] - began)
        short.started_at = clock[0]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    pause.note_end(Puppet(1, started_at=clock[0] - 61))  # type: ignore[arg-type]
    clock[0] += 0.5
    assert pause.is_over


# --- A run's folder -------------------------------------------------------------------------------


def test_a_status_is_read_as_it_was_written_and_a_torn_one_is_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "one")
    run.path.mkdir(parents=True)
    assert run.status() is None
    status = RunStatus("one", "s", "d", RUNNING, 2, 5, "auroc", 0.5, ("north", "south"), "", 1)
    run.put_status(status)
    found = run.status()
    assert found is not None
    assert found.updated > 0
    assert (found.sites, found.value, found.round) == (("north", "south"), 0.5, 2)
    (run.path / "status.json").write_text('{"run": "o')
    assert run.status() is None


def test_a_run_is_worked_on_by_one_process_at_a_time(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "one")
    run.path.mkdir(parents=True)
    with run.taken(), pytest.raises(RunError, match="worked on by another"), run.taken():
        pass
    assert run.wanted_sites() == ()
    run.put_wanted_sites(("north",))
    assert run.wanted_sites() == ("north",)
