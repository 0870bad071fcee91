"""How processes that compute for this one start and are told to stop, as far as the system can.

A fork shares what is imported and costs nothing. But a process whose OpenMP threads have computed
must not be forked: the child has the books of a thread pool without its threads, and waits for them
for ever at its first parallel loop. That is so in a notebook after any computation, and in a
process that runs a second simulation. So it is tried out first.
"""

import multiprocessing
import os
import select
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, TypeAlias

import torch

if TYPE_CHECKING:
    from multiprocessing.context import ForkContext, ForkServerContext, SpawnContext

    StartContext: TypeAlias = ForkContext | ForkServerContext | SpawnContext

_TRIAL_SECONDS = 2.0  # a parallel loop over a million numbers takes a thousandth of it
_TRIAL_NUMBERS = 2**20  # torch shares a loop out from 2**15 numbers on
_THREADS_HAVE_RUN = threading.Event()


def choose_start(on_gpu: bool, preloaded: Sequence[str]) -> "StartContext":
    """Return how processes start: forked where that is safe, else as cheaply as the system can.

    Args:
        on_gpu: Whether they work on a GPU: no CUDA context survives a fork.
        preloaded: Modules that a server of forks imports once for all.
    """
    if on_gpu:
        return multiprocessing.get_context("spawn")
    if can_fork():
        return multiprocessing.get_context("fork")
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preloaded))
    return context


def is_forked(context: "StartContext") -> bool:
    """Whether its processes share this one's memory as it is."""
    return context.get_start_method() == "fork"


def is_served(context: "StartContext") -> bool:
    """Whether another process is the parent of its processes."""
    return context.get_start_method() == "forkserver"


def can_fork() -> bool:
    """Return whether a forked child of this process could compute with threads; it is tried out."""
    if not hasattr(os, "fork") or _THREADS_HAVE_RUN.is_set():
        return False
    if _is_single_threaded():
        return True
    if not _child_computes():
        _THREADS_HAVE_RUN.set()  # and stay: another trial would come to the same
    return not _THREADS_HAVE_RUN.is_set()


def interrupt_worker(process_id: int | None) -> None:
    """Tell a worker to leave what it is at; where there is no such signal, it finishes it first."""
    if process_id is None or not hasattr(signal, "SIGUSR1"):
        return
    with suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGUSR1)


def start_tracker() -> None:
    """Start the one tracker of all processes: it frees the shared memory, whoever is killed.

    It ignores the signals that end a process, except for that of a terminal that closes; it does
    not see what is blocked when it starts. Where the system itself frees shared memory there is
    none.
    """
    if not hasattr(signal, "pthread_sigmask"):
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
