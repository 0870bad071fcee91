"""What is forgotten when three scanners come one after the other, by what holds on to the old.

Simulates the built-in brain-tissue-scanners once a seed (``wardround simulate``), goes on from it
twice with each method (``wardround study continue``), and reads the report's own numbers.

    python -m benchmarks.accuracy.continual --out runs/continual
    python -m benchmarks.accuracy.continual --seeds 0 --methods replay,none
"""

import argparse
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from benchmarks.support.processes import machine
from wardround.common.statistics.interval import t_quantile
from wardround.simulations.evidence.waves import Sequel, sequel_of
from wardround.simulations.run_files.waves import read_waves

STUDY = "brain-tissue-scanners"
METHODS = ("replay", "none", "ewc", "lwf")
LATER = (2, 3)  # waves after the first
NUMBERS = ("average", "backward_transfer", "forward_transfer", "forgetting", "plasticity")


@dataclass(frozen=True)
class Sequence:
    """Where and how a sequence of studies is run.

    Attributes:
        data_root: Whose folders are the data sets.
        out: The folder of all runs; what is finished there is not run again.
        options: Further words of ``wardround simulate``.
    """

    data_root: Path | None
    out: Path
    options: tuple[str, ...]

    def first(self, seed: int) -> Path:
        """Return the run of the first wave, which all methods share."""
        return self._simulated(STUDY, self.out / f"seed-{seed}" / "first", seed)

    def last(self, seed: int, method: str, extra: tuple[str, ...]) -> Path:
        """Return the run of the last wave by a method."""
        before = self.first(seed)
        for wave in LATER:
            study = self.out / f"seed-{seed}" / f"{method}-{wave}.toml"
            if not study.exists():
                words = ("--out", str(study), "--method", method, *extra)
                _wardround("study", "continue", str(before), *words)
            before = self._simulated(str(study), study.with_suffix(""), None)
        return before

    def _simulated(self, study: str, out: Path, seed: int | None) -> Path:
        if not (out / "waves.csv").exists():
            out.parent.mkdir(parents=True, exist_ok=True)
            begun = time.monotonic()
            root = [] if self.data_root is None else ["--data-root", str(self.data_root)]
            words = [*root, "--no-compare", *self.options]
            seeded = [] if seed is None else ["--set", f"federation.seed={seed}"]
            _wardround("simulate", study, "--out", str(out), *words, *seeded)
            print(f"# {out}: {time.monotonic() - begun:.0f} s", flush=True)
        return out


def main() -> None:
    """Run what is not there yet, and print a row a method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, help="The built-in study needs none.")
    parser.add_argument("--out", type=Path, default=Path("runs/continual"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--rounds", type=int, help="Of each study; its own number where absent.")
    parser.add_argument("--threads", type=int, default=0, help="As of wardround simulate.")
    arguments = parser.parse_args()
    methods = arguments.methods.split(",")
    if unknown := set(methods) - set(METHODS):
        parser.error(f"unknown method {sorted(unknown)[0]!r}; known: {', '.join(METHODS)}")
    print(machine())
    rounds = [] if arguments.rounds is None else ["--rounds", str(arguments.rounds)]
    options = ("--threads", str(arguments.threads), *rounds)
    sequence = Sequence(arguments.data_root, arguments.out, options)
    changes = () if arguments.rounds is None else ("--set", f"federation.rounds={arguments.rounds}")
    print("method | seeds | " + " | ".join(name.replace("_", " ") for name in NUMBERS))
    for method in methods:
        found = []
        for seed in map(int, arguments.seeds.split(",")):
            sequel = sequel_of(read_waves(sequence.last(seed, method, changes)))
            if sequel is not None:
                found.append(sequel)
                print(f"# {method}, seed {seed}: {_matrix(sequel)}", flush=True)
        cells = (_told([getattr(one, name) for one in found]) for name in NUMBERS)
        print(f"{method} | {len(found)} | " + " | ".join(cells), flush=True)


def _matrix(sequel: Sequel) -> str:
    """Return the values after each wave, on that and the earlier ones."""
    rows = (
        ", ".join(f"{sequel.after[after, wave]:.3f}" for wave in sequel.waves if wave <= after)
        for after in sequel.waves
    )
    return "; ".join(rows)


def _told(values: list[float]) -> str:
    """Return a mean over seeds with Student's 95 % interval, where there are two or more."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "not measured"
    if len(known) < 2:
        return f"{known[0]:+.4f}"
    reach = t_quantile(len(known) - 1) * stdev(known) / math.sqrt(len(known))
    return f"{fmean(known):+.4f} ± {reach:.4f}"


def _wardround(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wardround.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
        check=False,
    )
    if done.returncode:
        sys.exit(f"wardround {' '.join(words)}: {done.stderr.strip()}")


if __name__ == "__main__":
    main()
