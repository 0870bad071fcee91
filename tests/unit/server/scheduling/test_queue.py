"""The queue of studies: first come, first served, whatever is stopped, resumed or killed."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wardround.common.errors import InputError, RunError, StudyError
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.server.database import DATABASE_FILE
from wardround.server.scheduling import queue as queue_module
from wardround.server.scheduling.folder import RunFolder, RunStatus
from wardround.server.scheduling.queue import (
    MOST_WAITING,
    READY,
    StudyQueue,
    resume_run,
    stop_run,
    take_turn,
)
from wardround.server.scheduling.store import all_runs, all_sites, changing, find_run, note_seen
from wardround.server.scheduling.submission import LONGEST_STUDY, read_study, submit_study


def _study(seed: int = 0, name: str = "Two Lungs") -> Study:
    return parse_study(
        {
            "study": {"name": name, "task": "classification"},
            "data": {"classes": ["a", "b"], "size": [16, 16]},
            "model": {"network": "small-cnn", "normalisation": "group"},
            "federation": {"seed": seed},
            "simulation": {"data": "folder"},
        }
    )


def _submit(folder: Path, seed: int = 0) -> str:
    return submit_study(folder, _study(seed)).run


def _state(folder: Path, run: str) -> str:
    return find_run(folder, run).state


def test_a_study_handed_in_has_a_run_and_a_folder_that_says_the_same_study(tmp_path) -> None:
    row = submit_study(tmp_path, _study())
    assert (row.run, row.state, row.digest) == ("two-lungs-1", "queued", _study().digest)
    assert RunFolder(tmp_path, row.run).study().digest == row.digest
    assert _submit(tmp_path, 1) == "two-lungs-2"


def test_the_same_study_twice_at_a_time_is_refused_and_later_is_not(tmp_path) -> None:
    run = _submit(tmp_path)
    with pytest.raises(InputError, match="queued already, as run two-lungs-1"):
        _submit(tmp_path)
    stop_run(tmp_path, run)
    assert _submit(tmp_path) == "two-lungs-2"


def test_a_site_that_never_joined_cannot_be_named(tmp_path) -> None:
    with pytest.raises(InputError, match="unknown site 'nort'"):
        submit_study(tmp_path, _study(), ("nort",))
    assert all_runs(tmp_path) == ()


def test_a_run_whose_folder_cannot_be_written_is_not_queued(tmp_path) -> None:
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(RunError, match="cannot write the run's folder"):
        _submit(tmp_path)
    assert all_runs(tmp_path) == ()
    (tmp_path / "runs").unlink()
    assert _submit(tmp_path) == "two-lungs-1"


@pytest.mark.parametrize(
    ("text", "form", "words"),
    [
        ("x =", "toml", "is not TOML"),
        ("{", "json", "is not JSON"),
        ("[" * 100_000, "json", "nested too deeply"),
        ("[]", "json", "no table"),
        ("", "yaml", "unknown form of a study 'yaml'"),
        ("#" * (LONGEST_STUDY + 1), "toml", "characters"),
        ("[study]\nname = 'x'", "toml", "study.task is missing"),
    ],
)
def test_what_is_no_study_is_refused_in_a_sentence(text: str, form: str, words: str) -> None:
    with pytest.raises((StudyError, InputError), match=words):
        read_study(text, form)


def test_a_study_is_the_same_from_toml_and_from_json() -> None:
    study = _study()
    assert read_study(study.to_toml(), "toml") == read_study(study.to_json(), "json")


def test_runs_come_in_the_order_of_their_submission(tmp_path) -> None:
    runs, queue = [_submit(tmp_path, seed) for seed in range(3)], StudyQueue(tmp_path)
    for run in runs:
        turn = queue.next_run()
        assert turn is not None
        assert turn.run == run
        queue.started(run)
        assert take_turn(tmp_path, run, 1)
        assert queue.next_run() is None
        queue.finished(run)
    assert queue.next_run() is None
    assert {row.state for row in all_runs(tmp_path)} == {"finished"}


def test_no_more_studies_run_at_a_time_than_the_server_allows(tmp_path) -> None:
    runs, queue = [_submit(tmp_path, seed) for seed in range(3)], StudyQueue(tmp_path, 2)
    for run in runs[:2]:
        queue.started(run)
        assert take_turn(tmp_path, run, 2)
    assert queue.next_run() is None


def test_a_run_that_waits_for_its_sites_keeps_no_other_from_its_turn(tmp_path) -> None:
    runs = [_submit(tmp_path, seed) for seed in range(MOST_WAITING + 2)]
    queue = StudyQueue(tmp_path)
    for run in runs[:MOST_WAITING]:
        turn = queue.next_run()
        assert turn is not None
        assert turn.run == run
        queue.started(run)
    assert queue.next_run() is None, "so many processes wait"
    assert take_turn(tmp_path, runs[2], 1)
    assert take_turn(tmp_path, runs[2], 1), "it keeps its turn, after a fall too"
    assert not take_turn(tmp_path, runs[0], 1)
    assert queue.next_run() is None, "one is running"
    queue.finished(runs[2])
    assert take_turn(tmp_path, runs[0], 1)


def test_no_number_of_runs_that_nobody_approves_keeps_another_from_waiting_too(
    tmp_path, monkeypatch
) -> None:
    runs = [_submit(tmp_path, seed) for seed in range(MOST_WAITING + 1)]
    queue = StudyQueue(tmp_path)
    for run in runs[:MOST_WAITING]:
        queue.started(run)
    assert {queue.wanted_state(run) for run in runs} == {"run"}, "they wait for a while first"
    monkeypatch.setattr(queue_module, "GIVES_WAY_SECONDS", 0.0)
    wanted = {run: queue.wanted_state(run) for run in runs[:MOST_WAITING]}
    assert wanted == {runs[0]: "stop"} | dict.fromkeys(runs[1:MOST_WAITING], "run")
    queue.stopped(runs[0])
    turn = queue.next_run()
    assert turn is not None
    assert turn.run == runs[-1]
    queue.started(runs[-1])
    assert queue.next_run() is None
    queue.failed(runs[1], "rejected")
    turn = queue.next_run()
    assert turn is not None
    assert turn.run == runs[0], "it is queued again, behind the others"


def test_of_those_that_are_ready_the_first_that_was_submitted_is_the_next(tmp_path) -> None:
    (first, second), queue = [_submit(tmp_path, seed) for seed in range(2)], StudyQueue(tmp_path)
    for run in (first, second):
        queue.started(run)
        RunFolder(tmp_path, run).put_status(RunStatus(run, "s", "d", message=READY))
    assert not take_turn(tmp_path, second, 1)
    stop_run(tmp_path, first)
    assert not take_turn(tmp_path, first, 1)
    assert take_turn(tmp_path, second, 1)


def test_a_turn_ends_with_its_run_and_outlives_its_supervisor(tmp_path) -> None:
    (first, second), queue = [_submit(tmp_path, seed) for seed in range(2)], StudyQueue(tmp_path)
    queue.started(first)
    assert take_turn(tmp_path, first, 1)
    after = StudyQueue(tmp_path)
    turn = after.next_run()
    assert turn is not None
    assert turn.run == first
    after.started(first)
    assert after.next_run() is None
    after.failed(first, "it fell")
    resume_run(tmp_path, first)
    turn = after.next_run()
    assert turn is not None
    assert turn.run == second


def test_a_queued_run_is_stopped_at_once_and_resumed_behind_the_others(tmp_path) -> None:
    first, second = _submit(tmp_path, 0), _submit(tmp_path, 1)
    assert stop_run(tmp_path, first).state == "stopped"
    assert resume_run(tmp_path, first).state == "queued"
    turn = StudyQueue(tmp_path).next_run()
    assert turn is not None
    assert turn.run == second


def test_a_running_run_is_stopped_by_its_supervisor_and_can_be_resumed(tmp_path) -> None:
    run, queue = _submit(tmp_path), StudyQueue(tmp_path)
    queue.started(run)
    assert queue.wanted_state(run) == "run"
    assert stop_run(tmp_path, run).state == "running"
    assert queue.wanted_state(run) == "stop"
    queue.stopped(run)
    assert (_state(tmp_path, run), queue.next_run()) == ("stopped", None)
    resume_run(tmp_path, run)
    turn = queue.next_run()
    assert turn is not None
    assert turn.run == run


def test_a_run_resumed_before_it_was_stopped_is_queued_again(tmp_path) -> None:
    run, queue = _submit(tmp_path), StudyQueue(tmp_path)
    queue.started(run)
    stop_run(tmp_path, run)
    resume_run(tmp_path, run)
    queue.stopped(run)
    assert _state(tmp_path, run) == "queued"


def test_a_failed_run_says_why_and_can_be_resumed(tmp_path) -> None:
    run, queue = _submit(tmp_path), StudyQueue(tmp_path)
    queue.started(run)
    queue.failed(run, "round 3 has 1 updates and needs 2")
    row = find_run(tmp_path, run)
    assert (row.state, row.reason) == ("failed", "round 3 has 1 updates and needs 2")
    row = resume_run(tmp_path, run)
    assert (row.state, row.reason, row.ended) == ("queued", "", None)


def test_a_failure_after_stop_was_wanted_counts_as_stopped(tmp_path) -> None:
    run, queue = _submit(tmp_path), StudyQueue(tmp_path)
    queue.started(run)
    stop_run(tmp_path, run)
    queue.failed(run, "it fell")
    assert _state(tmp_path, run) == "stopped"


def test_what_cannot_be_stopped_or_resumed_is_refused(tmp_path) -> None:
    run, queue = _submit(tmp_path), StudyQueue(tmp_path)
    with pytest.raises(InputError, match="queued already"):
        resume_run(tmp_path, run)
    queue.started(run)
    queue.finished(run)
    with pytest.raises(InputError, match="has finished"):
        resume_run(tmp_path, run)
    with pytest.raises(InputError, match="nothing to stop"):
        stop_run(tmp_path, run)
    with pytest.raises(InputError, match=r"there is no run 'two' .* Known: two-lungs-1"):
        stop_run(tmp_path, "two")
    assert queue.wanted_state("two") == "stop"


def test_the_next_supervisor_takes_up_what_was_running_before_what_is_queued(tmp_path) -> None:
    first, second = _submit(tmp_path, 0), _submit(tmp_path, 1)
    StudyQueue(tmp_path).started(first)
    queue = StudyQueue(tmp_path)
    turn = queue.next_run()
    assert turn is not None
    assert turn.run == first
    queue.started(first)
    queue.finished(first)
    turn = queue.next_run()
    assert turn is not None
    assert turn.run == second


def test_a_run_to_be_stopped_when_its_supervisor_was_killed_is_not_taken_up(tmp_path) -> None:
    run = _submit(tmp_path)
    StudyQueue(tmp_path).started(run)
    stop_run(tmp_path, run)
    assert StudyQueue(tmp_path).next_run() is None
    assert _state(tmp_path, run) == "stopped"


def test_when_a_site_was_last_seen_is_kept(tmp_path) -> None:
    with changing(tmp_path) as connection:
        connection.execute("INSERT INTO members VALUES ('north', 'key', 5.0)")
    assert [(site.site, site.seen, site.revoked) for site in all_sites(tmp_path)] == [
        ("north", None, True)
    ]
    note_seen(tmp_path, ["north"])
    first = all_sites(tmp_path)[0].seen
    note_seen(tmp_path, ["north"])
    second = all_sites(tmp_path)[0].seen
    assert first is not None
    assert second is not None
    assert second >= first


# --- Killed --------------------------------------------------------------------
_HALF_A_CHANGE = """
import sys, time
from pathlib import Path
from wardround.server.scheduling.store import changing
with changing(Path(sys.argv[1])) as connection:
    connection.execute("UPDATE runs SET state = 'finished'")
    connection.execute("DELETE FROM runs WHERE number = 2")
    print("in the middle", flush=True)
    time.sleep(60)
"""


def test_a_process_killed_in_the_middle_of_a_change_leaves_no_half_and_no_lock(tmp_path) -> None:
    runs = [_submit(tmp_path, seed) for seed in range(3)]
    before = all_runs(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", _HALF_A_CHANGE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        assert all_runs(tmp_path) == before  # a reader does not wait for a writer
        process.send_signal(signal.SIGKILL)
    assert all_runs(tmp_path) == before
    assert stop_run(tmp_path, runs[0]).state == "stopped"
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


_SUBMITTER = """
import sys
from pathlib import Path
from wardround.common.study.loading import load_study, with_changes
from wardround.server.scheduling.submission import submit_study
folder, first = Path(sys.argv[1]), int(sys.argv[2])
study = load_study(folder / "study.toml")
for seed in range(first, first + 10):
    submit_study(folder, with_changes(study, {"federation.seed": seed}))
"""


def test_two_processes_that_submit_at_a_time_lose_nothing(tmp_path) -> None:
    (tmp_path / "study.toml").write_text(_study().to_toml(), encoding="utf-8")
    commands = [[sys.executable, "-c", _SUBMITTER, str(tmp_path), seed] for seed in ("0", "10")]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait(60) for process in processes] == [0, 0]
    rows = all_runs(tmp_path)
    assert [row.number for row in rows] == list(range(1, 21))
    assert len({row.digest for row in rows}) == 20
    assert all(RunFolder(tmp_path, row.run).study().digest == row.digest for row in rows)


# --- Any sequence ----------------------------------------------------------------
class AnySequence(RuleBasedStateMachine):
    """Operators and supervisors do what they like; a plain model says what must come of it."""

    PARALLEL = 2

    @initialize()
    def open(self) -> None:
        self.place = TemporaryDirectory()
        self.folder = Path(self.place.name)
        with changing(self.folder):
            pass
        self.queue = StudyQueue(self.folder, self.PARALLEL)
        self.waiting: list[str] = []  # in order
        self.running: list[str] = []  # with a process
        self.turns: set[str] = set()  # of them, and of those that are left
        self.left: list[str] = []  # running when the supervisor was killed
        self.to_stop: set[str] = set()
        self.over: dict[str, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "place"):
            self.place.cleanup()

    @rule()
    def submit(self) -> None:
        number = len(self.waiting + self.running + self.left) + len(self.over) + 1
        run = f"run-{number}"
        with changing(self.folder) as connection:
            connection.execute(
                "INSERT INTO runs (run, study, digest, state, wanted, place, submitted, reason) "
                "VALUES (?, 's', ?, 'queued', 'run', "
                "(SELECT coalesce(max(place), 0) + 1 FROM runs), 0.0, '')",
                (run, run),
            )
        self.waiting.append(run)

    @rule()
    def take_a_turn(self) -> None:
        turn = self.queue.next_run()
        for run in [run for run in self.left if run in self.to_stop]:
            # Those before the one that is taken up are settled on the way.
            if _state(self.folder, run) == "stopped":
                self.left.remove(run)
                self.over[run] = "stopped"
        self.turns &= {*self.running, *self.left}
        candidates = [run for run in self.left if run not in self.to_stop]
        are_few = len(set(self.running) - self.turns) < MOST_WAITING
        if len(self.turns) < self.PARALLEL and are_few:
            candidates += self.waiting
        assert (None if turn is None else turn.run) == (candidates[0] if candidates else None)
        if turn is None:
            return
        self.queue.started(turn.run)
        (self.left if turn.run in self.left else self.waiting).remove(turn.run)
        self.running.append(turn.run)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.running))
        may = run in self.turns or (run not in self.to_stop and len(self.turns) < self.PARALLEL)
        assert take_turn(self.folder, run, self.PARALLEL) == may
        if may:
            self.turns.add(run)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), end=st.sampled_from(["finished", "failed", "stopped"]))
    def end(self, data: st.DataObject, end: str) -> None:
        run = data.draw(st.sampled_from(self.running))
        wanted = self.queue.wanted_state(run)
        assert wanted == ("stop" if run in self.to_stop else "run")
        self.running.remove(run)
        self.turns.discard(run)
        if end == "failed":
            self.queue.failed(run, "it fell")
        else:
            getattr(self.queue, end)(run)
        if end == "stopped" and wanted == "run":
            # It keeps its place, which is before all that were submitted or resumed since.
            self.waiting.append(run)
            places = {row.run: row.place for row in all_runs(self.folder)}
            self.waiting.sort(key=lambda name: places[name])
        else:
            self.over[run] = "stopped" if end == "failed" and wanted == "stop" else end

    @precondition(lambda self: self.waiting or self.running or self.left)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.waiting + self.running + self.left))
        stop_run(self.folder, run)
        self.to_stop.add(run)
        if run in self.waiting:
            self.waiting.remove(run)
            self.over[run] = "stopped"

    @precondition(lambda self: self.over)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.over)))
        if self.over[run] == "finished":
            with pytest.raises(InputError):
                resume_run(self.folder, run)
            return
        resume_run(self.folder, run)
        self.to_stop.discard(run)
        del self.over[run]
        self.waiting.append(run)

    @rule()
    def kill_the_supervisor(self) -> None:
        self.queue = StudyQueue(self.folder, self.PARALLEL)
        self.left = self.left + self.running
        places = {row.run: row.place for row in all_runs(self.folder)}
        self.left.sort(key=lambda name: places[name])
        self.running = []

    @invariant()
    def the_database_says_the_same(self) -> None:
        if not hasattr(self, "folder"):
            return
        known = dict.fromkeys(self.waiting, "queued") | dict(self.over)
        known |= dict.fromkeys(self.running + self.left, "running")
        assert {row.run: row.state for row in all_runs(self.folder)} == known
        assert len(self.turns) <= self.PARALLEL
        assert len(set(self.running) - self.turns) <= MOST_WAITING


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
