"""What the processes that this one has started use, while they run, by what they are."""

import os
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks.support.processes import process_tree, proportional_kilobytes

# A word of the command line, and what the process is; the first that fits.
_ROLES = {
    "link_process": "link",
    "study_process": "study process",
    "wardround.client.daemon.worker_main": "site's worker",
    "federation_try_process server": "supervisor",
    "federation_try_process site": "site's daemon",
    "wardround.cli simulate": "simulation",
    "flwr-clientapp": "ClientApp",
    "flwr-serverapp": "ServerApp",
    "flower-superexec": "SuperExec",
    "flower-supernode": "SuperNode",
    "flower-superlink": "SuperLink",
}
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """What processes used.

    Attributes:
        memory_mb: The peak of all together, pages that they share counted once.
        largest_mb: By role, the resident memory of the largest process at its own peak.
        cpu: Moments, and the CPU seconds until then of all that ever ran.
    """

    memory_mb: float
    largest_mb: Mapping[str, float] = field(default_factory=dict)
    cpu: tuple[tuple[float, float], ...] = ()

    def cpu_seconds(self, ended: Sequence[float]) -> list[float]:
        """Return the CPU seconds of each round but the first, given when each ended."""
        moments = [at for at, _ in self.cpu]
        at_ends = [self.cpu[max(bisect_right(moments, at) - 1, 0)][1] for at in ended]
        return [after - before for before, after in pairwise(at_ends)]


class UsageWatch:
    """Looks at all descendants of this process until the context ends."""

    def __init__(self, every_seconds: float = 0.5) -> None:
        self.every_seconds = every_seconds
        self._memory_mb, self._largest_mb = 0.0, dict[str, float]()
        self._cpu: list[tuple[float, float]] = []

    @property
    def usage(self) -> Usage:
        """What was used so far."""
        return Usage(self._memory_mb, dict(self._largest_mb), tuple(self._cpu))

    def look(self) -> None:
        """Look once."""
        pids = process_tree(os.getpid())[1:]
        self._cpu.append((time.time(), sum(map(_cpu_seconds, pids))))
        self._memory_mb = max(self._memory_mb, sum(map(proportional_kilobytes, pids)) / 1024)
        for pid in pids:
            if role := _role(pid):
                largest = max(self._largest_mb.get(role, 0.0), _resident_peak_mb(pid))
                self._largest_mb[role] = largest


def is_running(role: str) -> bool:
    """Whether a descendant of this process has a role."""
    return any(_role(pid) == role for pid in process_tree(os.getpid())[1:])


def _role(pid: int) -> str:
    """Return what a process is; empty if it is none of these, or has ended."""
    words = _read(pid, "cmdline").replace("\0", " ")
    return next((role for word, role in _ROLES.items() if word in words), "")


def _resident_peak_mb(pid: int) -> float:
    lines = _read(pid, "status").splitlines()
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def _cpu_seconds(pid: int) -> float:
    """Return what a process has computed, and its children that have ended and were waited for."""
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_A_SECOND


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:  # it has ended
        return ""
