"""What readers of a live page cost: the CPU of what serves it, and the rounds of the run.

One simulation with ``--watch`` goes on. In turn it has no reader and ``--readers`` of them, each a
connection of its own to the page's events, and its rounds are told apart by when they ended.

    python -m benchmarks.load.live_page [--readers 50] [--seconds 60] [--pairs 5]
"""

import argparse
import http.client
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks.load.pictures import paired_ratio, round_seconds, write_study

_MODULE = "simulations.report.live.watcher"
_ENDLESS = 100_000
_PATIENCE_SECONDS = 300.0
_READER = [sys.executable, "-m", "benchmarks.load.live_page", "--read"]


@dataclass
class Block:
    """Some seconds of the run.

    Attributes:
        cpu_share: Of one core, what the page's process used.
        rounds: Seconds of each round that ended in it, but the first, which began before.
    """

    cpu_share: float
    rounds: list[float]


@dataclass
class Watched:
    """A simulation with its page."""

    folder: Path
    process: subprocess.Popen[str]
    link: str
    page: psutil.Process

    def block(self, seconds: float) -> Block:
        """Let so many seconds pass, and return what they cost and which rounds ended in them."""
        before, cpu = len(round_seconds(self.folder)), sum(self.page.cpu_times()[:2])
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        used = sum(self.page.cpu_times()[:2]) - cpu
        return Block(used / took, round_seconds(self.folder)[before + 1 :])


@contextmanager
def watched(folder: Path, steps: int) -> Iterator[Watched]:
    """Start a simulation with its page; it ends with the block."""
    run, study = folder / "run", write_study(folder, _ENDLESS, steps)
    words = ["simulate", str(study), "--watch", "--out", str(run), "--quiet"]
    machine = ["--engine", "in-process", "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "wardround.cli", *words, *machine],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        link = _link_of(process)
        until = time.monotonic() + _PATIENCE_SECONDS
        while len(round_seconds(run)) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        children = psutil.Process(process.pid).children(recursive=True)
        page = next(one for one in children if any(_MODULE in word for word in one.cmdline()))
        yield Watched(run, process, link, page)
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=60)
        process.kill()


def _link_of(process: subprocess.Popen[str]) -> str:
    said = ""
    for line in process.stderr or ():
        said += line
        if found := re.search(r"http://\S+/", line):
            return found[0]
    sys.exit(f"the simulation ended before it had a page: {said}")


@contextmanager
def readers(link: str, count: int) -> Iterator[None]:
    """Have so many readers listen, from a process of their own, until the block ends."""
    process = subprocess.Popen([*_READER, link, str(count)], stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if line.strip() != str(count):
            sys.exit(f"only {line.strip() or 'none'} of {count} readers were let in.")
        yield
    finally:
        process.kill()
        process.wait()


def read(link: str, count: int) -> None:
    """Open so many streams of events, say how many were let in, and read on until killed."""
    place = urlsplit(link)
    answers = []
    for _ in range(count):
        line = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        line.request("GET", f"{place.path}events", headers={"Accept": "text/event-stream"})
        answer = line.getresponse()
        if answer.status == http.client.OK:
            answers.append((line, answer))
    sys.stdout.write(f"{len(answers)}\n")
    sys.stdout.flush()
    for _, answer in answers:
        threading.Thread(target=_drain, args=(answer,), daemon=True).start()
    threading.Event().wait()


def _drain(answer: http.client.HTTPResponse) -> None:
    while answer.readline():
        pass


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the cost of the readers, pair by pair."""
    pairs, shares = list[tuple[float, float]](), list[tuple[float, float]]()
    with tempfile.TemporaryDirectory() as name, watched(Path(name), arguments.steps) as run:
        for number in range(arguments.pairs):
            blocks = {}
            for is_read in ((False, True), (True, False))[number % 2]:  # neither is always first
                if is_read:
                    with readers(run.link, arguments.readers):
                        blocks[True] = run.block(arguments.seconds)
                else:
                    blocks[False] = run.block(arguments.seconds)
            alone, with_readers = blocks[False], blocks[True]
            if not (alone.rounds and with_readers.rounds):
                sys.exit("no whole round ended in a block: raise --seconds or lower --steps.")
            pairs.append((statistics.median(alone.rounds), statistics.median(with_readers.rounds)))
            shares.append((alone.cpu_share, with_readers.cpu_share))
    return {
        "readers": arguments.readers,
        "seconds": arguments.seconds,
        "cpu_percent_alone": [round(100 * alone, 2) for alone, _ in shares],
        "cpu_percent_read": [round(100 * read_, 2) for _, read_ in shares],
        "cpu_percent_of_the_readers": round(
            100 * statistics.fmean(read_ - alone for alone, read_ in shares), 2
        ),
        "round_seconds": [[round(one, 4) for one in pair] for pair in pairs],
        "round_time": paired_ratio(pairs),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readers", type=int, default=50, help="connections at a time")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each block")
    parser.add_argument("--pairs", type=int, default=5, help="blocks with readers, and without")
    parser.add_argument("--steps", type=int, default=20, help="of a site's round")
    parser.add_argument("--read", nargs=2, metavar=("LINK", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read(arguments.read[0], int(arguments.read[1]))
    sys.stdout.write(json.dumps(measure(arguments), indent=2) + "\n")


if __name__ == "__main__":
    main()
