"""All trackers of a user at once: whatever fails is noted in words, and tried again later."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from wardround.common.errors import install_command, is_full_disk
from wardround.common.monitoring.trackers.course import Course
from wardround.common.monitoring.trackers.user_file import TrackTable
from wardround.common.runtime.system.files import PLAINLY

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 60.0


@contextmanager
def quieten_packages() -> Iterator[int]:
    """Have nothing that trackers' packages print seen, for an address may hold a token.

    Yields:
        A descriptor of the standard output as it was.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    nothing = os.open(os.devnull, os.O_WRONLY | PLAINLY)
    try:
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        yield kept[0]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(nothing)


class Tracker(Protocol):
    """What is told of runs."""

    def write(self, course: Course) -> None:
        """Write what it does not have yet of a run."""

    def close(self) -> None:
        """Let go of files and connections."""


@dataclass(slots=True)
class _Told:
    """One tracker, and how it stands with it."""

    title: str
    place: str
    extra: str
    open: Callable[[], Tracker]
    tracker: Tracker | None = None
    problem: str = ""
    pause: float = field(default=0.0)
    again_at: float = field(default=0.0)


class Tracking:
    """The trackers that a user's file names."""

    def __init__(self, table: TrackTable) -> None:
        self._told = list(_opened_late(table))

    def write(self, course: Course, is_last: bool = False) -> None:
        """Tell each tracker; one that failed a moment ago is left alone for a while.

        Args:
            is_last: Whether to try each now, whatever was before.
        """
        for told in self._told:
            if is_last or time.monotonic() >= told.again_at:
                _write(told, course)

    def close(self) -> None:
        """Let go of all."""
        for told in self._told:
            if told.tracker is not None:
                try:
                    told.tracker.close()
                except Exception as error:
                    _note(told, error)

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each tracker that does not have everything."""
        return tuple(told.problem for told in self._told if told.problem)


def _write(told: _Told, course: Course) -> None:
    try:
        if told.tracker is None:
            told.tracker = told.open()
        told.tracker.write(course)
    except Exception as error:  # whatever a tracker's package raises: it must not matter
        _note(told, error)
    else:
        told.problem, told.pause = "", 0.0


def _note(told: _Told, error: Exception) -> None:
    """Keep why a tracker failed in words of ours: its own may hold an address with a token."""
    told.problem = f"{told.title} ({told.place}) was not told everything: {_reason(told, error)}"
    told.pause = min(max(2 * told.pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
    told.again_at = time.monotonic() + told.pause


def _reason(told: _Told, error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"its package is not installed. Run {install_command(told.extra)}."
    if is_full_disk(error):
        return "the disk is full or cannot be written. Make room there."
    if isinstance(error, PermissionError):
        return "this account may not write there. Give it the right, or name another place."
    return (
        f"it does not answer, or refuses ({type(error).__name__}). Check that it runs, the "
        "address, and your right to write there."
    )


def _opened_late(table: TrackTable) -> list[_Told]:
    """Return the trackers; the package of each is imported when it is told the first time."""
    told = []
    if (mlflow := table.mlflow) is not None:

        def open_mlflow() -> Tracker:
            from wardround.common.monitoring.trackers.mlflow_tracker import MlflowTracker

            return MlflowTracker(mlflow)

        told.append(_Told("MLflow", mlflow.shown, "track", open_mlflow))
    if (board := table.tensorboard) is not None:

        def open_tensorboard() -> Tracker:
            from wardround.common.monitoring.trackers.tensorboard_tracker import TensorboardTracker

            return TensorboardTracker(board)

        told.append(_Told("TensorBoard", board.folder, "track", open_tensorboard))
    if (wandb := table.wandb) is not None:

        def open_wandb() -> Tracker:
            from wardround.common.monitoring.trackers.wandb_tracker import WandbTracker

            return WandbTracker(wandb)

        place = "online" if wandb.online else wandb.folder
        told.append(_Told("Weights & Biases", place, "wandb", open_wandb))
    return told
