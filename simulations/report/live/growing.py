"""Files of one JSON value a line that grow while they are read: each line is read once."""

import json
from pathlib import Path
from typing import Any

from wardround.common.files.json_lines import split_lines

_MOST_BYTES = 8_000_000  # of one look; the rest comes with the next


class GrowingFile:
    """What was added to a file since the last look; a file that was cut is read from its start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._last = b""  # the last line that was read: it must still be there

    def news(self) -> tuple[list[Any], bool]:
        """Return the values of new whole lines, and whether they are all lines from the start.

        A line that is not JSON is left out.
        """
        try:
            with self._path.open("rb") as stream:
                is_anew = not self._continues(stream.seek(0, 2), stream)
                if is_anew:
                    self._read, self._last = 0, b""
                stream.seek(self._read)
                lines, torn = split_lines(stream.read(_MOST_BYTES))
                self._read = stream.tell() - len(torn)
        except OSError:
            return [], False
        if lines:
            self._last = lines[-1] + b"\n"
        return [value for line in lines if (value := _value(line)) is not None], is_anew

    def _continues(self, length: int, stream: Any) -> bool:  # an open binary file
        """Return whether the file still begins with what was read of it."""
        if length < self._read:
            return False
        if not self._last:
            return self._read > 0
        stream.seek(self._read - len(self._last))
        return bool(stream.read(len(self._last)) == self._last)


def _value(line: bytes) -> Any:  # whatever JSON holds
    try:
        return json.loads(line)
    except ValueError:
        return None
