"""What the recipes of the built-in studies give and cost: a row a recipe and seed, and their means.

Runs ``wardround simulate STUDY --recipe RECIPE`` once a recipe and seed, and goes on where it was
stopped. The model of the best round on validation patients is tested once; the table has both
values. CPU minutes are those of the whole command with all its processes, comparison models too
where ``--compare`` trains them; of a run that was stopped those since then.

    python -m benchmarks.accuracy.recipes --data-root DATA --out runs/recipes \
        --studies hippocampus,skin-lesions,pneumonia-xray --seeds 0,1,2

``--estimate`` trains two rounds of each, and says what all of its rounds would take.
"""

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.processes import machine
from wardround.simulations.studies import find_study
from wardround.simulations.studies.recipes import recipes_of, with_recipe

_TOGETHER = ("all sites", "mean of sites")


@dataclass(frozen=True)
class Job:
    """One simulation.

    Attributes:
        rounds: None for those of the recipe.
    """

    study: str
    recipe: str
    seed: int
    out: Path
    compare: bool
    rounds: int | None
    changes: tuple[str, ...]

    def command(self, data_root: str) -> list[str]:
        """Return the command line; of a run that was stopped what goes on with it."""
        if (self.out / "run.json").exists():
            again = ("--resume", str(self.out), "--json", "--threads", "1")
            return [sys.executable, "-m", "wardround.cli", "simulate", *again]
        return [
            *(sys.executable, "-m", "wardround.cli", "simulate", self.study),
            *("--recipe", self.recipe, "--seed", str(self.seed), "--data-root", data_root),
            *("--out", str(self.out), "--json", "--threads", "1"),
            *(part for change in self.changes for part in ("--set", change)),
            *(() if self.rounds is None else ("--rounds", str(self.rounds))),
            *(() if self.compare else ("--no-compare",)),
        ]


@dataclass(frozen=True)
class Found:
    """What a run gave.

    Attributes:
        validation: Of the kept round, all sites together.
        test: Of its model, all sites together, by model and by class; "" for all classes.
        sites: Of its model at each site: the federated and the site's own.
    """

    cpu_minutes: float
    wall_minutes: float
    validation: float
    test: dict[tuple[str, str], float]
    sites: dict[str, dict[str, float]]


def main() -> None:
    """Run what is missing, then print the table."""
    arguments = _arguments()
    print(machine())
    jobs = _jobs(arguments)
    if arguments.estimate:
        _estimate(jobs, arguments.data_root)
        return
    found = [(job, _run(job, arguments.data_root)) for job in jobs]
    table = "\n".join(_table(found))
    (arguments.out / "table.md").write_text(table + "\n")
    print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--studies", default="hippocampus,skin-lesions,pneumonia-xray")
    parser.add_argument("--recipes", default="default,best")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rounds", type=int, help="instead of the recipe's")
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--compare", action="store_true", help="each site alone, and pooled, too")
    parser.add_argument("--estimate", action="store_true", help="two rounds, and what all take")
    return parser.parse_args()


def _jobs(arguments: argparse.Namespace) -> list[Job]:
    seeds = [int(text) for text in arguments.seeds.split(",")]
    return [
        Job(
            study,
            recipe,
            seed,
            arguments.out / f"{study}-{recipe}-{seed}",
            arguments.compare,
            arguments.rounds,
            tuple(arguments.changes),
        )
        for study in arguments.studies.split(",")
        for recipe in arguments.recipes.split(",")
        if recipe in recipes_of(study)
        for seed in (seeds[:1] if arguments.estimate else seeds)
    ]


def _run(job: Job, data_root: str) -> Found:
    kept = job.out.with_suffix(".json")
    if not kept.exists():
        output, cpu_seconds, wall_seconds = _timed(job.command(data_root))
        content = json.loads(output)
        content["cpu_minutes"] = cpu_seconds / 60
        content["wall_minutes"] = wall_seconds / 60
        kept.write_text(json.dumps(content))
    summary = json.loads(kept.read_text())
    with (job.out / "metrics.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["metric"] == summary["metric"]]
    together = [row for row in rows if row["site"] in _TOGETHER]
    measured = [
        float(row["value"])
        for row in together
        if (row["model"], row["split"], row["class_name"]) == ("federated", "validation", "")
        and int(row["round"]) == int(summary["best_round"])
    ]
    return Found(
        summary["cpu_minutes"],
        summary["wall_minutes"],
        measured[0] if measured else math.nan,  # a study may have no validation patients
        {
            (row["model"], row["class_name"]): float(row["value"])
            for row in together
            if row["split"] == "test"
        },
        {
            site["site"]: {
                model: site[model] for model in ("federated", "alone") if site[model] is not None
            }
            for site in summary["sites"]
        },
    )


def _timed(command: list[str]) -> tuple[str, float, float]:
    """Return what a command printed, with its CPU and wall seconds, all its processes together."""
    started, before = time.perf_counter(), os.times()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command[3:7])} failed: {done.stderr.strip()[-500:]}")
    after = os.times()
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system
    return done.stdout, spent, time.perf_counter() - started


def _table(found: Sequence[tuple[Job, Found]]) -> list[str]:
    lines = [
        "| study | recipe | seed | validation | test | by class | mean over sites | "
        "least gain over own data | pooled | CPU minutes | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[Found]] = defaultdict(list)
    for job, one in found:
        groups[job.study, job.recipe].append(one)
        lines.append(f"| {job.study} | {job.recipe} | {job.seed} | {' | '.join(_cells([one]))} |")
    for (study, recipe), several in groups.items():
        lines.append(f"| **{study}** | {recipe} | all | {' | '.join(_cells(several))} |")
    return lines


def _cells(found: Sequence[Found]) -> list[str]:
    classes = [name for model, name in found[0].test if model == "federated" and name]
    gains = [
        min(site["federated"] - site["alone"] for site in one.sites.values() if "alone" in site)
        for one in found
        if any("alone" in site for site in one.sites.values())
    ]
    pooled = [one.test["pooled", ""] for one in found if ("pooled", "") in one.test]
    return [
        _spread([one.validation for one in found]),
        _spread([one.test["federated", ""] for one in found]),
        ", ".join(
            f"{name} {_spread([one.test['federated', name] for one in found])}" for name in classes
        ),
        _spread([statistics.mean(s["federated"] for s in one.sites.values()) for one in found]),
        f"{min(gains):+.3f}" if gains else "",
        _spread(pooled) if pooled else "",
        f"{statistics.mean(one.cpu_minutes for one in found):.1f}",
        f"{statistics.mean(one.wall_minutes for one in found):.1f}",
    ]


def _estimate(jobs: Sequence[Job], data_root: str) -> None:
    """Train one round and two, and say what the rounds between them leave for all others."""
    print("| study | recipe | CPU seconds a round | rounds | CPU minutes of the federation |")
    print("|---|---|---|---|---|")
    for job in jobs:
        spent = []
        for rounds in (1, 2):
            short = Job(
                job.study,
                job.recipe,
                job.seed,
                job.out.with_name(f"{job.out.name}-{rounds}"),
                False,
                rounds,
                (*job.changes, "training.warmup=0"),
            )
            spent.append(_timed(short.command(data_root))[1])
        a_round = spent[1] - spent[0]
        study = with_recipe(find_study(job.study), job.study, job.recipe)
        rounds = job.rounds or study.federation.rounds
        whole = (spent[0] + (rounds - 1) * a_round) / 60
        print(f"| {job.study} | {job.recipe} | {a_round:.1f} | {rounds} | {whole:.1f} |")


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


if __name__ == "__main__":
    main()
