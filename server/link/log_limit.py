"""A log that a stranger cannot fill: so many lines of a kind a minute, the others are counted."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_MOST_LINES = 5
_WINDOW_SECONDS = 60.0
_MOST_KINDS = 64
_MOST_CHARACTERS = 4000  # of a message with its values
_OTHERS = ("other loggers", "")


@dataclass(slots=True)
class _Kind:
    """What was seen of one kind of line since a moment."""

    since: float
    lines: int = 0
    left_out: int = 0


class LogLimit(logging.Filter):
    """Lets five lines of a kind pass a minute; add it to a handler.

    A kind is a logger with the first line of a template, whatever its values; asyncio's templates
    have their values in the lines below. The first line of a later minute ends with how many were
    left out; :meth:`report` says it where no such line comes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is written."""
        with self._lock:
            kind, left_out = self._look(record)
            kind.lines += 1
            if kind.lines > _MOST_LINES:
                kind.left_out += 1
                return False
        text = record.getMessage()[:_MOST_CHARACTERS]
        record.msg, record.args = text + _suffix(left_out), ()
        return True

    def report(self) -> list[str]:
        """Return a line for each kind whose minute is over and that was left out since."""
        lines = []
        with self._lock:
            for (logger, template), kind in list(self._kinds.items()):
                if self._clock() - kind.since >= _WINDOW_SECONDS:
                    del self._kinds[logger, template]
                    if kind.left_out:
                        lines.append(f"{kind.left_out} more of {logger}: {template!r}")
        return lines

    def _look(self, record: logging.LogRecord) -> tuple[_Kind, int]:
        """Return a line's kind, and how many were left out in its last minute."""
        name, now = (record.name, str(record.msg).strip().partition("\n")[0][:200]), self._clock()
        if name not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            name = _OTHERS
        kind = self._kinds.get(name)
        if kind is not None and now - kind.since < _WINDOW_SECONDS:
            return kind, 0
        self._kinds[name] = new = _Kind(now)
        return new, 0 if kind is None else kind.left_out


def _suffix(left_out: int) -> str:
    return f" (and {left_out} like this one before)" if left_out else ""
