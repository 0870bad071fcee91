"""Which of our files one round enters, by folder: what a reader of a round must have open.

A federation of two sites is simulated in this process, and the second round is traced: the first
one opens data and networks that stay open. A plain study and one with privacy of patients.

    python -m benchmarks.files_of_a_round [--list | --json]
"""

import argparse
import csv
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from types import FrameType
from unittest import mock

import numpy as np
from PIL import Image

import wardround
from wardround.cli import main as wardround_command

ROUND, GUARD = "RoundLoop._round", "check_message"
TRACED = 2  # the round
STUDY = """
[study]
name = "files of a round"
task = "classification"

[data]
classes = ["dark", "bright"]
size = [16, 16]
augmentation = "light"

[model]
network = "small-cnn"
features = [4]
normalisation = "group"

[training]
batch_size = 4
local_steps = 2

[federation]
rounds = 2

[simulation]
data = "folder"
split = "natural"

[simulation.options]
manifest = "{manifest}"
"""
KINDS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "private": ("--privacy", "noise_multiplier=1,sampling_rate=1"),
}


@dataclass(slots=True)
class Trace:
    """What was seen of one round.

    Attributes:
        files: Our files that were entered, relative to the package.
        checks: How often the guard looked at a message.
        replies: How many messages the sites sent.
    """

    files: set[str] = field(default_factory=set)
    checks: int = 0
    replies: int = 0

    def as_json(self) -> dict[str, object]:
        """Return the trace as JSON writes it."""
        return {"files": sorted(self.files), "checks": self.checks, "replies": self.replies}

    def folders(self) -> Counter[str]:
        """Return how many files of each folder were entered."""
        return Counter(str(Path(name).parent) for name in sorted(self.files))


class _Tracer:
    """A profile function that notes every function of ours that is called in one round."""

    def __init__(self) -> None:
        self.trace = Trace()
        self._root = f"{Path(str(wardround.__file__)).parent}/"
        self._rounds = 0
        self._within = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if code.co_qualname == ROUND and event in ("call", "return"):
            self._within = event == "call"
            self._rounds += self._within
        if event != "call" or not self._within or self._rounds != TRACED:
            return
        if code.co_filename.startswith(self._root):
            name = code.co_filename.removeprefix(self._root)
            self.trace.files.add(name)
            self.trace.checks += code.co_name == GUARD
            self.trace.replies += code.co_name == "run_client"


@contextmanager
def _tracing() -> Iterator[Trace]:
    tracer = _Tracer()
    before = sys.getprofile()
    sys.setprofile(tracer)
    try:
        yield tracer.trace
    finally:
        sys.setprofile(before)


def write_study(folder: Path) -> Path:
    """Write a study of two hospitals with ten small pictures each, and return its file."""
    rows = [("patient", "image", "label", "site", "split")]
    generator = np.random.default_rng(0)
    for number in range(20):
        label, site = ("dark", "bright")[number % 2], ("north", "south")[number // 10]
        pixels = generator.integers(0, 80, (16, 16)) + 100 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        split = (("train",) * 6 + ("validation",) * 2 + ("test",) * 2)[number % 10]
        rows.append((f"p{number}", f"{number}.png", label, site, split))
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)
    study = folder / "study.toml"
    study.write_text(STUDY.format(manifest=folder / "manifest.csv"), encoding="utf-8")
    return study


def trace_round(kind: str) -> Trace:
    """Simulate one study and return what its second round entered.

    Args:
        kind: A key of KINDS.

    Raises:
        RuntimeError: The simulation failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ["simulate", str(write_study(folder)), "--no-compare", "--quiet", *KINDS[kind]]
        words += ["--engine", "in-process", "--threads", "1", "--out", str(folder / "run")]
        quiet, words = redirect_stdout(StringIO()), ["wardround", *words]
        with mock.patch("sys.argv", words), quiet, _tracing() as trace:
            code = _exit_code()
    if code or not trace.files:
        msg = f"the simulation of the {kind} study ended with {code}"
        raise RuntimeError(msg)
    return trace


def _exit_code() -> int:
    try:
        wardround_command()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0


def main() -> int:
    """Trace both studies and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--list", action="store_true", help="name every file")
    parser.add_argument("--json", action="store_true", help="the same for a program")
    options = parser.parse_args()
    traces = {kind: trace_round(kind) for kind in KINDS}
    if options.json:
        print(json.dumps({kind: trace.as_json() for kind, trace in traces.items()}))
        return 0
    counts = {kind: trace.folders() for kind, trace in traces.items()}
    rows = [
        (folder, *(counts[kind][folder] for kind in KINDS))
        for folder in sorted(set().union(*counts.values()))
    ]
    rows.append(("all", *(len(trace.files) for trace in traces.values())))
    rows.append(("guard passed", *(trace.checks for trace in traces.values())))
    rows.append(("replies of sites", *(trace.replies for trace in traces.values())))
    print(f"{'files entered in round 2':34}" + "".join(f"{kind:>9}" for kind in KINDS))
    for title, *numbers in rows:
        print(f"{title:34}" + "".join(f"{number:9}" for number in numbers))
    if options.list:
        for kind, trace in traces.items():
            print(f"\n{kind}:", *sorted(trace.files), sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
