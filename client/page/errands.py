"""The errands of a page: processes that take a while, at most one of each kind, and what they said.

Nothing of them is waited for by whoever looks at the page.
"""

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

_MODULE = "wardround.client.page.errand"
_DAY = 86_400.0
_LONGEST_SECONDS = {
    "explain": 400.0,  # each accounting in it has a limit of its own, of two minutes
    "approve": 400.0,
    "reject": 60.0,
    "check": _DAY,
    "doctor": _DAY,
}
_ENDED = "its process ended before it was done (out of memory?): try it again."
_TOO_LONG = "it took longer than {:g} s and was ended: try 'wardround site {}' in a terminal."


@dataclass(frozen=True, slots=True)
class Errand:
    """How an errand stands.

    Attributes:
        name: A key of ERRANDS.
        about: The digest of the study that it is about; "" for none.
        began: By the clock.
        done: And ``count``: how far it is; 0 of 0 where it does not say.
        said: What it said; None until it has.
        error: Why it said nothing; "" for no reason.
    """

    name: str
    about: str
    began: float
    done: int = 0
    count: int = 0
    said: dict[str, object] | None = None
    error: str = ""

    @property
    def is_running(self) -> bool:
        """Whether it has said nothing yet."""
        return self.said is None and not self.error


class Errands:
    """Starts them, listens to them, ends them with the page.

    Args:
        site: The site folder.
    """

    def __init__(self, site: Path) -> None:
        self._site = site
        self._last: dict[str, Errand] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._listening: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def last(self, name: str) -> Errand | None:
        """Return the last errand of a kind, which may still run."""
        with self._lock:
            return self._last.get(name)

    def start(self, name: str, about: str = "", mark: str = "") -> bool:
        """Start an errand, unless one of its kind runs; return whether it was started."""
        with self._lock:
            before = self._last.get(name)
            if before is not None and before.is_running:
                return False
            words = [sys.executable, "-m", _MODULE, name, str(self._site), about, mark]
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # what an image library says may name a file
            )
            self._processes[name] = process
            self._last[name] = Errand(name, about, time.time())
            thread = threading.Thread(target=self._listen, args=(name, process), daemon=True)
            self._listening[name] = thread
        thread.start()
        return True

    def do(self, name: str, about: str = "", mark: str = "") -> Errand | None:
        """Do an errand to its end; None where one of its kind runs."""
        if not self.start(name, about, mark):
            return None
        self._listening[name].join()
        return self.last(name)

    def forget(self, name: str) -> None:
        """Forget what an errand of a kind said, if it does not run."""
        with self._lock:
            known = self._last.get(name)
            if known is not None and not known.is_running:
                del self._last[name]

    def close(self) -> None:
        """End those that run."""
        with self._lock:
            processes = list(self._processes.values())
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def _listen(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        limit, was_ended = _LONGEST_SECONDS[name], threading.Event()

        def end() -> None:
            was_ended.set()
            process.kill()

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()
        with process:
            for line in process.stdout or ():
                self._hear(name, line)
        timer.cancel()
        why = _TOO_LONG.format(limit, name) if was_ended.is_set() else _ENDED
        with self._lock:
            known = self._last.get(name)
            if known is not None and known.is_running:
                self._last[name] = replace(known, error=why)

    def _hear(self, name: str, line: bytes) -> None:
        try:
            content = json.loads(line)
        except ValueError:
            return
        if not isinstance(content, dict):
            return
        with self._lock:
            known = self._last.get(name)
            if known is not None and known.is_running:
                self._last[name] = _told(known, content)


def _told(known: Errand, content: dict[str, object]) -> Errand:
    """Return how an errand stands once its process has said something."""
    progress, said = content.get("progress"), content.get("said")
    if isinstance(progress, list):
        done, count = progress
        return replace(known, done=int(done), count=int(count))
    if isinstance(said, dict):
        return replace(known, said=said)
    return replace(known, error=str(content.get("error", _ENDED)))
