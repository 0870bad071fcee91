"""The scripts of packaging/slurm, run as Slurm runs them: signalled, queued again, killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.support.places.slurm import PATIENCE_SECONDS, Cluster
from tests.support.stage import bits_of, table_study, write_table

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it looks into /dev/shm"),
    pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash"),
]
ROUNDS = 30
SITES = ("north", "south", "west")
STOPPED = 130


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.prepare()
    yield made
    made.close()


def write_study(folder: Path, strategy: str, compare: bool) -> Path:
    manifest = write_table(folder, 90, SITES)
    study = table_study("slurm", manifest, steps=8, rounds=ROUNDS, strategy=strategy)
    path = folder / "study.toml"
    text = study.to_toml()
    assert "compare = false" in text
    path.write_text(text.replace("compare = false", "compare = true") if compare else text)
    return path


def models_of(run: Path) -> dict[str, str]:
    return {path.stem: bits_of(path) for path in sorted((run / "models").glob("*.safetensors"))}


def whole_run(cluster: Cluster, study: Path) -> dict[str, str]:
    """Return the models of a run that nobody disturbed."""
    job = cluster.submit("simulate.sbatch", study, RUN=str(cluster.folder / "whole"))
    assert job.wait(PATIENCE_SECONDS) == 0, cluster.log.read_text()
    return models_of(cluster.folder / "whole")


def page_of(run: Path) -> str:
    """Return what a reader of the report sees, without its marks and line breaks."""
    marked = (run / "report.html").read_text(encoding="utf-8")
    return " ".join(re.sub("<[^>]+>", " ", marked).split())


def status_of(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text())["status"])


def shared_memory() -> set[str]:
    """Return what lies where named shared memory stays, whoever made it."""
    return set(os.listdir("/dev/shm"))


def left_of(family: list[psutil.Process]) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(family, timeout=20)
    return [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def stop_at(
    cluster: Cluster, study: Path, line: str, number: signal.Signals, **more: str
) -> subprocess.Popen[bytes]:
    """Start or go on, signal the job's shell once its log has a line; nothing is left running."""
    before = shared_memory()
    since = cluster.log.stat().st_size if cluster.log.exists() else 0
    job = cluster.submit("simulate.sbatch", study, **more)
    cluster.wait_for_line(line, job, since)
    family = psutil.Process(job.pid).children(recursive=True)
    if number == signal.SIGKILL:
        os.killpg(job.pid, number)  # as Slurm does once KillWait is over: every process at once
    else:
        job.send_signal(number)  # --signal=B: the shell alone
    job.wait(PATIENCE_SECONDS)
    assert not left_of(family)
    assert not {name for name in shared_memory() - before if name.startswith("psm_")}
    assert "Traceback" not in cluster.log.read_text(), cluster.log.read_text()[-6000:]
    assert "leaked" not in cluster.log.read_text()
    return job


@pytest.mark.long
def test_a_job_that_is_told_to_end_is_queued_again_and_goes_on(cluster: Cluster) -> None:
    study = write_study(cluster.folder, "fedavg", compare=False)
    expected = whole_run(cluster, study)
    job = stop_at(cluster, study, "together: round 5 of", signal.SIGTERM)
    assert job.returncode == STOPPED
    assert cluster.requeued == 1
    assert status_of(cluster.run) == "interrupted"
    assert "This run was interrupted after round" in page_of(cluster.run)
    again = cluster.submit("simulate.sbatch", study)
    assert again.wait(PATIENCE_SECONDS) == 0, cluster.log.read_text()
    said = cluster.log.read_text()
    assert f"--resume {cluster.run} --threads 1" in said, "the script resumes by itself"
    assert "training together, from round" in said
    for number in range(1, ROUNDS + 1):
        assert f"training together: round {number} of {ROUNDS}, auroc " in said, "a line a round"
    assert cluster.requeued == 1
    assert models_of(cluster.run) == expected


@pytest.mark.long
@pytest.mark.parametrize(
    ("strategy", "machine", "lines"),
    [
        ("scaffold", "", ("together: round 3 of", "together: round 9 of")),
        (
            "fedavg",
            "--engine in-process --threads 1",
            ("together: round 4 of", "pooled data: round"),
        ),
        ("fedavg", "", ("alone: round 7 of", "testing every model", "writing the report")),
    ],
)
def test_a_job_stopped_at_any_stage_and_then_killed_ends_in_the_same_models(
    cluster: Cluster, strategy: str, machine: str, lines: tuple[str, ...]
) -> None:
    """A minute; by hand with all pairs of strategy, engine and stage, which takes ten."""
    study = write_study(cluster.folder, strategy, compare=True)
    expected = whole_run(cluster, study)
    assert expected.keys() == {"federated", "pooled", *(f"local-{site}" for site in SITES)}
    for line in lines:
        job = stop_at(cluster, study, line, signal.SIGTERM, MACHINE=machine)
        assert job.returncode == STOPPED, line
        assert status_of(cluster.run) in ("interrupted", "finished"), line
    assert cluster.requeued == len(lines)
    if "report" not in lines[-1]:
        stop_at(cluster, study, "training", signal.SIGKILL, MACHINE=machine)
    again = cluster.submit("simulate.sbatch", study, MACHINE=machine)
    assert again.wait(PATIENCE_SECONDS) == 0, cluster.log.read_text()
    assert models_of(cluster.run) == expected
    assert "interrupted after round" not in page_of(cluster.run)
    assert status_of(cluster.run) == "finished"


def test_a_cancelled_job_is_not_queued_again_nor_one_whose_input_is_refused(
    cluster: Cluster,
) -> None:
    study = write_study(cluster.folder, "fedavg", compare=False)
    wrong = cluster.submit("simulate.sbatch", study.with_name("nowhere.toml"))
    assert wrong.wait(PATIENCE_SECONDS) == 2
    cluster.state = "COMPLETING"  # scancel has been there
    job = stop_at(cluster, study, "together: round 2 of", signal.SIGTERM)
    assert job.returncode == STOPPED
    assert not cluster.requeued
