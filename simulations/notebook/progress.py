"""How far a run is, in one line that is written anew in its place: in a notebook, or elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from typing import Any, Protocol

from wardround.common.errors import InputError
from wardround.simulations.run_files.event_texts import line_of, round_line
from wardround.simulations.run_files.events import (
    Event,
    RoundDone,
    SiteFailed,
    StageFinished,
    StageStarted,
    Watch,
    nobody,
    title_of,
)

_CLEAR = "\r\x1b[K"


class _Line(Protocol):
    """Somewhere that one line is shown and written anew.

    Attributes:
        least_seconds: Between two drawings of one stage: a table's rounds take milliseconds.
    """

    least_seconds: float

    def show(self, text: str, done: int, total: int) -> None:
        """Show how far the work is; ``total`` is 0 where nothing is counted."""

    def end(self, text: str) -> None:
        """Leave a last line."""


def both(*watches: Watch | None) -> Watch:
    """Return a watch that tells every one of these that is there, in their order.

    Raises:
        InputError: One cannot be called.
    """
    given: tuple[object, ...] = watches
    for one in given:
        if one is not None and not callable(one):
            msg = f"on_event cannot be {type(one).__name__}: give a function of an event, as print."
            raise InputError(msg)
    there = [one for one in watches if one is not None]

    def tell(event: Event) -> None:
        for one in there:
            one(event)

    return tell


@contextmanager
def showing(progress: bool | None, folder: Path) -> Iterator[Watch]:
    """Yield a watch that shows how far a run is; a display that has gone ends no run.

    Args:
        progress: None shows it where a notebook's kernel runs this, and nowhere else.
        folder: The run folder, which the last line names.
    """
    kernel = _display_of_kernel()
    if progress is False or (progress is None and kernel is None):
        yield nobody
        return
    line: _Line = _Stream() if kernel is None else _Cell(kernel)
    drawing = _Drawing(line)
    try:
        yield drawing.take
    except GeneratorExit:
        drawing.end(_stopped(folder))
        raise
    except KeyboardInterrupt:
        drawing.end(_stopped(folder))
        raise
    except BaseException:
        drawing.end("The run could not go on.")
        raise
    drawing.end(f"Finished in {drawing.seconds:.0f} s: {folder / 'report.html'}")


@contextmanager
def paged(is_wanted: bool, folder: Path) -> Iterator[None]:
    """Serve a run's live page while the block runs, if it is wanted, and say where."""
    if not is_wanted:
        yield
        return
    from wardround.simulations.report.live.beside import page_beside

    def tell(sentence: str) -> None:
        with suppress(OSError, ValueError):  # the terminal may have been closed
            sys.stderr.write(f"{sentence}\n")
            sys.stderr.flush()

    with page_beside(folder) as page:
        page.announce(tell)
        yield


def how_to_resume(folder: Path) -> str:
    """Return what to do with a run that was stopped."""
    if not (folder / "run.json").exists():
        return "Stopped before the first round; nothing was written."
    return f"Stopped. What is done is kept; go on with wardround.resume({str(folder)!r})."


_stopped = how_to_resume


class _Drawing:
    """Events as one line; who is left out of a round is said with it to the end of the stage."""

    def __init__(self, line: _Line) -> None:
        self._line = line
        self._began = time.monotonic()
        self._drawn = 0.0
        self._left_out = ""
        self._has_gone = False

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def take(self, event: Event) -> None:
        """Draw one event."""
        if isinstance(event, StageFinished):
            return
        if isinstance(event, SiteFailed):
            self._left_out = f" ({line_of(event)})"
        elif isinstance(event, StageStarted):
            self._left_out = ""
            self._draw(title_of(event.stage), event.done, event.rounds)
        elif event.round == event.rounds or self.seconds - self._drawn > self._line.least_seconds:
            self._draw(_round_text(event) + self._left_out, event.round, event.rounds)

    def end(self, text: str) -> None:
        """Leave a last line, if anything was drawn."""
        if self._drawn:
            self._safely(lambda: self._line.end(text))

    def _draw(self, text: str, done: int, total: int) -> None:
        self._drawn = max(self.seconds, 1e-9)
        self._safely(lambda: self._line.show(text, done, total))

    def _safely(self, draw: Callable[[], None]) -> None:
        if self._has_gone:
            return
        try:
            draw()
        except Exception:  # a kernel's or a terminal's line may break in many ways
            self._has_gone = True


def _round_text(event: RoundDone) -> str:
    left = (event.rounds - event.round) * event.seconds
    return round_line(event) + (f", about {left:.0f} s left" if left >= 1 else "")


class _Cell:
    """One output of a notebook's cell; a saved notebook holds its last state alone."""

    least_seconds = 0.1

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display = display
        self._handle: Any = None

    def show(self, text: str, done: int, total: int) -> None:
        """Show a bar, where something is counted, and the line beside it."""
        bar = f'<progress max="{total}" value="{done}"></progress> ' if total else ""
        self._put(text, f"<div>{bar}{escape(text)}</div>")

    def end(self, text: str) -> None:
        """Leave a line without a bar."""
        self._put(text, f"<div>{escape(text)}</div>")

    def _put(self, text: str, html: str) -> None:
        bundle = {"text/plain": text, "text/html": html}
        if self._handle is None:
            self._handle = self._display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


class _Stream:
    """Standard error: a terminal's line is written anew, anything else gets a line each."""

    def __init__(self) -> None:
        self._anew = sys.stderr.isatty()
        self.least_seconds = 0.1 if self._anew else 0.0

    def show(self, text: str, done: int, total: int) -> None:
        """Write a line."""
        self._write(f"{_CLEAR}{text}" if self._anew else f"{text}\n")

    def end(self, text: str) -> None:
        """Write the last one."""
        self._write(f"{_CLEAR if self._anew else ''}{text}\n")

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # the terminal may have been closed
            sys.stderr.write(text)
            sys.stderr.flush()


def _display_of_kernel() -> Callable[..., Any] | None:
    """Return IPython's ``display`` where a kernel runs this process; None elsewhere."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython
    from IPython.display import display

    shell = get_ipython()
    return display if getattr(shell, "kernel", None) is not None else None
