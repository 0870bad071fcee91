"""What the signals that end a process do: to a command, and to the processes that it started.

A signal that was ignored when the command began stays ignored, as with other Unix programs: a shell
has a job in the background ignore Ctrl-C, and ``nohup`` has it ignore that its terminal closes.
Which of them a system does not have is not listened for.
"""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

_AGAIN_SECONDS = 0.05
_ENDING: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_FROM_OUTSIDE = (*_ENDING, signal.SIGINT)


def heard_signals(numbers: Iterable[signal.Signals] = _FROM_OUTSIDE) -> list[signal.Signals]:
    """Return those of the signals that end a command which this process does not ignore."""
    return [one for one in numbers if signal.getsignal(one) != signal.SIG_IGN]


def ignore_ctrl_c() -> None:
    """Leave Ctrl-C to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Take SIGTERM (Slurm, systemd, ``timeout``) and a terminal that closes for Ctrl-C.

    The first one counts: those that follow, while the work is put away, are not heard. One that
    meets code which can raise nothing, such as an object's end, is heard again a moment later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are not this thread's
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        _give_time_to_end()
        raise KeyboardInterrupt

    def hear_again(lost: "sys.UnraisableHookArgs") -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt) or not before:
            show(lost)
            return
        number = next(iter(before))
        signal.signal(number, interrupt)
        threading.Timer(_AGAIN_SECONDS, _signal_main_thread, (number,)).start()

    heard, show = heard_signals(_ENDING), sys.unraisablehook
    before = {one: signal.getsignal(one) for one in heard}
    for one in heard:
        signal.signal(one, interrupt)
    sys.unraisablehook = hear_again
    try:
        yield
    finally:
        sys.unraisablehook = show
        for one, handler in before.items():
            signal.signal(one, handler or signal.SIG_DFL)


def take_back_signals() -> None:
    """Have Python hear again of what ends a process where a library hears of it first.

    Ray, for one, puts a handler of its own below Python's once it has begun: it writes a dump on
    the screen, and aborts the process three seconds later, report or no report.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # signals are not this thread's
    for one in _ENDING:
        if (handler := signal.getsignal(one)) is not None:
            signal.signal(one, handler)


def _give_time_to_end() -> None:
    """Call off what a library that heard of the signal first has set for the process's end."""
    if hasattr(signal, "alarm"):
        signal.alarm(0)


def raise_if_ctrl_c(error: BaseException) -> None:
    """Go on ending where a library has wrapped Ctrl-C in an error of its own.

    Pydantic does so where the signal comes while it writes a model: one in ten of such moments.

    Raises:
        KeyboardInterrupt: It has.
    """
    if isinstance(error, Exception) and is_ctrl_c(error):
        raise KeyboardInterrupt from error


def is_ctrl_c(error: BaseException) -> bool:
    """Return whether an error is Ctrl-C, or is another one for no other reason."""
    if isinstance(error, KeyboardInterrupt):
        return True
    # Pydantic names it as the cause, or, within a call to a function such as str, in words alone.
    wrapped = type(error).__name__ == "PydanticSerializationError"
    said = wrapped and str(error).rstrip().endswith("KeyboardInterrupt:")
    return said or isinstance(error.__cause__, KeyboardInterrupt)


def _signal_main_thread(number: signal.Signals) -> None:
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)  # ends a sleep, too
    else:
        _thread.interrupt_main(number)


def interrupted_when_terminated() -> None:
    """Take SIGTERM for Ctrl-C from here on; the first one counts."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def leave_signals_to_parent(asked_to_end: Callable[[], None] | None = None) -> None:
    """Let the process that started this one decide what becomes of its work.

    A terminal, Slurm and systemd signal every process at once. If a worker ended by itself, its
    parent could take that for a fault of a site before it hears the signal.

    Args:
        asked_to_end: Is called at SIGUSR1, which the parent sends.
    """
    for one in _FROM_OUTSIDE:
        signal.signal(one, signal.SIG_IGN)
    if asked_to_end is not None and hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, lambda *_: asked_to_end())


def obeyed_once(ask: Callable[[], object]) -> None:
    """Ask a process to end at the first signal; the second one ends it at once.

    Args:
        ask: What a signal interrupts may hold any lock, so it does no more than to wake a thread.
    """
    numbers: list[int] = []

    def obey(number: int, frame: FrameType | None) -> None:
        if numbers:
            os._exit(128 + number)
        numbers.append(number)
        ask()

    for one in heard_signals():
        signal.signal(one, obey)


@contextmanager
def told_to_stop() -> Iterator[Callable[[], bool]]:
    """Give a question, whether a signal has said that this process is to end."""
    told = threading.Event()
    before = {one: signal.signal(one, lambda *_: told.set()) for one in heard_signals()}
    try:
        yield told.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_loop_when_told(loop: "AbstractEventLoop", stop: Callable[[], None]) -> None:
    """Call what stops the work of an event loop at SIGTERM and at Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
