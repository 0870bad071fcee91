"""A run is killed with -9, again and again, and ends in the model it would have had."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.support.stage import bits_of, table_study, write_table

from wardround.common.study.study import Study
from wardround.server.checkpoints import store as checkpoints
from wardround.server.checkpoints.history import read_records
from wardround.server.rounds import asking
from wardround.server.rounds import loop as rounds
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import SimulationRequest, resume, simulate

ROUNDS = 6
SITES = ("site-0", "site-1", "site-2")
MACHINE = Machine(engine="in-process", threads=1)
POINTS = (
    "before sending",
    "while collecting",
    "while aggregating",
    "before the commit",
    "any time",
)


def run_in_child(study: Study, out: Path, prepare: Callable[[], None]) -> int:
    """Simulate or resume in a forked process; return its exit code, -9 if it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            prepare()
            if (out / "run.json").exists():
                resume(out, MACHINE)
            else:
                # Killed before the first round: what lies there is no run, and is removed.
                shutil.rmtree(out, ignore_errors=True)
                simulate(SimulationRequest(study, out, MACHINE))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_call(module: object, name: str, number: int) -> None:
    """Replace a function by one that kills the process when it is called the n-th time."""
    original, calls = getattr(module, name), []

    def deadly(*args: object, **named: object) -> object:
        calls.append(None)
        if len(calls) == number:
            die()
        return original(*args, **named)

    setattr(module, name, deadly)


def plant(seed: float) -> None:
    """Arrange for this process to be killed at a point drawn from a seed."""
    generator = random.Random(seed)
    point = generator.choice(POINTS)
    if point == "before sending":
        die_at_call(asking, "pack_instruction", generator.randint(1, ROUNDS))
    elif point == "while collecting":
        die_at_call(asking, "unpack_update", generator.randint(1, ROUNDS * len(SITES)))
    elif point == "while aggregating":
        die_at_call(rounds, "as_measurements", generator.randint(1, ROUNDS))
    elif point == "before the commit":
        # Each commit hashes its files when they are written and not yet in their place.
        die_at_call(checkpoints, "_sha256", generator.randint(1, 2 * ROUNDS + 2))
    else:
        signal.signal(signal.SIGALRM, lambda *_: die())
        signal.setitimer(signal.ITIMER_REAL, generator.uniform(0.05, 1.2))


def final_model(out: Path) -> str:
    return bits_of(out / "models" / "federated.safetensors")


@pytest.mark.parametrize(
    ("strategy", "kills"),
    [("fedavg", 10), ("scaffold", 5), pytest.param("fedavg", 40, marks=pytest.mark.long)],
)
def test_a_run_killed_anywhere_resumes_to_the_bit_identical_model(
    tmp_path: Path, strategy: str, kills: int
) -> None:
    manifest = write_table(tmp_path, 90, SITES)
    study = table_study("kills", manifest, rounds=ROUNDS, strategy=strategy)
    # In this process: what it imports, no child has to import anew.
    simulate(SimulationRequest(study, tmp_path / "whole", MACHINE))
    expected = final_model(tmp_path / "whole")
    generator = random.Random(f"{strategy} 1")
    killed = attempt = 0
    deadline = time.monotonic() + 240
    while killed < kills:
        assert time.monotonic() < deadline, f"only {killed} kills in time"
        out = tmp_path / f"run-{attempt}"
        attempt += 1
        codes = []
        # One to three kills in the same run, at points drawn anew, then to the end.
        for _ in range(generator.randint(1, 3)):
            seed = generator.random()
            codes.append(run_in_child(study, out, partial(plant, seed)))
            assert codes[-1] in (0, -signal.SIGKILL)
        assert run_in_child(study, out, lambda: None) == 0
        killed += codes.count(-signal.SIGKILL)
        assert final_model(out) == expected
        history = read_records(out / "checkpoints" / "federated" / "history.jsonl")
        trained = [record.round for record in history if record.sites]
        assert trained == list(range(1, ROUNDS + 1)), "a round is missing or counted twice"
        assert all(len(record.sites) == len(SITES) for record in history if record.sites)
