"""What a site keeps for itself from round to round of one run.

One file a round, whole or absent, so that a run which goes on from an earlier round finds what
belonged to it. The last rounds are kept, and what the best model so far needs. Two runs of one
study never see each other; the last runs are kept.
"""

import logging
import shutil
from pathlib import Path

from wardround.common.parameters.model_file import load_model, save_model
from wardround.common.parameters.schema import Parameters

logger = logging.getLogger(__name__)
KEPT_ROUNDS = 3  # the server may repeat its last round, and fall back one more after a crash
KEPT_RUNS = 2  # this one and the one before, which an operator may resume
_SUFFIX = ".safetensors"


class SiteState:
    """One site's memory of one run.

    Args:
        folder: The site's state folder.
        digest: The study.
        run: The run of the study.
    """

    def __init__(self, folder: Path, digest: str, run: str) -> None:
        self._study = folder / digest  # whole: two studies that begin alike can be found by trying
        self._folder = self._study / run

    def after(self, number: int) -> Parameters:
        """Return what was kept after a round, or after the last one before it; empty if none.

        Raises:
            ModelError: The file is damaged.
        """
        kept = _last(self._rounds(), number)
        return {} if kept is None else load_model(self._place(kept)).parameters

    def settle(self, counted: int) -> None:
        """Drop what was kept after a round: its updates were refused, lost, or taken back.

        Args:
            counted: The last round of this site that the server counted; 0 for none, -1 if it does
                not say, which drops nothing.
        """
        if counted < 0:
            return
        kept = self._rounds()
        for number in kept:
            if number > counted:
                logger.info("round=%d not counted: its memory is dropped", number)
                self._place(number).unlink(missing_ok=True)
        if counted and counted not in kept:
            logger.warning("round=%d was counted, and its memory is not there", counted)

    def keep(self, number: int, memory: Parameters, best_round: int) -> None:
        """Keep what a round left, durably, and drop what is no longer needed.

        What later rounds left belongs to a run that was taken back, and is dropped too. Of a site
        that is not in every round, the last rounds are those it was in.

        Args:
            best_round: The round whose model is the best so far; -1 if none.
        """
        if not self._folder.is_dir():
            self._begin()
        save_model(self._place(number), memory, {"round": str(number)})
        earlier = sorted(kept for kept in self._rounds() if kept <= number)
        needed = {*earlier[-KEPT_ROUNDS:], _last(earlier, best_round)}
        for kept in self._rounds():
            if kept not in needed:
                self._place(kept).unlink(missing_ok=True)

    def _begin(self) -> None:
        """Make room for a new run: drop all others but the last ones."""
        others = [place for place in self._study.glob("*") if place.is_dir()]
        others.sort(key=lambda place: place.stat().st_mtime_ns, reverse=True)
        for place in others[KEPT_RUNS - 1 :]:
            shutil.rmtree(place, ignore_errors=True)
        self._folder.mkdir(parents=True)

    def _place(self, number: int) -> Path:
        return self._folder / f"round-{number:05d}{_SUFFIX}"

    def _rounds(self) -> list[int]:
        return [
            int(path.name.removeprefix("round-").removesuffix(_SUFFIX))
            for path in self._folder.glob(f"round-*{_SUFFIX}")
        ]


def _last(rounds: list[int], until: int) -> int | None:
    """Return the last of these rounds that is not after another."""
    return max((kept for kept in rounds if kept <= until), default=None)
