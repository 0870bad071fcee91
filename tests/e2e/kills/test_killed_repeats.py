"""A process that repeats a run without a site is killed with -9, and the same command goes on."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from tests.integration.simulations.finished_runs.test_withdrawals import (
    DONE,
    LATE,
    manifest_of,
    model_of,
    patients_of,
    run,
    study_of,
)
from tests.support.stage import ENVIRONMENT, PATIENCE_SECONDS, WARDROUND

from wardround.common.security.withdrawal.certificate import CERTIFICATE_FILE, read_certificate
from wardround.server.checkpoints.history import RoundRecord, read_records
from wardround.simulations.experiment.training import checkpoints_of

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX"),
]


def test_a_repeat_that_is_killed_ends_in_the_model_of_a_run_that_never_had_the_site(
    tmp_path: Path,
) -> None:
    late = study_of(manifest_of(tmp_path), simulation__late={"west": LATE})
    stopped, repeat = run(late, tmp_path / "run", DONE), tmp_path / "repeat"
    words = (*WARDROUND, "withdraw", stopped, "--site", "west", "--out", repeat)
    command = [str(word) for word in (*words, "--engine", "in-process", "--threads", 1)]
    for wanted in (LATE + 1, LATE + 4):
        killed_after(command, repeat, wanted)
        assert not (repeat / CERTIFICATE_FILE).exists()
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)
    without = run(study_of(manifest_of(tmp_path, tuple(patients_of("west")))), tmp_path / "never")
    assert model_of(repeat) == model_of(without)
    assert read_certificate(repeat / CERTIFICATE_FILE).said.is_exact


def killed_after(command: list[str], repeat: Path, number: int) -> None:
    """Start a command, and kill it once a round of its run has been committed."""
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    until = time.monotonic() + PATIENCE_SECONDS * 4
    while not any(record.round >= number for record in records_of(repeat)):
        assert time.monotonic() < until, "waited in vain"
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -9


def records_of(repeat: Path) -> list[RoundRecord]:
    path = checkpoints_of(repeat, "federated") / "history.jsonl"
    return read_records(path) if path.exists() else []
