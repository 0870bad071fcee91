"""A simulation's run folder as a live page: its regions, and its report once it is there."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wardround.common.html.live.page import Document, LivePage, Region
from wardround.simulations.report.live.outcome import REPORT
from wardround.simulations.report.live.reading import Reader
from wardround.simulations.report.live.regions import REGIONS, regions_of

KICKER = "Wardround simulation"
_LARGEST_REPORT = 200_000_000
_READ_SECONDS = 5.0  # it is drawn every second while somebody reads


@dataclass(slots=True)
class WatchedRun:
    """What is drawn of a run folder, and whether its simulation has ended.

    Args:
        folder: It need not be there yet.
        ended: Is set once the process that simulates has ended.
    """

    folder: Path
    ended: threading.Event = field(default_factory=threading.Event)
    _reader: Reader = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _drawn_at: float = -_READ_SECONDS

    def __post_init__(self) -> None:
        self._reader = Reader(self.folder)

    def page(self) -> LivePage:
        """Return the page."""
        return LivePage(
            title=self.folder.resolve().name,
            kicker=KICKER,
            regions=tuple(Region(name, announced=name == "summary") for name in REGIONS),
            draw=self.draw,
            documents={REPORT: self.report},
            ended=self.ended.is_set,
        )

    @property
    def is_read(self) -> bool:
        """Whether somebody has read it a moment ago."""
        return time.monotonic() < self._drawn_at + _READ_SECONDS

    def draw(self) -> Mapping[str, str]:
        """Return the regions as they are now."""
        with self._lock:  # several readers may ask at once, and the files are read in turn
            has_ended, self._drawn_at = self.ended.is_set(), time.monotonic()
            return regions_of(self._reader.look(has_ended), has_ended)

    def report(self) -> Document | None:
        """Return the report; None where there is none yet."""
        path = self.folder / REPORT
        try:
            if path.stat().st_size > _LARGEST_REPORT:
                return None
            return Document(path.read_bytes())
        except OSError:
            return None
