"""Clocks of a stage's processes that can be put wrong, each by itself, while they run."""

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.faults.not_here import NotHereError

_SOURCE = Path(__file__).parent / "planted" / "clock.c"
CLOCKS = "WARDROUND_FAULT_CLOCKS"  # the environment's name for the folder of the clocks


class WrongClocks:
    """Files that say by how much a clock is wrong, and the library that obeys them.

    Raises:
        NotHereError: There is no C compiler.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._library = folder, folder / "clock.so"
        if self._library.exists():
            return
        compiler = shutil.which("cc")
        if compiler is None:
            msg = "no C compiler"
            raise NotHereError(msg)
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(_SOURCE)]
        subprocess.run(command, check=True, timeout=60)

    @property
    def environment(self) -> Mapping[str, str]:
        """What processes need in their environment, beside a clock that was put before."""
        return {"LD_PRELOAD": str(self._library), CLOCKS: str(self._folder)}

    def put(self, name: str, seconds: int) -> None:
        """Put a clock ahead by some seconds, behind if there are fewer than none; at once.

        Args:
            name: Of a site, or "server".
        """
        path = self._folder / name
        path.touch()
        with path.open("r+b") as stream:
            stream.write(struct.pack("q", seconds))
