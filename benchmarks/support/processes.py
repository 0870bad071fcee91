"""Timing a whole process from outside: wall, CPU, and the memory of all its processes."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timed:
    """One run of a command.

    Attributes:
        memory_mb: Peak of the summed proportional set sizes of its process tree, so that pages
            shared between processes count once.
    """

    wall_seconds: float
    cpu_seconds: float
    memory_mb: float
    output: str


def run_timed(command: list[str], environment: dict[str, str] | None = None) -> Timed:
    """Run a command to its end.

    Raises:
        RuntimeError: It failed; holds the end of what it printed.
    """
    started = time.perf_counter()
    before = os.times()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    peak = _Peak(process.pid)
    output, errors = process.communicate()
    wall = time.perf_counter() - started
    after = os.times()
    peak.stop()
    if process.returncode:
        message = f"{command[:4]} failed: {errors[-1000:]}"
        raise RuntimeError(message)
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return Timed(wall, cpu, peak.megabytes, output)


def machine() -> str:
    """Return one line about the machine and the versions."""
    from importlib.metadata import version

    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown CPU",
    )
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "flwr"))
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return (
        f"{model}, {cores} cores, load {load:.1f} at the start; "
        f"Python {sys.version.split()[0]}, {versions}"
    )


class _Peak:
    """Samples the memory of a process tree until told to stop."""

    def __init__(self, pid: int) -> None:
        self.megabytes = 0.0
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            total = sum(proportional_kilobytes(pid) for pid in process_tree(self._pid))
            self.megabytes = max(self.megabytes, total / 1024)


def process_tree(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += process_tree(int(child))
    except OSError:
        pass
    return found


def proportional_kilobytes(pid: int) -> int:
    """Return a process's memory, what it shares counted in parts; 0 if it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
