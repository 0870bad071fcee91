"""Each exit code of the page's one table, from a process of its own; the other commands in ours."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.studies.tiny_runs import write_tiny_study

ROOT = Path(__file__).resolve().parents[4]
TABLE = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
TABLE = TABLE.partition("## Exit codes")[2].partition("\n## ")[0]
_WARDROUND = [sys.executable, "-m", "wardround.cli"]
_PATIENCE_SECONDS = 60.0
# Commands that end so; a simulation that is stopped with Ctrl-C is below.
COMMANDS = {
    0: (["study", "check", "heart-disease"], ["data", "list", "--json"]),
    1: (
        ["site", "doctor", "north", "--quick"],
        ["site", "explain", "heart-disease", "--site", "north"],
    ),
    2: (
        ["study", "check", "nowhere.toml"],
        ["study", "check", "heart-disease", "--tyop"],
        ["simulate", "wrong.toml"],
        ["site", "join", "no-token", "--folder", "new"],
    ),
    3: (["server", "status", "server"], ["runs", "list", "--server", "server", "--json"]),
}


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_WARDROUND, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital without data, a server that does not run, a study that cannot be."""
    made = tmp_path_factory.mktemp("codes")
    (made / "north").mkdir()
    (made / "north" / "site.toml").write_text('name = "north"\n', encoding="utf-8")
    (made / "north" / "policy.toml").write_text("", encoding="utf-8")
    (made / "wrong.toml").write_text("[study]\nname = 3\n", encoding="utf-8")
    words = ["--name", "Try", "--public-name", "localhost"]
    assert run(["server", "init", "server", *words], made).returncode == 0
    return made


def test_the_table_has_every_code_that_is_provoked_here() -> None:
    said = {int(code) for code in re.findall(r"^\| (\d+) \|", TABLE, re.MULTILINE)}
    assert said == {*COMMANDS, 128 + signal.SIGINT}


@pytest.mark.parametrize("code", COMMANDS)
def test_a_process_ends_with_the_code_of_the_table(code: int, folder: Path) -> None:
    done = run(COMMANDS[code][0], folder)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert bool(done.stderr) or code in (0, 1)


@pytest.mark.parametrize(
    ("code", "words"),
    [(code, words) for code, every in COMMANDS.items() for words in every[1:]],
    ids=lambda one: " ".join(one) if isinstance(one, list) else str(one),
)
def test_a_command_ends_with_the_code_of_the_table(
    code: int, words: list[str], folder: Path, wardround, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    said = wardround(*words)
    assert said.code == code, said.out + said.err
    assert "Traceback" not in said.err
    assert bool(said.err) or code in (0, 1)


def test_a_disk_without_room_is_no_defect(folder: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*_WARDROUND, "study", "schema"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 3
    assert b"No space left" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "code"), [("INT", 130), pytest.param("KILL", 137, marks=pytest.mark.long)]
)
def test_a_simulation_that_is_stopped_or_killed_says_so_to_the_shell(
    number: str, code: int, tmp_path: Path, hearing_signals
) -> None:
    write_tiny_study(tmp_path, federation__rounds=100_000, simulation__compare=False)
    words = ["simulate", "study.toml", "--engine", "in-process", "--threads", "1", "--out", "run"]
    process = subprocess.Popen(
        [*_WARDROUND, *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hearing_signals,
    )
    until = time.monotonic() + _PATIENCE_SECONDS
    while not (tmp_path / "run" / "run.json").exists() and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(getattr(signal, f"SIG{number}"))
    said = process.communicate(timeout=_PATIENCE_SECONDS)[1]
    seen = process.returncode if process.returncode >= 0 else 128 - process.returncode
    assert seen == code, said
    assert ("--resume run" in said) == (code == 130)
