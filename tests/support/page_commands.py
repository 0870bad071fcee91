"""The commands of a page, run as they stand there: one, all, or in a folder where some go on."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.stage import ENVIRONMENT, wait_until

PATIENCE_SECONDS = 300.0
FINE = (0,)
_NONE: Mapping[str, str] = {}
_NOTHING: Mapping[str, Sequence[int]] = {}


def blocks_of(page: Path, language: str = "") -> list[str]:
    """Return a page's blocks of a language; those that name none are commands."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [block for one, block in found if one == language]


def run_command(
    command: str,
    folder: Path,
    environment: Mapping[str, str] = _NONE,
    fine: Sequence[int] = FINE,
    typed: str = "",
) -> str:
    """Run a command as a shell does, and return what it prints.

    Args:
        environment: Beside this process's.
        fine: The exit codes that are expected.
        typed: What stands at its standard input.
    """
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=_environment(environment),
        input=typed,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode in fine, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**ENVIRONMENT, "PATH": path, **more}


def run_commands(
    page: Path, folder: Path, fine: Mapping[str, Sequence[int]] = _NOTHING
) -> dict[str, str]:
    """Run a page's commands in a folder; return what each has printed.

    Args:
        fine: Exit codes that are expected of commands with such words, beside 0.
    """
    environment = {"WARDROUND_CACHE": str(folder / "cache")}
    said = {}
    for command in (line for block in blocks_of(page) for line in block.splitlines() if line):
        codes = [code for words, more in fine.items() if words in command for code in more]
        said[command] = run_command(command, folder, environment, (0, *codes))
    return said


@dataclass
class Place:
    """A folder in which commands run; what goes on is ended with the test.

    Attributes:
        environment: Of the commands, beside this process's.
    """

    folder: Path
    restore_signals: Callable[[], None]
    environment: dict[str, str] = field(default_factory=dict)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, command: str, fine: tuple[int, ...] = FINE, typed: str = "") -> str:
        """Run a command as a shell does, and return what it says."""
        return run_command(command, self.folder, self._own(), fine, typed)

    def begin(self, command: str, says: str) -> subprocess.Popen[bytes]:
        """Start what goes on until Ctrl-C; return once it says that it serves."""
        path = self.folder / f"terminal-{len(self.running)}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", re.sub(r"^((\w+=\S+ )*)", r"\1exec ", command, count=1)],
                cwd=self.folder,
                env=_environment(self._own()),
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=self.restore_signals,
            )
        self.running.append(process)
        wait_until(lambda: process.poll() is not None or re.search(says, path.read_text()))
        assert re.search(says, path.read_text()), f"{command}\n{path.read_text()}"
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Press Ctrl-C; all that serves ends with 0."""
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        self.running.remove(process)

    def close(self) -> None:
        for process in reversed(self.running):
            process.send_signal(signal.SIGINT)
        for process in self.running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()

    def _own(self) -> dict[str, str]:
        return {"WARDROUND_CACHE": str(self.folder / "cache"), **self.environment}
