"""A federation of real processes over TLS, beside the same study simulated in one process."""

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from tests.support.stage import ENVIRONMENT, WARDROUND, bits_of, wait_until
from tests.support.tiny_study import TinyStudy

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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
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
