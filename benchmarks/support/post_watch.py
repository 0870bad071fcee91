"""What passes over loopback and what lies in a folder, over time.

A server hands messages on as files in its link's folder. A file that was written twice under two
names counts twice, so the bytes written a round tell how often a round's model was stored.
"""

import os
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Post:
    """What had passed at one moment, in bytes.

    Attributes:
        passed: Over loopback, of everybody on this machine.
        written: Into files of the folder, those that have gone too.
        stored: In the folder now.
    """

    at: float
    passed: int
    written: int
    stored: int


class PostWatch:
    """Looks at loopback and a folder until the context ends."""

    def __init__(self, folder: Path, every_seconds: float = 0.05) -> None:
        self._folder, self.every_seconds = folder, every_seconds
        self._files: dict[tuple[str, int], int] = {}
        self._seen: list[Post] = []

    @property
    def looks(self) -> int:
        """How often it has looked."""
        return len(self._seen)

    @property
    def most_stored(self) -> int:
        """The folder's size at its largest, in bytes."""
        return max((post.stored for post in self._seen), default=0)

    def passed_a_round(self, ended: Sequence[float]) -> float:
        """Return the bytes over loopback in a usual round, given when each ended."""
        return median(after.passed - before.passed for before, after in self._between(ended))

    def written_a_round(self, ended: Sequence[float]) -> float:
        """Return the bytes written in a usual round, given when each ended."""
        return median(after.written - before.written for before, after in self._between(ended))

    def _between(self, ended: Sequence[float]) -> list[tuple[Post, Post]]:
        times = [post.at for post in self._seen]
        return list(pairwise(self._seen[max(bisect_right(times, at) - 1, 0)] for at in ended))

    def look(self) -> None:
        """Look once."""
        now = _files(self._folder)
        for key, size in now.items():
            self._files[key] = max(size, self._files.get(key, 0))
        written = sum(self._files.values())
        self._seen.append(Post(time.time(), _loopback_bytes(), written, sum(now.values())))


def _files(folder: Path) -> dict[tuple[str, int], int]:
    """Return the sizes of all files in a folder, by name and inode."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.stat(os.path.join(place, name))
            except OSError:  # it has gone meanwhile
                continue
            found[name, status.st_ino] = status.st_size
    return found


def _loopback_bytes() -> int:
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    message = "/proc/net/dev has no lo: this needs Linux"
    raise RuntimeError(message)
