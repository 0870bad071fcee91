"""The sites' single updates, kept on disk while a strategy takes them in: in a simulation only.

A real server keeps none. From them follows what each site contributed, without training anew.
"""

import logging
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from wardround.common.errors import ModelError
from wardround.common.messages.replies import SiteUpdate
from wardround.common.parameters.model_file import load_model, save_model
from wardround.common.parameters.schema import Model, Parameters, under
from wardround.server.strategies.strategy import Site, Strategy

logger = logging.getLogger(__name__)
_MODEL, _AUXILIARY = "model/", "auxiliary/"
_START = "start.safetensors"
_MEGABYTE = 1_000_000


class KeepingStrategy:
    """A strategy whose updates are written down until they fill the room that they may take.

    A round is kept whole or not at all, and none after one that was not: what is kept can be
    aggregated anew from the first round on.
    """

    def __init__(self, strategy: Strategy, folder: Path, most_megabytes: int) -> None:
        self._strategy = strategy
        self._folder = folder
        self._most = most_megabytes * _MEGABYTE
        self._number = 0
        self._count = 0
        self._left = self._most
        self._is_keeping = False

    def cohorts(self, sites: Sequence[Site]) -> Sequence[Sequence[Site]]:
        """Return who works at the same time."""
        return self._strategy.cohorts(sites)

    def begin(self, number: int, parameters: Model) -> None:
        """Forget the updates of a round that did not end; keep the model of the first one."""
        _forget_from(self._folder, number)
        if number != self._number + 1:  # the run was resumed, or the round is done again
            self._left = self._most - _size_of(self._folder)
        self._number, self._count = number, 0
        if number == 1 and self._has_room(parameters.values()):
            self._write(self._folder / _START, parameters, {})
        is_started = (self._folder / _START).exists()
        self._is_keeping = is_started and len(kept_rounds(self._folder)) == number - 1
        self._strategy.begin(number, parameters)

    def model(self) -> Model:
        """Return the model that the next cohort of this round is sent."""
        return self._strategy.model()

    def auxiliary(self) -> Parameters:
        """Return what an instruction carries beside the model."""
        return self._strategy.auxiliary()

    def accumulate(self, update: SiteUpdate) -> None:
        """Take one site's update in, and keep it if there is room."""
        self._strategy.accumulate(update)
        if not self._is_keeping:
            return
        if self._has_room((*update.parameters.values(), *update.auxiliary.values())):
            name = f"{self._count:05d}.safetensors"
            self._write(_place(self._folder, self._number) / name, *_as_file(update))
            self._count += 1
        else:
            self._stop_keeping()

    def finish(self) -> Parameters:
        """Return the next model."""
        return self._strategy.finish()

    def state(self) -> Parameters:
        """Return what must survive a crash."""
        return self._strategy.state()

    def restore(self, state: Parameters) -> None:
        """Go on from a state."""
        self._strategy.restore(state)

    def _write(self, path: Path, arrays: Model, facts: dict[str, str]) -> None:
        """Write a file. A full disk ends the keeping and not the run: the update was taken in."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_model(path, arrays, facts, durable=False)
            self._left -= path.stat().st_size
            if self._left < 0:  # by the file's header
                self._stop_keeping()
        except (OSError, ModelError) as error:
            logger.warning("no updates are kept from round=%d on: %s", self._number, error)
            self._stop_keeping()

    def _stop_keeping(self) -> None:
        self._is_keeping = False
        _forget_from(self._folder, self._number)

    def _has_room(self, arrays: Iterable[Tensor]) -> bool:
        return sum(array.numel() * array.element_size() for array in arrays) <= self._left


def _as_file(update: SiteUpdate) -> tuple[Parameters, dict[str, str]]:
    """Return what a strategy needs of an update, as arrays and facts."""
    arrays = {_MODEL + name: tensor for name, tensor in update.parameters.items()}
    arrays |= {_AUXILIARY + name: tensor for name, tensor in update.auxiliary.items()}
    return arrays, {
        "site": update.site,
        "digest": update.digest,
        "round": str(update.round),
        "attempt": str(update.attempt),
        "examinations": str(update.examinations),
        "updates": str(update.updates),
    }


def read_updates(folder: Path, number: int) -> tuple[SiteUpdate, ...]:
    """Return a round's updates in the order in which they were taken in.

    Raises:
        ModelError: A file is absent or damaged.
    """
    return tuple(_read(path) for path in sorted(_place(folder, number).glob("*.safetensors")))


def read_start(folder: Path) -> Parameters:
    """Return the model that the first round started from.

    Raises:
        ModelError: The file is absent or damaged.
    """
    return load_model(folder / _START).parameters


def kept_rounds(folder: Path) -> tuple[int, ...]:
    """Return the rounds that are kept, from the first on without a gap."""
    found = sorted(_number(path) for path in folder.glob("round-*"))
    return tuple(number for place, number in enumerate(found, 1) if number == place)


def _read(path: Path) -> SiteUpdate:
    arrays, facts = load_model(path)
    return SiteUpdate(
        site=facts["site"],
        digest=facts["digest"],
        round=int(facts["round"]),
        attempt=int(facts["attempt"]),
        parameters=under(_MODEL, arrays),
        examinations=int(facts["examinations"]),
        updates=int(facts["updates"]),
        seconds=0.0,
        training_loss=float("nan"),
        auxiliary=under(_AUXILIARY, arrays),
    )


def _place(folder: Path, number: int) -> Path:
    return folder / f"round-{number:05d}"


def _number(path: Path) -> int:
    return int(path.name.removeprefix("round-"))


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def _forget_from(folder: Path, number: int) -> None:
    for path in folder.glob("round-*"):
        if _number(path) >= number:
            shutil.rmtree(path, ignore_errors=True)
