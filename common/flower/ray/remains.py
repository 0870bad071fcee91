"""What a Ray that this process started leaves behind: its processes are ended, however Ray ends.

Ray asks its actors to leave and does not look whether they do: one that is in a long call, or on a
busy machine, outlives its run. Written against Ray 2.55; the contracts are in
``tests/unit/common/flower/ray/test_remains.py``.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import suppress

import ray  # noqa: F401  (psutil comes with it, and is found once it is imported)

import psutil  # isort: skip

from wardround.common.flower.ray.isolation import MARK

logger = logging.getLogger(__name__)
_RAYLET = "RAY_RAYLET_PID"  # Ray tells its workers so whose they are
_TITLE = "ray::"  # of a worker, before what it does
_LEAVE_SECONDS = 3.0  # an actor that was asked needs one
_TERMINATE_SECONDS = 2.0
_KILL_SECONDS = 10.0


class RayProcesses:
    """The processes of the one Ray that lives in a folder, and no others.

    Args:
        folder: Of this Ray alone; what it starts inherits its name as ``MARK``.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._noted: set[psutil.Process] = set()

    def note(self) -> None:
        """Remember those that are there: once the first of them have gone, a family is torn."""
        for process in psutil.Process().children():
            with suppress(psutil.Error):
                if any(self._folder in word for word in process.cmdline()):
                    self._noted |= {process, *process.children(recursive=True)}
        self._noted |= set(self._marked())

    def end(self) -> None:
        """End those that are left: they are waited for, asked, and killed."""
        self.note()
        _, left = psutil.wait_procs(self._noted, timeout=_LEAVE_SECONDS)
        self.note()  # a worker that was being made meanwhile
        left = [process for process in self._noted if _runs(process)]
        if not left:
            return
        logger.warning("processes of Ray were left and are ended: count=%d", len(left))
        for process in left:
            with suppress(psutil.Error):
                process.terminate()
        _, left = psutil.wait_procs(left, timeout=_TERMINATE_SECONDS)
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=_KILL_SECONDS)

    def _marked(self) -> Iterator[psutil.Process]:
        """Yield Ray's workers, also those whose parent has gone."""
        for process in psutil.process_iter(["cmdline", "environ"]):
            if process.pid == os.getpid():
                continue
            environment = process.info["environ"] or {}  # others' are not shown
            is_here = environment.get(MARK) == self._folder
            if (process.info["cmdline"] or [""])[0].startswith(_TITLE):
                # A title may be written over the environment; a worker's log is always open.
                if is_here or self._writes_here(process):
                    yield process
            # Whatever else this process starts meanwhile has the mark, too.
            elif is_here and environment.get(_RAYLET) != os.environ.get(_RAYLET):
                yield process

    def _writes_here(self, process: psutil.Process) -> bool:
        inside = os.path.join(self._folder, "")
        with suppress(psutil.Error, OSError):
            return any(file.path.startswith(inside) for file in process.open_files())
        return False


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
