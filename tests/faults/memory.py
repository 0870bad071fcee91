"""How much memory processes took at most since a moment, as the kernel counts it."""

from collections.abc import Iterable
from pathlib import Path

import psutil

_FORGET_PEAK = "5"  # see proc(5), clear_refs


class PeakMemory:
    """Watches processes from now on."""

    def __init__(self, processes: Iterable[psutil.Process]) -> None:
        self._before = {process.pid: process.memory_info().rss for process in processes}
        for pid in self._before:
            Path(f"/proc/{pid}/clear_refs").write_text(_FORGET_PEAK, encoding="ascii")

    def growth_megabytes(self) -> float:
        """Return by how much the one that grew most did, at its peak."""
        return max(_peak(pid) - before for pid, before in self._before.items()) / 1e6


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    (kilobytes,) = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(kilobytes) * 1024
