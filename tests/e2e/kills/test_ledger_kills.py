"""P4: a site is killed with -9, again and again, and its ledger never counts too little.

The child is forked and answers orders as a session does; a kill is planted in it by replacing a
function of the ledger or the outbox, which nothing but this file does.
"""

import hashlib
import json
import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from wardround.client.egress.private_round import reply_once
from wardround.client.privacy.ledger import budget as ledger_budget
from wardround.client.privacy.ledger.budget import Caps
from wardround.client.privacy.ledger.charges import Assignment, Charge
from wardround.client.privacy.ledger.entries import Entry, Released, Reserved
from wardround.client.privacy.ledger.file import read_chain, read_ledger
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.client.privacy.ledger.outbox import OUTBOX_FOLDER, Outbox
from wardround.common.files import atomic, json_lines
from wardround.common.privacy.accounting import Spend

KILLS = 220
SITES = 8
ROUND = Spend(0.1, 1.0, 10)
PLAN = Spend(0.1, 1.0, 4_000)
CAPS = Caps(9_000.0, 1e-5, 9_000.0)
LINES = ("opened", "admitted", "reserved", "released", "committed", "repaired")

Key = tuple[int, int]  # round, attempt


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# --- Where the child dies --------------------------------------------------------------------


def in_the_line(kind: str, share: float) -> None:
    """Die when a share of a line is written: none, a part (a torn tail), or all but its fsync."""
    real = json_lines.write_whole

    def write(descriptor: int, data: bytes) -> None:
        if f'"kind":"{kind}"'.encode() in data:
            real(descriptor, data[: round(share * len(data))])
            die()
        real(descriptor, data)

    json_lines.write_whole = write


def after(owner: type, name: str) -> None:
    """Die when a method has returned."""
    real = getattr(owner, name)

    def deadly(*args: object, **named: object) -> object:
        real(*args, **named)
        return die()

    setattr(owner, name, deadly)


def before(owner: type, name: str) -> None:
    """Die when a method is called."""
    setattr(owner, name, lambda *_, **__: die())


def in_the_outbox(share: float) -> None:
    """Die when a share of an answer is written, still under its second name."""
    real = atomic.put_in_place

    def put(part: Path, path: Path, durable: bool = True) -> None:
        if path.parent.name == OUTBOX_FOLDER:
            os.truncate(part, round(share * part.stat().st_size))
            die()
        real(part, path, durable)

    atomic.put_in_place = put


def at_any_time(seconds: float) -> None:
    signal.signal(signal.SIGALRM, lambda *_: die())
    signal.setitimer(signal.ITIMER_REAL, seconds)


POINTS: dict[str, Callable[[random.Random], object]] = {
    "before reserve": lambda _: before(PrivacyLedger, "reserve"),
    "before the line": lambda g: in_the_line(g.choice(LINES[2:5]), 0.0),
    "in the line": lambda g: in_the_line(g.choice(LINES[1:5]), g.uniform(0.01, 0.99)),
    "before fsync": lambda g: in_the_line(g.choice(LINES[1:5]), 1.0),
    "after reserve": lambda _: after(PrivacyLedger, "reserve"),
    "in training": lambda _: None,  # the training itself looks for its name
    "in the outbox": lambda g: in_the_outbox(g.random()),
    "after the outbox": lambda _: after(Outbox, "keep"),
    "after release": lambda _: after(PrivacyLedger, "release"),
    "after sending": lambda _: after(Wire, "send"),
    "before commit": lambda _: before(PrivacyLedger, "commit"),
    "any time": lambda g: at_any_time(g.uniform(0.0, 0.03)),
}


# --- The child -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wire:
    """What the world sees of a site: what it was asked, what it began, what left it."""

    folder: Path

    def ask(self, key: Key) -> None:
        self._note("asked", [*key])

    def train(self, key: Key) -> None:
        self._note("trained", [*key])

    def send(self, key: Key, content: bytes) -> None:
        counter = int.from_bytes(content[:8], "big")
        self._note("sent", [*key, hashlib.sha256(content).hexdigest(), counter])

    def _note(self, name: str, words: list[object]) -> None:
        descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, json.dumps(words).encode() + b"\n")
        os.close(descriptor)

    def asked(self) -> list[Key]:
        return [(number, attempt) for number, attempt in self._noted("asked")]

    def trained(self) -> list[Key]:
        return [(number, attempt) for number, attempt in self._noted("trained")]

    def sent(self) -> list[tuple[Key, str, int]]:
        return [((line[0], line[1]), line[2], line[3]) for line in self._noted("sent")]

    def _noted(self, name: str) -> list[list[object]]:
        path = self.folder / name
        return (
            [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
        )


def work_as_a_site(
    folder: Path, wire: Wire, instructions: list[Key], dies_in_training: bool
) -> None:
    """Answer orders; every answer is other bytes, as with fresh noise, and holds the counter."""
    ledger, outbox = PrivacyLedger.open(folder), Outbox(folder)
    assignment = Assignment("a" * 64, "run-1", ledger.snapshot(["x", "y"]))
    ledger.admit(assignment, PLAN, 1.0, CAPS)
    for key in instructions:

        def train(key: Key = key) -> bytes:
            wire.train(key)
            if dies_in_training:
                die()
            return ledger.counter.to_bytes(8, "big") + os.urandom(300)

        wire.ask(key)
        content = reply_once(ledger, outbox, Charge(assignment, *key, ROUND), CAPS, train, bytes)
        wire.send(key, content)


def run_in_child(folder: Path, wire: Wire, instructions: list[Key], point: str, seed: float) -> int:
    """Answer orders in a forked process; return its exit code, -9 if it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            POINTS[point](random.Random(seed))
            work_as_a_site(folder, wire, instructions, point == "in training")
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# --- The server ------------------------------------------------------------------------------


def next_instructions(wire: Wire, generator: random.Random) -> list[Key]:
    """Return what a server asks next: again what it may not have, then further rounds."""
    last = wire.asked()[-1] if wire.asked() else (1, 0)
    if last in [key for key, _, _ in wire.sent()]:
        instructions = [last] if generator.random() < 0.4 else []
        first = (last[0] + 1, 0)
    else:
        late = generator.random() < 0.3  # its deadline passed
        instructions, first = [], (last[0], last[1] + late)
    return [*instructions, first, (first[0] + 1, 0), (first[0] + 2, 0)]


# --- What must hold --------------------------------------------------------------------------


@dataclass
class Books:
    """What a site's ledger says beside what the world has seen."""

    folder: Path
    wire: Wire
    overcount: int = 0
    torn: int = 0

    def look_at_the_wreck(self, killed: bool) -> None:
        path = self.folder / "ledger" / "ledger.jsonl"
        if path.exists():
            chain = read_chain(path.read_bytes())
            self.torn += bool(chain.torn)
        with PrivacyLedger.open(self.folder) as ledger:
            self.check(read_ledger(self.folder).entries, ledger, killed)

    def check(self, entries: tuple[Entry, ...], ledger: PrivacyLedger, killed: bool) -> None:
        reserved = {e.number: (e.fact.round, e.fact.attempt) for e in entries if _is(e, Reserved)}
        released = {e.fact.reservation: e.fact.sha256 for e in entries if _is(e, Released)}
        assert released.keys() <= reserved.keys(), "released is within reserved"
        assert len(released) == sum(_is(e, Released) for e in entries), "one answer each"
        for key, times in Counter(self.wire.trained()).items():
            assert times <= list(reserved.values()).count(key), "trained without a reservation"
        replies: dict[Key, str] = {}
        paid = {(reserved[number], sha256) for number, sha256 in released.items()}
        for key, sha256, counter in self.wire.sent():
            assert (key, sha256) in paid, "bytes left that were not released"
            assert replies.setdefault(key, sha256) == sha256, "two answers to one order"
            assert counter <= ledger.counter
        assert ledger.spent(1e-5) == pytest.approx(len(reserved) * ROUND.steps)
        over = len(reserved) - len(replies)
        assert 0 <= over <= self.overcount + killed, "at most one reservation more a kill"
        self.overcount = over


def _is(entry: Entry, kind: type) -> bool:
    return isinstance(entry.fact, kind)


def test_a_site_killed_anywhere_never_counts_too_little_and_one_reservation_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_budget, "epsilon_of", lambda spends, _: sum(s.steps for s in spends))
    generator = random.Random(20261123)
    sites = [Books(tmp_path / f"site-{n}", Wire(tmp_path / f"wire-{n}")) for n in range(SITES)]
    for books in sites:
        books.folder.mkdir()
        books.wire.folder.mkdir()
    killed: Counter[str] = Counter()
    deadline = time.monotonic() + 150
    while killed.total() < KILLS:
        assert time.monotonic() < deadline, f"only {killed.total()} kills in time"
        books, point = generator.choice(sites), generator.choice(list(POINTS))
        instructions = next_instructions(books.wire, generator)
        code = run_in_child(books.folder, books.wire, instructions, point, generator.random())
        assert code in (0, -signal.SIGKILL), point
        killed[point] += code < 0
        books.look_at_the_wreck(code < 0)
    assert min(killed[point] for point in POINTS) >= 5, killed
    assert sum(books.torn for books in sites) >= 5, "torn lines were really met"
    assert sum(len(books.wire.sent()) for books in sites) >= KILLS / 2


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_site_killed_in_its_very_first_line_begins(tmp_path: Path, share: float) -> None:
    wire = Wire(tmp_path)
    child = os.fork()
    if child == 0:
        try:
            in_the_line("opened", share)
            PrivacyLedger.open(tmp_path)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with PrivacyLedger.open(tmp_path) as ledger:
        assert ledger.counter == 1
    assert wire.sent() == []
