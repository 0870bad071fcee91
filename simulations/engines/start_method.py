"""How worker processes start: forked where that is safe, else from a server that has no threads.

A fork shares what is imported and costs nothing. But a process whose OpenMP threads have computed
must not be forked: the child has the books of a thread pool without its threads, and waits for them
for ever at its first parallel loop. That is so in a notebook after any computation, and in a
process that runs a second simulation.
"""

import multiprocessing
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkContext, ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

import torch

from wardround.common.runtime.processes import end_with_parent
from wardround.common.runtime.signals import leave_signals_to_parent
from wardround.simulations.run_files.events import continue_log, open_log

StartContext = ForkContext | ForkServerContext | SpawnContext
_TRIAL_SECONDS = 2.0  # a parallel loop over a million numbers takes a thousandth of it
_TRIAL_NUMBERS = 2**20  # torch shares a loop out from 2**15 numbers on
_THREADS_HAVE_RUN = threading.Event()
_PRELOADED = [
    "wardround.simulations.engines.preloaded",
    "wardround.simulations.engines.pool_worker",
    "wardround.simulations.experiment.baselines",
]


def choose_context(devices: Sequence[str]) -> StartContext:
    """Return how processes that work on these devices start."""
    if any(device.startswith("cuda") for device in devices):
        return multiprocessing.get_context("spawn")  # no CUDA context survives a fork
    if can_fork():
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)  # imported once for all workers
    return context


def can_fork() -> bool:
    """Return whether a forked child of this process could compute with threads; it is tried out."""
    if not hasattr(os, "fork") or _THREADS_HAVE_RUN.is_set():
        return False
    if _is_single_threaded():
        return True
    if not _child_computes():
        _THREADS_HAVE_RUN.set()  # and stay: another trial would come to the same
    return not _THREADS_HAVE_RUN.is_set()


def start(
    context: StartContext, target: Callable[..., None], arguments: tuple[object, ...]
) -> BaseProcess:
    """Start a process that writes to this one's log and does not run the user's script again.

    It ends with this one, even if this one is killed, and leaves signals from outside to it.

    A process that is not forked would import the main module first: a script that begins a
    simulation on its outermost level would begin another one in each worker.
    """
    # A server of forks is the parent of its processes, and ends with this one.
    parent = None if isinstance(context, ForkServerContext) else os.getpid()
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


def _is_single_threaded() -> bool:
    """Return whether this process never had a pool of threads, whose threads would still be there.

    Then there is nothing to try out, which would take a tenth of a second at each start.
    """
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:  # no such list here
        return False


def _child_computes() -> bool:
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        _try_threads(theirs)
    os.close(theirs)
    try:
        ready, _, _ = select.select([ours], [], [], _TRIAL_SECONDS)
        return bool(ready) and os.read(ours, 1) == b"1"
    finally:
        os.close(ours)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _try_threads(pipe: int) -> None:
    """Compute with two threads, say so, and end this process without a clean-up of the parent's."""
    try:
        torch.set_num_threads(2)
        torch.ones(_TRIAL_NUMBERS).add_(1)
        os.write(pipe, b"1")
    finally:
        os._exit(0)


@contextmanager
def _without_main() -> Iterator[None]:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
