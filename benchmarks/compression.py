"""What compression saves and costs: bytes of every mode and the metric it ends with, same seed.

Runs ``wardround simulate`` once a mode and seed, and goes on where it stopped. Bytes are those the
server counted, of a site in a round.

    python -m benchmarks.compression --data-root DATA --out runs/compression \
        [--study pneumonia-xray] [--rounds 20] [--seeds 0] [--modes none,int8]
"""

import argparse
import csv
import json
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.processes import machine

FLAGS = ("--no-compare", "--engine", "in-process", "--threads", "1", "--json")
MODES = ("none", "float16", "bfloat16", "int8", "int4", "top-k")
PLAIN = "none"


@dataclass(frozen=True)
class Job:
    """One simulation."""

    study: str
    mode: str
    seed: int
    out: Path
    changes: tuple[str, ...]

    def command(self, data_root: str | None) -> list[str]:
        """Return the command line."""
        changes = (f'federation.compression="{self.mode}"', *self.changes)
        return [
            *(sys.executable, "-m", "wardround.cli", "simulate", self.study),
            *(("--data-root", data_root) if data_root else ()),
            *("--seed", str(self.seed), "--out", str(self.out)),
            *(part for change in changes for part in ("--set", change)),
            *FLAGS,
        ]


@dataclass(frozen=True)
class Result:
    """What a run sent and what came of it.

    Attributes:
        down: Bytes to a site in a round; ``up`` those from it.
        metric: Of the kept model on all sites' test patients.
    """

    down: float
    up: float
    metric: float
    metric_name: str


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--study", default="pneumonia-xray")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--rounds", type=int, help="as the study says where absent")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="changes")
    arguments = parser.parse_args()
    jobs = _jobs(arguments)
    print(machine())
    with ThreadPoolExecutor(arguments.workers) as pool:
        results = list(pool.map(lambda job: _run(job, arguments.data_root), jobs))
    found: dict[str, list[Result]] = {}
    for job, result in zip(jobs, results, strict=True):
        if result is not None:
            found.setdefault(job.mode, []).append(result)
    _print_table(found)


def _jobs(arguments: argparse.Namespace) -> list[Job]:
    rounds = () if arguments.rounds is None else (f"federation.rounds={arguments.rounds}",)
    changes = (*rounds, *arguments.changes)
    folder = arguments.out / Path(arguments.study).stem
    length = "" if arguments.rounds is None else f"-{arguments.rounds}"
    return [
        Job(arguments.study, mode, seed, folder / f"{mode}{length}-{seed}", changes)
        for seed in (int(text) for text in arguments.seeds.split(","))
        for mode in arguments.modes.split(",")
    ]


def _run(job: Job, data_root: str | None) -> Result | None:
    summary = job.out / "summary.json"
    if not summary.exists():
        shutil.rmtree(job.out, ignore_errors=True)  # a run that was cut short
        done = subprocess.run(job.command(data_root), capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{job.out.name}: {done.stderr.strip()[-300:]}", file=sys.stderr)
            return None
        summary.write_text(done.stdout)
    content = json.loads(summary.read_text())
    with (job.out / "traffic.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return Result(
        down=statistics.mean(int(row["bytes_down"]) for row in rows),
        up=statistics.mean(int(row["bytes_up"]) for row in rows),
        metric=content["all sites"]["federated"],
        metric_name=content["metric"],
    )


def _print_table(found: dict[str, list[Result]]) -> None:
    """Print the means over the seeds, and what each mode is beside the uncompressed one."""
    plain = found.get(PLAIN)
    name = next((result.metric_name for several in found.values() for result in several), "metric")
    print(f"\n| mode | bytes down | bytes up | of float32 | {name} | points | seeds |")
    print("|---|---|---|---|---|---|---|")
    for mode, several in found.items():
        down, up, metric = (
            statistics.mean(getattr(result, field) for result in several)
            for field in ("down", "up", "metric")
        )
        share = points = "-"
        if plain:
            share = f"{up / statistics.mean(result.up for result in plain):.1%}"
            points = f"{100 * (metric - statistics.mean(result.metric for result in plain)):+.2f}"
        cells = f"{down:,.0f} | {up:,.0f} | {share} | {metric:.4f} | {points} | {len(several)}"
        print(f"| {mode} | {cells} |")
    print("\nint8 should send at most 27 % of the bytes and stay within 0.5 points")


if __name__ == "__main__":
    main()
