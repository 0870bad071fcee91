"""Every strategy beside own-data and pooled training, at the same budget, over several seeds.

Runs ``wardround simulate`` once a study, strategy and seed, and goes on where it stopped. The
first strategy's run trains the comparison models, the others only the federation.

    python -m benchmarks.strategies --data-root DATA --out runs/strategies \
        --study heart-disease --strategies fedavg,fedprox,scaffold --seeds 0,1,2
"""

import argparse
import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import machine

FLAGS = ("--engine", "in-process", "--threads", "1", "--json")


@dataclass(frozen=True)
class Job:
    """One simulation."""

    study: str
    strategy: str
    seed: int
    out: Path
    compare: bool
    changes: tuple[str, ...]

    def command(self, data_root: str) -> list[str]:
        """Return the command line."""
        changes = (f'federation.strategy="{self.strategy}"', *self.changes)
        return [
            *(sys.executable, "-m", "wardround.cli", "simulate", self.study),
            *("--data-root", data_root, "--seed", str(self.seed), "--out", str(self.out)),
            *(part for change in changes for part in ("--set", change)),
            *(() if self.compare else ("--no-compare",)),
            *FLAGS,
        ]


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--study", required=True)
    parser.add_argument("--strategies", default="fedavg")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="changes")
    arguments = parser.parse_args()
    jobs = _jobs(arguments)
    print(machine())
    with ThreadPoolExecutor(arguments.workers) as pool:
        results = list(pool.map(lambda job: _run(job, arguments.data_root), jobs))
    _print_table(jobs, results)


def _jobs(arguments: argparse.Namespace) -> list[Job]:
    jobs = []
    for seed in (int(text) for text in arguments.seeds.split(",")):
        for number, name in enumerate(arguments.strategies.split(",")):
            # A strategy may bring its own options: fedadam:training.learning_rate=0.01;...
            strategy, _, own = name.partition("@")
            changes = (*arguments.changes, *(own.split(";") if own else ()))
            folder = arguments.out / arguments.study / f"{name.replace('/', '-')[:80]}-{seed}"
            jobs.append(Job(arguments.study, strategy, seed, folder, number == 0, changes))
    return jobs


def _run(job: Job, data_root: str) -> dict[str, object] | None:
    summary = job.out / "summary.json"
    if not summary.exists():
        done = subprocess.run(job.command(data_root), capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{job.out.name}: {done.stderr.strip()[-300:]}", file=sys.stderr)
            return None
        summary.write_text(done.stdout)
    return dict(json.loads(summary.read_text()))


def _print_table(jobs: list[Job], results: list[dict[str, object] | None]) -> None:
    rows: dict[str, list[tuple[float, float]]] = {}
    for job, result in zip(jobs, results, strict=True):
        if result is None:
            continue
        if job.compare:
            for name in ("alone", "pooled"):
                rows.setdefault(name, []).append(_mean_and_worst(result, name))
        label = job.strategy + ("" if not job.changes else " (" + "; ".join(job.changes) + ")")
        rows.setdefault(label, []).append(_mean_and_worst(result, "federated"))
    print("| strategy | mean over sites | worst site | seeds |\n|---|---|---|---|")
    for name, values in rows.items():
        means, worst = ([pair[i] for pair in values] for i in (0, 1))
        print(f"| {name} | {_spread(means)} | {_spread(worst)} | {len(values)} |")


def _mean_and_worst(result: dict[str, object], model: str) -> tuple[float, float]:
    sites = result["sites"]
    values = [site[model] for site in sites if site[model] is not None]  # type: ignore[union-attr]
    return statistics.mean(values), min(values)


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


if __name__ == "__main__":
    main()
