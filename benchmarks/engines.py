"""The engines on the reference job, in turn, in one run, beside a two-process loop and Flower.

4 sites x 1,000 images, 5 rounds, two workers (or actors) of one thread each. Wall, CPU and memory
are those of the whole process tree, memory with shared pages counted once.

    python -m benchmarks.engines [--repeats 3] [--images 1000]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from benchmarks.reference_job import ROUNDS, prepare
from benchmarks.support.processes import Timed, machine, run_timed

ROOT = Path(__file__).parents[1]
FLOOR, POOL, RAY, FLOWER = "two-process loop", "wardround pool", "wardround ray", "flower on ray"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class EngineRun:
    """One run of one engine.

    Attributes:
        start_up: Seconds from the process's start to the end of the first round, less a usual
            round: so that what is put off until the first round counts.
        rounds: Seconds of each round but the first.
    """

    timed: Timed
    start_up: float
    rounds: list[float]
    accuracy: float


@dataclass(frozen=True)
class Job:
    """The files of the reference job."""

    folder: Path
    study: Path
    initial: Path

    def script(self, module: str) -> list[str]:
        """Return the command of a benchmark module that takes the job's files."""
        manifest = self.folder / "manifest.csv"
        return [
            *(sys.executable, "-m", f"benchmarks.peers.{module}"),
            *(str(manifest), str(ROUNDS), str(self.initial)),
        ]

    def simulate(self, engine: str, out: Path) -> list[str]:
        """Return the command of wardround with an engine."""
        return [
            *(sys.executable, "-m", "wardround.cli", "simulate", str(self.study)),
            *("--out", str(out), "--engine", engine, "--workers", "2", "--threads", "1"),
            *("--no-compare", "--json"),
        ]


def main() -> None:
    """Print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000, help="training images a site")
    arguments = parser.parse_args()
    print(machine())
    runs: dict[str, list[EngineRun]] = {}
    with tempfile.TemporaryDirectory() as name:
        job = Job(Path(name), *prepare(Path(name), 4, arguments.images))
        for number in range(arguments.repeats):
            for title, run in _engines(job, number).items():
                runs.setdefault(title, []).append(run())
    _print_table(runs)
    _print_ratios(runs)


def _engines(job: Job, number: int) -> dict[str, Callable[[], EngineRun]]:
    def simulated(engine: str) -> Callable[[], EngineRun]:
        return lambda: _simulate(job, engine, job.folder / f"{engine}-{number}")

    chosen = {FLOOR: lambda: _script(job, "two_process_loop"), POOL: simulated("pool")}
    if find_spec("ray") is None:
        print("ray is not installed: its two rows are left out", file=sys.stderr)
        return chosen
    return {**chosen, RAY: simulated("ray"), FLOWER: lambda: _script(job, "flower_simulation")}


def _script(job: Job, module: str) -> EngineRun:
    started = time.time()
    timed = run_timed(job.script(module), ENVIRONMENT)
    line = next(text for text in timed.output.splitlines() if text.startswith('{"first"'))
    found = json.loads(line)
    return _run(timed, found["first"] - started, found["rounds"][1:], found["accuracy"])


def _simulate(job: Job, engine: str, out: Path) -> EngineRun:
    started = time.time()
    timed = run_timed(job.simulate(engine, out), ENVIRONMENT)
    lines = (out / "checkpoints" / "federated" / "history.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines[:ROUNDS]]
    rounds = [after["written_at"] - before["written_at"] for before, after in pairwise(records)]
    accuracy = json.loads(timed.output)["all sites"]["federated"]
    return _run(timed, records[0]["written_at"] - started, rounds, accuracy)


def _run(timed: Timed, first: float, rounds: list[float], accuracy: float) -> EngineRun:
    return EngineRun(timed, first - statistics.median(rounds), rounds, accuracy)


def _print_table(runs: dict[str, list[EngineRun]]) -> None:
    print("\n| | wall s | CPU s | memory MB | start-up s | s a round | accuracy |")
    print("|---|---|---|---|---|---|---|")
    for title, several in runs.items():
        wall, cpu, memory = (
            statistics.median(values)
            for values in (
                [r.timed.wall_seconds for r in several],
                [r.timed.cpu_seconds for r in several],
                [r.timed.memory_mb for r in several],
            )
        )
        start_up = statistics.median(r.start_up for r in several)
        round_seconds = statistics.median(s for r in several for s in r.rounds)
        cells = f"{wall:.1f} | {cpu:.1f} | {memory:.0f} | {start_up:.1f} | {round_seconds:.2f}"
        print(f"| {title} | {cells} | {several[-1].accuracy:.4f} |")


def _print_ratios(runs: dict[str, list[EngineRun]]) -> None:
    def wall(title: str) -> float:
        return statistics.median(run.timed.wall_seconds for run in runs[title])

    def memory(title: str) -> float:
        return statistics.median(run.timed.memory_mb for run in runs[title])

    start_up = statistics.median(run.start_up for run in runs[POOL])
    print(f"\npool / two-process loop, wall: {wall(POOL) / wall(FLOOR):.2f} (at most 1.2)")
    print(f"start-up of the pool: {start_up:.1f} s (at most 6)")
    for title in (RAY, FLOWER):
        if title in runs:
            print(f"pool / {title}, wall: {wall(POOL) / wall(title):.2f} (at most 0.5)")
            print(f"pool / {title}, memory: {memory(POOL) / memory(title):.2f} (at most 0.33)")


if __name__ == "__main__":
    main()
