"""A federation of real processes over TLS, beside the same study simulated in one process."""

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from tests.support.stage import (
    CANARY,
    ENVIRONMENT,
    WARDROUND,
    bits_of,
    table_study,
    wait_until,
    write_table,
)
from tests.support.studies.tiny_study import TinyStudy

from wardround.common.study.loading import with_changes
from wardround.server.checkpoints.evidence import read_evidence

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
_PATIENCE_SECONDS = 300.0


def run(*words: object) -> dict[str, object]:
    """Run a command that prints JSON."""
    said = subprocess.run(
        [*WARDROUND, *map(str, words)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    content = json.loads(said.stdout)
    assert isinstance(content, dict)
    return content


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return every process that was started for a folder, with what those started."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in word for word in process.cmdline()):
                found += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return list(dict.fromkeys(found))


def test_processes_joined_over_tls_train_the_model_of_simulate_bit_for_bit(
    tiny_study: TinyStudy, tmp_path: Path
) -> None:
    tried = run(
        "federation", "try", tiny_study.study, "--threads", 1, "--out", tmp_path / "t", "--json"
    )
    simulated = tmp_path / "s"
    run(
        *("simulate", tiny_study.study, "--rounds", 3, "--threads", 1, "--engine", "in-process"),
        *("--no-compare", "--out", simulated, "--json"),
    )
    assert tried["rounds"] == 3
    assert len(tried["sites"]) == 2  # type: ignore[arg-type]
    assert bits_of(Path(str(tried["model"]))) == bits_of(
        simulated / "models" / "federated.safetensors"
    )
    assert not processes_of(tmp_path / "t"), "everything that was started has ended"
    for text in (tmp_path / "t" / "logs").glob("*.log"):
        assert "CANARY" not in text.read_text()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.long)]
)
def test_a_try_that_is_stopped_or_killed_leaves_no_process(
    tiny_study: TinyStudy, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "t"
    words = ("federation", "try", str(tiny_study.study), "--rounds", "5000", "--out", str(out))
    process = subprocess.Popen(
        [*WARDROUND, *words, "--quiet"], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    try:
        server = out / "server"
        wait_until(
            lambda: process.poll() is not None or list(server.glob("runs/*/checkpoints/*2")),
            _PATIENCE_SECONDS,
        )
        assert len(processes_of(out)) >= 8, "a try, a server, its link, a study, two sites' two"
        process.send_signal(number)
        _, said = process.communicate(timeout=_PATIENCE_SECONDS)
        assert process.returncode == (130 if number == signal.SIGTERM else -number)
        assert number == signal.SIGKILL or "every process with it" in said
        wait_until(lambda: not processes_of(out), _PATIENCE_SECONDS)
    finally:
        process.kill()
        process.wait()


@pytest.mark.long
def test_evidence_arrives_over_tls_as_in_simulate_and_the_operator_sees_it(tmp_path: Path) -> None:
    """Two daemons answer both exchanges; page and JSON show what left, and nobody's name."""
    manifest = write_table(tmp_path, 120, ("north", "south"))
    packs = ["intervals", "calibration", "gains"]
    study = with_changes(table_study("evidence", manifest, rounds=1), {"evaluation.pack": packs})
    place = tmp_path / "study.toml"
    place.write_text(study.to_toml())
    tried, simulated = tmp_path / "t", tmp_path / "s"
    run("federation", "try", place, "--rounds", 1, "--threads", 1, "--out", tried, "--json")
    words = ("--threads", 1, "--engine", "in-process", "--no-compare", "--out", simulated, "--json")
    run("simulate", place, *words)
    server = tried / "server"
    (name,) = [folder.name for folder in (server / "runs").iterdir()]
    left = read_evidence(server / "runs" / name / "checkpoints")
    assert {row.pack for row in left} == {"", *packs}
    assert {row.site for row in left} == {"north", "south", "all sites"}
    assert [row for row in left if row.metric == "auroc"][-1].low is not None
    assert left == read_evidence(simulated / "checkpoints" / "federated")
    process = subprocess.Popen(
        [*WARDROUND, "server", "start", str(server)], env=ENVIRONMENT, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: (server / "operator.sock").exists(), _PATIENCE_SECONDS)
        shown = run("runs", "show", name, "--server", server, "--json")
        assert len(shown["evidence"]) == len(left)  # type: ignore[arg-type]
        page = tmp_path / "page.html"
        words = ("runs", "report", name, "--server", str(server), "--out", str(page))
        subprocess.run([*WARDROUND, *words], env=ENVIRONMENT, check=True, capture_output=True)
        text = page.read_text()
        assert "<h2>Evidence</h2>" in text
        assert "95 % interval" in text
        assert CANARY not in text
    finally:
        process.terminate()
        process.wait(_PATIENCE_SECONDS)
    assert not processes_of(tried)
