"""What a reader of one round must open is few files, and the guard is passed once a reply."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long
REPOSITORY = Path(__file__).parents[3]
# The way of one round, as docs/reference/architecture.md has it; "simulations" stands for the
# engine that carries its messages here, and for the progress that is shown.
ON_THE_WAY = (
    "client/app.py",
    "client/data/",
    "client/egress/",
    "client/evaluation/",
    "client/policy/",
    "client/privacy/",
    "client/session/",
    "client/site/folder.py",
    "client/site/state.py",
    "client/tasks/",
    "client/training/",
    "common/",
    "server/checkpoints/",
    "server/rounds/",
    "server/sites/",
    "server/strategies/",
    "simulations/engines/",
    "simulations/experiment/",
    "simulations/run_files/",
)
NOT_IN_A_ROUND = ("common/study/loading.py", "common/study/rules/", "common/study/explain/")
# As many as before every file had its room, one that counts measurements, and one that looks for
# each round whether a patient was withdrawn; a round that needs more is harder to read. A private
# round measures its model too, in a message of its own, and sets how the device computes. What is
# written down of refusals that repeat is a file of its own. A simulated plain round keeps its
# updates, of which contributions are told: one file more. What only some systems have, locks and
# owners of files, is asked of a room of its own: one file more on the way of a ledger. Whether a
# name is Wardround's own or a package's is one file, which every table of names asks.
# Changes of images are drawn in one file, by presets of another, and applied in a third.
# A loss of a sample, that of a batch, and which one a study names are three files of one room.
# What a learning rate is in which round, server and site ask of one file, and whether patients are
# charged they ask of the study's section.
# Where the gateway of a site and its session were two files of 1,200 lines they are ten: eight more
# are entered, and no more lines. What becomes of a cohort's batch is a file beside it: one more.
MOST = {"plain": 82, "private": 112}
REPLIES = {"plain": 2, "private": 4}


@pytest.fixture(scope="module")
def traces() -> dict[str, dict[str, Any]]:
    """Trace a round of each kind, in a process whose torch has a thread of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.files_of_a_round", "--json"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("kind", MOST)
def test_a_round_enters_few_files_and_all_on_its_way(
    traces: dict[str, dict[str, Any]], kind: str
) -> None:
    files = traces[kind]["files"]
    assert not [name for name in files if not name.startswith(ON_THE_WAY)]
    assert not [name for name in files if name.startswith(NOT_IN_A_ROUND)]
    assert len(files) <= MOST[kind], files


@pytest.mark.parametrize("kind", MOST)
def test_a_reply_passes_the_guard_once(traces: dict[str, dict[str, Any]], kind: str) -> None:
    assert (traces[kind]["replies"], traces[kind]["checks"]) == (REPLIES[kind],) * 2
