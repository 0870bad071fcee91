"""What the signals that end a process do: to a command, and to the processes that it started.

A signal that was ignored when the command began stays ignored, as with other Unix programs: a shell
has a job in the background ignore Ctrl-C, and ``nohup`` has it ignore that its terminal closes.
"""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = tuple(
    signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if name in signal.Signals.__members__
)
_FROM_OUTSIDE = (*_ENDING, signal.SIGINT)


def heard_signals(numbers: Iterable[signal.Signals] = _FROM_OUTSIDE) -> list[signal.Signals]:
    """Return those of the signals that end a command which this process does not ignore."""
    return [one for one in numbers if signal.getsignal(one) != signal.SIG_IGN]


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Take SIGTERM (Slurm, systemd, ``timeout``) and a terminal that closes for Ctrl-C.

    The first one counts: those that follow, while the work is put away, are not heard.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are not this thread's
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    heard = heard_signals(_ENDING)
    before = {one: signal.getsignal(one) for one in heard}
    for one in heard:
        signal.signal(one, interrupt)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler or signal.SIG_DFL)


def leave_signals_to_parent(asked_to_end: Callable[[], None] | None = None) -> None:
    """Let the process that started this one decide what becomes of its work.

    A terminal, Slurm and systemd signal every process at once. If a worker ended by itself, its
    parent could take that for a fault of a site before it hears the signal.

    Args:
        asked_to_end: Is called at SIGUSR1, which the parent sends.
    """
    for one in _FROM_OUTSIDE:
        signal.signal(one, signal.SIG_IGN)
    if asked_to_end is not None:
        signal.signal(signal.SIGUSR1, lambda *_: asked_to_end())
