"""A page's commands, run one by one in a folder; what is left out at the end fails the test."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.pages.blocks import blocks_of
from tests.pages.told import CANNOT, ELSEWHERE, LANGUAGES
from tests.support.stage import ENVIRONMENT, wait_until

PATIENCE_SECONDS = 300.0
_FINE = (0,)


def untold(page: str) -> list[str]:
    """Return the parts of a page that no row of ``told.py`` excuses, in their order."""
    rows = [row for row in (*ELSEWHERE, *CANNOT) if row[0] == page]
    return [
        part
        for block in blocks_of(page)
        for part in block.parts()
        if block.language not in LANGUAGES and not any(block.begins(part, row[1]) for row in rows)
    ]


@dataclass
class Place:
    """A folder in which commands run; what goes on is ended with the test.

    Attributes:
        environment: Of the commands, beside this process's.
    """

    folder: Path
    restore_signals: Callable[[], None]
    environment: dict[str, str] = field(default_factory=dict)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, command: str, fine: tuple[int, ...] = _FINE, typed: str = "") -> str:
        """Run a command as a shell does, and return what it says."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environment(),
            input=typed,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode in fine, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def begin(self, command: str, says: str) -> subprocess.Popen[bytes]:
        """Start what goes on until Ctrl-C; return once it says that it serves."""
        path = self.folder / f"terminal-{len(self.running)}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self._environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=self.restore_signals,
            )
        self.running.append(process)
        wait_until(lambda: process.poll() is not None or re.search(says, path.read_text()))
        assert re.search(says, path.read_text()), f"{command}\n{path.read_text()}"
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Press Ctrl-C; all that serves ends with 0."""
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        self.running.remove(process)

    def close(self) -> None:
        for process in reversed(self.running):
            process.send_signal(signal.SIGINT)
        for process in self.running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()

    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        cache = str(self.folder / "cache")
        return {**ENVIRONMENT, "PATH": path, "WARDROUND_CACHE": cache, **self.environment}


@dataclass
class Story:
    """What is left of a page to be run.

    Attributes:
        named: What stands in the test for a placeholder, a path or an address of the page.
        less: Options that are added to a command that begins so; the last option of a kind wins.
    """

    place: Place
    left: list[str]
    named: Mapping[str, str]
    less: Mapping[str, str] = field(default_factory=dict)

    def take(self, words: str = "") -> str:
        """Return the first command left that begins so, as the test runs it."""
        part = next((one for one in self.left if one.startswith(words)), None)
        assert part is not None, f"the page has no {words!r} that is left of {self.left}"
        self.left.remove(part)
        more = " ".join(options for begins, options in self.less.items() if begins in part)
        for placeholder, name in self.named.items():
            part = part.replace(placeholder, name)
        return f"{part} {more}".rstrip()

    def do(self, words: str = "", fine: tuple[int, ...] = _FINE, typed: str = "") -> str:
        return self.place.run(self.take(words), fine, typed)

    def begin(self, words: str, says: str) -> subprocess.Popen[bytes]:
        return self.place.begin(self.take(words), says)

    def rest(self) -> None:
        """Run all that is left, in the order of the page."""
        while self.left:
            self.do()


@contextmanager
def followed(
    page: str, place: Place, named: Mapping[str, str] = {}, less: Mapping[str, str] = {}
) -> Iterator[Story]:
    """Give the commands of a page; each of them has been run at the end."""
    story = Story(place, untold(page), named, less)
    assert story.left
    yield story
    assert not story.left, f"{page} says more than was run"
