"""The errands of a page: processes that take a while, at most one of each kind, and what they said.

Nothing of them is waited for by whoever looks at the page.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

_LONGEST_SECONDS = {"explain": 300.0, "approve": 300.0, "reject": 60.0}
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


@dataclass(slots=True)
class Errands:
    """Starts them, listens to them, ends them with the page.

    Args:
        site: The site folder.
        ended: Is called whenever one has said something.
    """

    site: Path
    ended: Callable[[Errand], None] = lambda errand: None
    _last: dict[str, Errand] = field(default_factory=dict)
    _processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

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
            words = [sys.executable, "-m", "wardround.client.page.errand", name, str(self.site)]
            process = subprocess.Popen(
                [*words, about, mark],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # what an image library says may name a file
            )
            self._processes[name] = process
            self._last[name] = Errand(name, about, time.time())
        threading.Thread(target=self._listen, args=(name, process), daemon=True).start()
        return True

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
        limit, killed = _LONGEST_SECONDS.get(name), threading.Event()

        def end() -> None:
            killed.set()
            process.kill()

        timer = threading.Timer(limit or 0, end)
        if limit is not None:
            timer.start()
        try:
            for line in process.stdout or ():
                self._hear(name, line)
            process.wait()
        finally:
            timer.cancel()
        with self._lock:
            known = self._last[name]
            if known.is_running:
                why = _TOO_LONG.format(limit, name) if killed.is_set() else _ENDED
                known = self._last[name] = replace(known, error=why)
        self.ended(known)

    def _hear(self, name: str, line: bytes) -> None:
        try:
            content = json.loads(line)
        except ValueError:
            return
        if not isinstance(content, dict):
            return
        with self._lock:
            known = self._last[name]
            if "progress" in content:
                done, count = content["progress"]
                self._last[name] = replace(known, done=int(done), count=int(count))
            elif isinstance(content.get("said"), dict):
                self._last[name] = replace(known, said=content["said"])
            elif "error" in content:
                self._last[name] = replace(known, error=str(content["error"]))
