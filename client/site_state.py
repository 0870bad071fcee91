"""What a site keeps for itself from round to round of one study.

One file a round, whole or absent, so that a run which goes on from an earlier round finds what
belonged to it. The last rounds are kept, and the round of the best model so far.
"""

from pathlib import Path

from wardround.common.parameters import Parameters, load_model, save_model

KEPT_ROUNDS = 3
_SUFFIX = ".safetensors"


class SiteState:
    """One site's memory of one study.

    Args:
        folder: The site's state folder.
        digest: The study.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self._folder = folder / digest[:16]

    def after(self, number: int) -> Parameters:
        """Return what was kept after a round, or after the last one before it; empty if none.

        Raises:
            ModelError: The file is damaged.
        """
        earlier = [kept for kept in self._rounds() if kept <= number]
        return load_model(self._place(max(earlier))).parameters if earlier else {}

    def keep(self, number: int, memory: Parameters, best_round: int) -> None:
        """Keep what a round left, durably, and drop what is no longer needed.

        What later rounds left belongs to a run that was taken back, and is dropped too.

        Args:
            best_round: The round whose model is the best so far; -1 if none.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        save_model(self._place(number), memory, {"round": str(number)})
        for kept in self._rounds():
            if kept > number or (kept <= number - KEPT_ROUNDS and kept != best_round):
                self._place(kept).unlink(missing_ok=True)

    def forget(self) -> None:
        """Drop everything: a study starts at its first round."""
        for kept in self._rounds():
            self._place(kept).unlink(missing_ok=True)

    def _place(self, number: int) -> Path:
        return self._folder / f"round-{number:05d}{_SUFFIX}"

    def _rounds(self) -> list[int]:
        return [
            int(path.name.removeprefix("round-").removesuffix(_SUFFIX))
            for path in self._folder.glob(f"round-*{_SUFFIX}")
        ]
