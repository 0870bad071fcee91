"""A job of Slurm as its scripts see it: variables, a shell that is signalled, scontrol, squeue."""

import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SCRIPTS = Path(__file__).parents[3] / "packaging" / "slurm"
PATIENCE_SECONDS = 150


@dataclass(slots=True)
class Cluster:
    """Jobs of one number, one after the other, as when a job is queued again.

    Attributes:
        state: What squeue says of the job.
    """

    folder: Path
    state: str = "RUNNING"
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def prepare(self) -> None:
        """Make the programs that a script calls."""
        programs = self.folder / "bin"
        programs.mkdir()
        said = self.folder / "requeued"
        _program(programs / "wardround", f'exec {sys.executable} -m wardround.cli "$@"')
        _program(programs / "scontrol", f'echo "$@" >> {said}')
        _program(programs / "squeue", 'echo "$STATE_OF_JOB"')

    def submit(self, script: str, *words: object, **more: str) -> subprocess.Popen[bytes]:
        """Start a script as Slurm does, as the head of processes of its own."""
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NAME": "wardround",
            "SLURM_CPUS_PER_TASK": "2",
            "SLURM_SUBMIT_DIR": str(self.folder),
            "SLURM_RESTART_COUNT": str(len(self.processes)),
            "STATE_OF_JOB": self.state,
            **more,
        }
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                ["bash", str(SCRIPTS / script), *map(str, words)],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_hear_signals,
            )
        self.processes.append(process)
        return process

    @property
    def log(self) -> Path:
        return self.folder / "job.log"

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "wardround-4711"

    @property
    def requeued(self) -> int:
        """How often a script has had its job queued again."""
        path = self.folder / "requeued"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def wait_for_line(self, part: str, process: subprocess.Popen[bytes], since: int = 0) -> None:
        """Wait until the log has a line, after its first bytes, or the process has ended."""
        until = time.monotonic() + PATIENCE_SECONDS
        while part.encode() not in self.log.read_bytes()[since:]:
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.005)

    def close(self) -> None:
        """Kill what is left of the jobs."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def _hear_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
