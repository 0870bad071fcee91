"""A simulation's live page, served beside it by a process of its own."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_END_SECONDS = 12.0  # readers are shown what came of it, for which the report's numbers are read
_MODULE = "wardround.simulations.report.live.watcher"
_NO_PAGE = "its process ended at once."


class PageBeside:
    """The page of a run that this process makes."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", _MODULE, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._said: dict[str, str] | None = None

    @property
    def link(self) -> str:
        """What to open in a browser, once it is served; "" if it could not be."""
        return self._hear().get("link", "")

    @property
    def trouble(self) -> str:
        """Why it could not be served; "" if it is."""
        return self._hear().get("error", "")

    def announce(self, tell: Callable[[str], None]) -> None:
        """Say where the page is, or why there is none: a simulation goes on without."""
        if self.link:
            tell(f"Watch it at {self.link}")
        else:
            tell(f"There is no page to watch: {self.trouble}")

    def close(self) -> None:
        """Let readers see how it ended, then end the page."""
        stdin = self._process.stdin
        if stdin is not None:
            with suppress(OSError):  # a word, since a forked process may hold the pipe open
                stdin.write(b".")
                stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _hear(self) -> dict[str, str]:
        if self._said is None:
            stream = self._process.stdout
            line = b"" if stream is None else stream.readline()
            try:
                said = json.loads(line)
            except ValueError:
                said = {"error": _NO_PAGE}
            self._said = said if isinstance(said, dict) else {"error": _NO_PAGE}
        return self._said


@contextmanager
def page_beside(folder: Path) -> Iterator[PageBeside]:
    """Serve the live page of a run folder while the block runs; it must end with the run.

    Its process is started at once and its link is there a moment later: what is asked for it before
    that waits.

    Args:
        folder: Of the run; it need not be there yet.
    """
    page = PageBeside(folder)
    try:
        yield page
    finally:
        page.close()


def watch_until_stopped(folder: Path, port: int, tell: Callable[[str], None]) -> None:
    """Serve a run's page from this process until Ctrl-C.

    Args:
        folder: Of a run or a series, at work or finished.
        port: Of this machine; 0 takes a free one.
        tell: Is given the link.

    Raises:
        InputError: The port is taken.
        RunError: The page cannot be served.
    """
    from wardround.common.html.live.serving import live_page
    from wardround.simulations.report.live.live_page import WatchedRun

    with live_page(WatchedRun(folder).page(), port) as served:
        tell(served.link)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
