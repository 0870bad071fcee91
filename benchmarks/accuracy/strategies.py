"""Every strategy beside own-data and pooled training, at the same budget, over several seeds.

Runs ``wardround simulate`` once a study, strategy and seed, and goes on where it stopped. The
first strategy's run trains the comparison models, the others only the federation. A strategy may
bring options of its own after ``@``, several with ``;`` between them.

    python -m benchmarks.accuracy.strategies --data-root DATA --out runs/strategies \
        --study heart-disease --seeds 0,1,2 \
        --strategies 'fedavg,fedprox,fedadam@federation.options.server_learning_rate=0.1'
"""

import argparse
import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.processes import machine

Sites = list[dict[str, float | None]]  # of a run, each with its metric by model

LEAST = 0.005  # a difference below half a point is a tie, however steady
FLAGS = ("--engine", "in-process", "--threads", "1", "--json")


@dataclass(frozen=True)
class Job:
    """One simulation."""

    study: str
    strategy: str
    seed: int
    out: Path
    compare: bool
    own: tuple[str, ...]
    changes: tuple[str, ...]

    @property
    def label(self) -> str:
        """The strategy with what it sets itself, not what all of them share."""
        return self.strategy + (f" ({'; '.join(self.own)})" if self.own else "")

    def command(self, data_root: str) -> list[str]:
        """Return the command line."""
        changes = (f'federation.strategy="{self.strategy}"', *self.changes, *self.own)
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
            strategy, _, text = name.partition("@")
            own = tuple(text.split(";")) if text else ()
            folder = arguments.out / arguments.study / f"{name.replace('/', '-')[:80]}-{seed}"
            changes = tuple(arguments.changes)
            jobs.append(Job(arguments.study, strategy, seed, folder, number == 0, own, changes))
    return jobs


def _run(job: Job, data_root: str) -> Sites | None:
    summary = job.out / "summary.json"
    if not summary.exists():
        done = subprocess.run(job.command(data_root), capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{job.out.name}: {done.stderr.strip()[-300:]}", file=sys.stderr)
            return None
        summary.write_text(done.stdout)
    return list(json.loads(summary.read_text())["sites"])


def _print_table(jobs: list[Job], results: list[Sites | None]) -> None:
    rows: dict[str, dict[int, tuple[float, float]]] = {}
    for job, result in zip(jobs, results, strict=True):
        if result is None:
            continue
        if job.compare:
            for name in ("alone", "pooled"):
                rows.setdefault(name, {})[job.seed] = _mean_and_worst(result, name)
        rows.setdefault(job.label, {})[job.seed] = _mean_and_worst(result, "federated")
    first = rows.get(jobs[0].label, {})
    print(f"| strategy | mean over sites | beside {jobs[0].label} | worst site | seeds |")
    print("|---|---|---|---|---|")
    for label, values in rows.items():
        means, worst = ([pair[i] for pair in values.values()] for i in (0, 1))
        beside = "" if values is first else _beside(values, first)
        print(f"| {label} | {_spread(means)} | {beside} | {_spread(worst)} | {len(values)} |")


def _mean_and_worst(result: Sites, model: str) -> tuple[float, float]:
    values = [value for site in result if (value := site[model]) is not None]
    return statistics.mean(values), min(values)


def _beside(values: dict[int, tuple[float, float]], first: dict[int, tuple[float, float]]) -> str:
    """Return the mean difference on the same seeds; a tie if chance may well have made it."""
    differences = [values[seed][0] - first[seed][0] for seed in values if seed in first]
    if not differences:
        return "-"
    mean = statistics.mean(differences)
    if len(differences) == 1:
        return f"{mean:+.3f}"
    deviation = statistics.stdev(differences)
    one_sign = min(differences) > 0 or max(differences) < 0
    clear = one_sign and abs(mean) > max(deviation, LEAST)
    verdict = "" if clear else ", a tie"
    return f"{mean:+.3f} ± {deviation:.3f}{verdict}"


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


if __name__ == "__main__":
    main()
