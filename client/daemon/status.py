"""What a site's daemon is doing, for ``wardround site status``: words and numbers, no free text."""

import json
import threading
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

_KEPT_TROUBLES = 10  # what fits a terminal; the log has all of them


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that went wrong, as often as it did without anything else in between.

    Attributes:
        code: A key of FLEET_CODES where it is the connection, of REFUSAL_CODES where it is a
            refusal.
        what: "connection", "refusal" or "daemon".
        time: The last time.
    """

    what: str
    code: str
    time: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Work:
    """What the site is at.

    Attributes:
        kind: What is asked, e.g. "train".
        group: How the server calls it, e.g. "round 3".
        study: The study's name; "" where it cannot be read.
        digest: The study's digest.
        since: When it was asked.
    """

    kind: str
    group: str
    study: str
    digest: str
    since: str


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """What the daemon says of itself.

    Attributes:
        connected_since: "" where the server is not reached.
        work: What it is at; None where it waits.
        last: What it was at before; None where it has done nothing yet.
        answered: Messages answered since it began, refusals included.
        worker_starts: 1 if the worker has never died.
    """

    site: str
    server: str
    version: str
    process: int
    began: str
    connected_since: str
    work: Work | None
    last: Work | None
    answered: int
    refused: int
    worker: int
    worker_starts: int
    troubles: tuple[Trouble, ...]

    def to_json(self) -> dict[str, object]:
        """Return it as it travels over the local socket."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: dict[str, object]) -> "DaemonStatus":
        """Return what :meth:`to_json` made.

        Raises:
            TypeError: It is something else: a daemon of another version.
        """
        content = dict(said)
        for name in ("work", "last"):
            held = content[name]
            content[name] = Work(**held) if isinstance(held, dict) else None
        troubles = content["troubles"]
        held_troubles = troubles if isinstance(troubles, list) else []
        content["troubles"] = tuple(Trouble(**trouble) for trouble in held_troubles)
        return cls(**content)  # type: ignore[arg-type] # what is missing or too much raises


class StatusBoard:
    """Where the daemon writes what it is at; its threads may write and read at any time."""

    def __init__(self, status: DaemonStatus) -> None:
        self._status = json.loads(json.dumps(status.to_json()))
        self._troubles: deque[Trouble] = deque(status.troubles, maxlen=_KEPT_TROUBLES)
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._contact = 0.0

    def counts(self) -> tuple[Counter[tuple[str, str]], float]:
        """Return how often what happened since it began, and when the server last answered.

        The keys are those of a trouble, what and code; "sent", "bytes" are bytes.
        """
        with self._lock:
            return Counter(self._counts), self._contact

    def note_sent(self, size_bytes: int) -> None:
        """Note that an answer has left."""
        with self._lock:
            self._counts["sent", "bytes"] += size_bytes

    def heard(self, code: str) -> None:
        """Note that the server answered, or the word for why it did not."""
        with self._lock:
            if code:
                self._status["connected_since"] = ""
                self._add("connection", code)
                return
            self._contact = time.time()
            if not self._status["connected_since"]:
                self._status["connected_since"] = _now()

    def begin(self, work: Work) -> None:
        """Note what the daemon is at."""
        with self._lock:
            self._status["work"] = asdict(work)

    def end(self, refused: str) -> None:
        """Note that it was answered, or refused with a word."""
        with self._lock:
            self._status["last"], self._status["work"] = self._status["work"], None
            self._status["answered"] += 1
            if refused:
                self._status["refused"] += 1
                self._add("refusal", refused)

    def give_up(self, code: str) -> None:
        """Note that it was not answered."""
        with self._lock:
            self._status["last"], self._status["work"] = self._status["work"], None
            self._add("daemon", code)

    def note_worker(self, process: int, starts: int) -> None:
        """Note which process does the work."""
        with self._lock:
            self._status["worker"], self._status["worker_starts"] = process, starts

    def trouble(self, code: str) -> None:
        """Note something that is neither the server's nor a message's."""
        with self._lock:
            self._add("daemon", code)

    def to_json(self) -> dict[str, object]:
        """Return all of it as it is now."""
        with self._lock:
            return {**self._status, "troubles": [asdict(one) for one in self._troubles]}

    def _add(self, what: str, code: str) -> None:
        self._counts[what, code] += 1
        last = self._troubles[-1] if self._troubles else None
        if last is not None and (last.what, last.code) == (what, code):
            self._troubles[-1] = Trouble(what, code, _now(), last.count + 1)
        else:
            self._troubles.append(Trouble(what, code, _now()))


def work_of(kind: str, group: str, study: str, digest: str) -> Work:
    """Return what is begun now."""
    return Work(kind, group, study, digest, _now())


def fresh_status(site: str, server: str, version: str, process: int) -> DaemonStatus:
    """Return the status of a daemon that has just begun."""
    return DaemonStatus(site, server, version, process, _now(), "", None, None, 0, 0, 0, 0, ())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
