"""How worker processes start, and what the first thing is that each does."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from wardround.common.runtime.system.processes import end_with_parent
from wardround.common.runtime.system.signals import leave_signals_to_parent
from wardround.common.runtime.system.workers import choose_start, is_served
from wardround.simulations.run_files.events import continue_log, open_log

if TYPE_CHECKING:
    from wardround.common.runtime.system.workers import StartContext

_PRELOADED = [
    "wardround.simulations.engines.preloaded",
    "wardround.simulations.engines.pool_worker",
    "wardround.simulations.experiment.baselines",
]


def choose_context(devices: Sequence[str]) -> "StartContext":
    """Return how processes that work on these devices start."""
    return choose_start(any(device.startswith("cuda") for device in devices), _PRELOADED)


def start(
    context: "StartContext", target: Callable[..., None], arguments: tuple[object, ...]
) -> BaseProcess:
    """Start a process that writes to this one's log and does not run the user's script again.

    It ends with this one, even if this one is killed, and leaves signals from outside to it.

    A process that is not forked would import the main module first: a script that begins a
    simulation on its outermost level would begin another one in each worker.
    """
    # A server of forks is the parent of its processes, and ends with this one.
    parent = None if is_served(context) else os.getpid()
    words = (parent, open_log(), target, arguments)
    process = context.Process(target=_begin, args=words, daemon=True)
    with _without_main():
        process.start()
    return process


def _begin(
    parent: int | None,
    log: Path | None,
    target: Callable[..., None],
    arguments: tuple[object, ...],
) -> None:
    end_with_parent(os.getppid() if parent is None else parent)
    leave_signals_to_parent()
    continue_log(log)
    target(*arguments)


@contextmanager
def _without_main() -> Iterator[None]:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
