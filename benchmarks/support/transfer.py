"""What a start from another model is worth on HAM10000: rounds saved, labels saved, bytes saved.

The question is naevus or not, for the smallest site has two images of some of the seven diagnoses.
Three comparisons, over several seeds, each run trained as ``wardround simulate`` trains a study:

- ``sites``: a model of the largest site (rosendahl, 768 images) starts the study of the smallest
  (vienna_dias, 211). After how many rounds is it as good as the best round from scratch?
- ``labels``: the four sites pretrain without labels, then a tenth of the training patients have
  labels. Is the start from the pretrained encoder better than from scratch?
- ``bytes``: the same start, with the encoder frozen. What does a round send?

    python -m benchmarks.support.transfer --data-root DATA --out runs/transfer --seeds 0,1,2

Rounds are compared on validation patients; the kept models, chosen on these too, on test patients.
A run that is there already is not made again.
"""

import argparse
import csv
import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save

from benchmarks.support.processes import machine
from wardround.common.models.pretrained import store_weights
from wardround.common.models.start import WeightsOrigin
from wardround.common.study.loading import parse_study
from wardround.server.checkpoints.history import read_records
from wardround.server.checkpoints.store import CheckpointStore
from wardround.server.sites.site_info import describe_sites
from wardround.simulations.experiment.federation import Machine, open_grid, run_federation
from wardround.simulations.experiment.rows import history_rows, traffic_rows
from wardround.simulations.experiment.testing.cross_site import cross_site_rows
from wardround.simulations.experiment.training import TrainedModel
from wardround.simulations.run_files.folder import FEDERATED, MetricRow
from wardround.simulations.sites.preparation import prepare_sites, reopen_sites

CLASSES = ["other", "nv"]
LARGEST, SMALLEST = "rosendahl", "vienna_dias"
METRIC = "auroc"
SHARES = (("train", 0.4), ("validation", 0.3), ("test", 0.3))
LABELLED = 0.1  # of the training patients


@dataclass(frozen=True)
class Bench:
    """What all runs have in common."""

    data_root: str
    out: Path
    rounds: int
    size: int

    def study(self, name: str, task: str, manifest: Path, seed: int) -> dict[str, Any]:
        """Return a study of the small network on the patients of a manifest."""
        restores = task == "pretraining"
        return {
            "study": {"name": name, "task": task},
            "data": {
                "colour": True,
                "size": [self.size, self.size],
                "intensity": "dermoscopy",
                "augmentation": "dermoscopy",
                **({} if restores else {"classes": CLASSES}),
            },
            "model": {
                "network": "small-cnn",
                "features": [16, 32, 64],
                "normalisation": "group",
            },
            "training": {"learning_rate": 1e-3, "batch_size": 16},
            "federation": {"rounds": self.rounds, "seed": seed},
            "evaluation": {} if restores else {"metric": METRIC},
            "simulation": {
                "data": "folder",
                "split": "natural",
                "compare": False,
                "options": {"manifest": str(manifest)},
            },
        }

    def run(self, content: dict[str, Any]) -> "Result":
        """Train a study unless that was done; what was trained goes on where it stopped."""
        study = parse_study(content)
        out = self.out / study.name
        file = out / "result.json"
        if not file.exists():
            sites = reopen_sites(out) if (out / "split.csv").exists() else prepare_sites(study, out)
            one = Machine("cpu", "in-process", threads=1)
            with open_grid(sites.folders, study, one) as grid:
                checkpoints = out / "checkpoints" / FEDERATED
                commit = run_federation(grid, study, checkpoints)
                history = [*read_records(CheckpointStore(checkpoints).history_path)]
                model = TrainedModel(
                    FEDERATED, commit.progress.run, commit.progress.round, commit.parameters
                )
                nodes, _ = describe_sites(grid, study)
                tested = [*cross_site_rows(grid, study, nodes, [model], [])]
            start = save(dict(commit.parameters), WeightsOrigin(model=study.name).as_metadata())
            sha256 = hashlib.sha256(start).hexdigest()
            store_weights(sha256, start)
            traffic = [row for row in traffic_rows(FEDERATED, history) if row.round == 2]
            result = Result(
                study.name,
                merged(history_rows(FEDERATED, history), study.metric),
                merged(tested, study.metric)[-1],
                sha256,
                sum(row.bytes_down for row in traffic),
                sum(row.bytes_up for row in traffic),
            )
            file.write_text(json.dumps(asdict(result)), encoding="utf-8")
        return Result(**json.loads(file.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Result:
    """What a run came to: the metric by round and at the end, its weights, a round's bytes."""

    name: str
    validation: list[float]
    test: float
    weights: str
    bytes_down: int
    bytes_up: int


def merged(rows: Iterable[MetricRow], metric: str) -> list[float]:
    """Return the metric over all classes and patients, in the order of the rows."""
    found = [row for row in rows if row.metric == metric and not row.class_name]
    together = [row.value for row in found if row.site == "all sites"]
    return together or [row.value for row in found]


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--pretraining-rounds", type=int, default=16)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--parts", default="sites,labels,bytes")
    said = parser.parse_args()
    bench = Bench(said.data_root, said.out.resolve(), said.rounds, said.size)
    bench.out.mkdir(parents=True, exist_ok=True)
    print(machine())
    seeds = [int(seed) for seed in said.seeds.split(",")]
    if "sites" in said.parts:
        show("largest to smallest site", [from_site(bench, seed) for seed in seeds])
    if "labels" in said.parts:
        found = [from_unlabelled(bench, seed, said.pretraining_rounds) for seed in seeds]
        show("a tenth of the labels", found)
    if "bytes" in said.parts:
        bytes_sent(bench, seeds[0], said.pretraining_rounds)


def from_site(bench: Bench, seed: int) -> tuple[Result, Result]:
    """Return the smallest site's run from scratch, and from the largest site's model."""
    rows = patients(bench, seed)
    source = bench.study(f"source-{seed}", "classification", some(bench, rows, seed, LARGEST), seed)
    start = bench.run(source).weights
    manifest = some(bench, rows, seed, SMALLEST)
    scratch = bench.study(f"small-scratch-{seed}", "classification", manifest, seed)
    moved = bench.study(f"small-moved-{seed}", "classification", manifest, seed)
    moved["model"]["weights_sha256"] = start
    return bench.run(scratch), bench.run(moved)


def from_unlabelled(bench: Bench, seed: int, rounds: int) -> tuple[Result, Result]:
    """Return the run with a tenth of the labels from scratch, and from pretraining without any."""
    start, few = pretrained(bench, seed, rounds), tenth(bench, seed)
    scratch = bench.study(f"few-scratch-{seed}", "classification", few, seed)
    moved = bench.study(f"few-moved-{seed}", "classification", few, seed)
    moved["model"]["weights_sha256"] = start
    return bench.run(scratch), bench.run(moved)


def pretrained(bench: Bench, seed: int, rounds: int) -> str:
    """Return the weights of a pretraining at all sites, of their training patients' images."""
    study = bench.study(
        f"pretraining-{seed}", "pretraining", some(bench, patients(bench, seed), seed), seed
    )
    study["federation"]["rounds"] = rounds
    return bench.run(study).weights


def tenth(bench: Bench, seed: int) -> Path:
    """Return a manifest in which a tenth of the training patients are left."""
    rows = patients(bench, seed)
    drawn = sorted({row["patient"] for row in rows if row["split"] == "train"})
    random.Random(seed).shuffle(drawn)
    kept = set(drawn[: round(LABELLED * len(drawn))])
    left = [row for row in rows if row["split"] != "train" or row["patient"] in kept]
    return write(bench.out / f"tenth-{seed}.csv", left)


def bytes_sent(bench: Bench, seed: int, rounds: int) -> None:
    """Print what a round sends with the encoder trained, and frozen."""
    few, start = tenth(bench, seed), pretrained(bench, seed, rounds)
    for name, frozen in (("moved", []), ("frozen", ["?.*"])):
        study = bench.study(f"few-{name}-{seed}", "classification", few, seed)
        study["model"]["weights_sha256"] = start
        if frozen:
            study["model"]["frozen"] = frozen
        found = bench.run(study)
        print(
            f"{found.name}: round 2 down {found.bytes_down} up {found.bytes_up} bytes, "
            f"test {found.test:.3f}"
        )


def patients(bench: Bench, seed: int) -> list[dict[str, str]]:
    """Return every image with its site and its patient's split, drawn by the seed."""
    folder, rows = bench.out / "all", list[dict[str, str]]()
    if not folder.exists():
        line = [sys.executable, "-m", "wardround.cli", "split", "skin-lesions", "--json"]
        line += ["--data-root", bench.data_root, "--out", str(folder)]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    for manifest in sorted(folder.glob("sites/*/manifest.csv")):
        with manifest.open(newline="", encoding="utf-8") as stream:
            keys = ("patient", "image", "label")
            site = manifest.parent.name
            rows += [{key: r[key] for key in keys} | {"site": site} for r in csv.DictReader(stream)]
    for row in rows:
        row["label"] = row["label"] if row["label"] in CLASSES else CLASSES[0]
    splits: dict[str, str] = {}
    for site in sorted({row["site"] for row in rows}):
        drawn = sorted({row["patient"] for row in rows if row["site"] == site})
        random.Random(seed).shuffle(drawn)
        start = 0.0
        for split, share in SHARES:
            end = start + share * len(drawn)
            splits |= dict.fromkeys(drawn[round(start) : round(end)], split)
            start = end
    return [row | {"split": splits[row["patient"]]} for row in rows]


def some(bench: Bench, rows: list[dict[str, str]], seed: int, site: str = "") -> Path:
    """Return a manifest of one site, or of all."""
    left = [row for row in rows if not site or row["site"] == site]
    return write(bench.out / f"{site or 'all-sites'}-{seed}.csv", left)


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write a manifest."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    return path


def show(title: str, pairs: list[tuple[Result, Result]]) -> None:
    """Print scratch beside the start from another model, a seed a line."""
    print(f"\n{title} ({METRIC})")
    for scratch, moved in pairs:
        best = max(scratch.validation)
        reached = next((n for n, value in enumerate(moved.validation) if value >= best), None)
        said = {
            "scratch": scratch.name,
            "best_validation": round(best, 3),
            "in_round": scratch.validation.index(best),
            "reached_in_round": reached,
            "moved_best_validation": round(max(moved.validation), 3),
            "test_scratch": round(scratch.test, 3),
            "test_moved": round(moved.test, 3),
        }
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
