"""Several runs at a time: each in a process of its own with one core, for they share nothing."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, TypeAlias

from wardround.common.errors import RunError, WardroundError
from wardround.common.runtime.system.limits import cores, threads_each
from wardround.simulations.engines.start_method import choose_context, start
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.run_files.events import Event, Watch

if TYPE_CHECKING:
    from wardround.common.runtime.system.workers import StartContext

Work = Callable[[str, Machine, Watch], None]
# A run's process sends its events, then None; or the reason why it failed.
_Word: TypeAlias = Event | tuple[type[WardroundError], str] | None
_Pipe: TypeAlias = "Connection[_Word, _Word]"


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs that are to be made, and how.

    Attributes:
        names: Of the runs, the first ones first.
        work: Makes one run; it is importable, for it travels to another process.
        named: Returns the watch of one run.
    """

    names: Sequence[str]
    work: Work
    named: Callable[[str], Watch]


def run_all(runs: Runs, machine: Machine) -> None:
    """Make all runs: on the CPU as many at a time as cores allow, else one after the other.

    Raises:
        RunError: One failed; what the others have done stays.
    """
    most = min(len(runs.names), machine.workers or cores())
    is_free = machine.engine == "auto" and machine.devices_for(2)[0] == "cpu"
    if most < 2 or not is_free:
        for name in runs.names:
            runs.work(name, machine, runs.named(name))
        return
    alone = replace(
        machine, engine="in-process", workers=1, threads=machine.threads or threads_each(most)
    )
    waiting, context = deque(runs.names), choose_context(("cpu",) * most)
    running: dict[_Pipe, tuple[BaseProcess, str]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < most:
                name = waiting.popleft()
                pipe, process = _start(context, runs.work, name, alone)
                running[pipe] = process, name
            for pipe in [p for p in running if p in wait(list(running))]:
                _listen(pipe, running, runs)
    finally:
        for process, _ in running.values():
            process.kill()  # its run is kept as far as it came, and goes on when it is resumed
            process.join()


def _listen(pipe: _Pipe, running: dict[_Pipe, tuple[BaseProcess, str]], runs: Runs) -> None:
    process, name = running[pipe]
    try:
        word = pipe.recv()
    except EOFError:
        word = RunError, "its process ended (out of memory?)."
    if isinstance(word, tuple):
        kind, reason = word
        msg = f"the run {name} failed: {reason}"
        raise kind(msg)
    if word is None:
        running.pop(pipe)
        process.join()
        pipe.close()
    else:
        runs.named(name)(word)


def _start(
    context: "StartContext", work: Work, name: str, machine: Machine
) -> tuple[_Pipe, BaseProcess]:
    ours, theirs = context.Pipe(duplex=False)
    process = start(context, _work, (theirs, work, name, machine))
    theirs.close()
    return ours, process


def _work(pipe: _Pipe, work: Work, name: str, machine: Machine) -> None:
    try:
        work(name, machine, pipe.send)
        pipe.send(None)
    except WardroundError as error:
        pipe.send((type(error), str(error)))
