"""The commands of docs/tutorials/four-terminals.md, word for word, each terminal's in its order."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.stage import ENVIRONMENT, wait_until

from wardround.simulations.local_federation.processes import free_port

pytestmark = [
    pytest.mark.pages,
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "four-terminals.md"
_SERVES = re.compile(r"wardround (server|site) start \S+$")
_PATIENCE_SECONDS = 120.0


def terminals() -> list[str]:
    """Return each section's commands; what stands before the first section has none."""
    sections = PAGE.read_text().split("\n## ")[1:]
    return ["".join(re.findall(r"^```\n(.*?)^```$", one, re.DOTALL | re.M)) for one in sections]


@dataclass
class Shell:
    """A folder in which commands are run; what goes on is ended with the test."""

    folder: Path
    environment: dict[str, str]
    restore_signals: Callable[[], None]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def do(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def begin(self, command: str) -> None:
        """Run what goes on until Ctrl-C; return once it says that it serves."""
        path = self.folder / f"terminal-{len(self.running)}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", command.replace("wardround", "exec wardround", 1)],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=self.restore_signals,
            )
        self.running.append(process)
        wait_until(lambda: re.search("Sites reach|answers", path.read_text()))


@pytest.fixture
def shell(
    tmp_path: Path, shared_data: Path, hearing_signals: Callable[[], None]
) -> Iterator[Shell]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**ENVIRONMENT, "PATH": path, "WARDROUND_DATA": str(shared_data)}
    opened = Shell(tmp_path, environment, hearing_signals)
    yield opened
    for process in reversed(opened.running):
        process.send_signal(signal.SIGINT)  # Ctrl-C
    codes = [process.wait(30) for process in opened.running]
    assert codes == [0] * len(codes)


def test_the_page_leaves_no_token_that_others_can_read_and_wants_no_folder_that_is_not_there() -> (
    None
):
    text = PAGE.read_text()
    commands = "".join(re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.M))
    assert "export" not in commands
    assert not re.search(r"server invite .*>", commands)


def test_four_terminals_train_the_model_of_simulate_bit_for_bit(shell: Shell) -> None:
    said = []
    for terminal in terminals():
        # The page trains 15 rounds, and takes the usual port, which another test may have.
        text = terminal.replace("--sites 3 --out", "--sites 3 --set federation.rounds=2 --out")
        text = text.replace("127.0.0.1", f"127.0.0.1 --host 127.0.0.1 --port {free_port()}")
        if "python -c" in text:
            first, comparison = text.split("python -c", 1)
            said += [shell.do(first), shell.do(f"python -c{comparison}")]
            continue
        for command in text.splitlines():
            if _SERVES.search(command):
                shell.begin(command)
            else:
                said.append(shell.do(command))
    assert len(shell.running) == 4
    assert re.search(r"^round 2/2 .* 3 sites", "".join(said), re.M)
    assert said[-1] == "True\n"
