"""What a start from another model is worth: rounds saved, labels saved, bytes saved.

On HAM10000 the question is naevus or not, for the smallest site has two images of some of the seven
diagnoses; with ``--data melanoma`` it is melanoma or naevus, without the images of the five others,
which the sites have in other shares. On brain-tissue it is grey and white matter. Three
comparisons, over several seeds, each run trained as ``wardround simulate`` trains a study:

- ``sites``: a model of the largest site (rosendahl, 768 images) starts the study of the smallest
  (vienna_dias, 211), which then has half the rounds. Is it as good as from scratch in all of them?
- ``labels``: the sites pretrain without labels, then a tenth of the training patients have labels.
  Is the start from the pretrained encoder better than from scratch?
- ``bytes``: the same start, with the encoder frozen. What does a round send?

    python -m benchmarks.support.transfer --data-root DATA --out runs/transfer --seeds 0,1,2

Each comparison has several ways (``WAYS``). What is chosen among them is chosen on validation
patients, and so is the round that is kept; test patients say what it is worth. A run that is there
already is not made again.
"""

import argparse
import csv
import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save

from benchmarks.support.processes import machine
from wardround.client.session.model_context import ModelContext
from wardround.common.models.pretrained import store_weights
from wardround.common.models.start import WeightsOrigin
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.study import Study
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
Changes = dict[str, Any]
SLOWLY: Changes = {"training.learning_rate": 3e-4}
QUICKLY: Changes = {"training.learning_rate": 3e-3}
# What is tried of a start, beside the study of :meth:`Bench.study`; "frozen" is the first level.
# With "head-first" the last layer is trained alone for a third of the rounds, and then all.
WAYS: dict[str, Changes] = {
    "plain": {},
    "slow": SLOWLY,
    "quick": QUICKLY,
    "frozen": {"model.frozen": ["0.*", "1.*"]},
    "encoder-frozen": {"model.frozen": ["?.*"]},
    "head-first": {},
    "cosine": {"training.schedule": "cosine"},
}
PRETRAININGS: dict[str, Changes] = {
    "masked-l1": {},
    "masked-fine": {
        "training.learning_rate": 1e-2,
        "training.schedule": "cosine",
        "training.batch_size": 8,
        "training.masking": {"fraction": 0.4, "patch": 4},
    },
    "nt-xent": {"training.loss": "nt-xent", "training.batch_size": 64},
}
SKIN: Changes = {
    "data": {
        "colour": True,
        "intensity": "dermoscopy",
        "augmentation": "dermoscopy",
        "classes": CLASSES,
    },
    "model": {"network": "small-cnn", "features": [16, 32, 64], "normalisation": "group"},
    "evaluation": {"metric": "auroc"},
}
BRAIN: Changes = {
    "data": {
        "channels": ["t1"],
        "intensity": "mr",
        "augmentation": "light",
        "classes": ["background", "grey matter", "white matter"],
    },
    "model": {"network": "unet", "features": [8, 16, 32], "normalisation": "instance"},
    "evaluation": {"metric": "dice"},
}
SHARES = (("train", 0.4), ("validation", 0.3), ("test", 0.3))
LABELLED = 0.1  # of the training patients


@dataclass(frozen=True)
class Bench:
    """What all runs have in common."""

    data_root: str
    out: Path
    rounds: int
    size: int
    steps: int
    data: str

    @property
    def task(self) -> str:
        """What is learnt with labels."""
        return "segmentation" if self.data == "brain" else "classification"

    def study(
        self, name: str, manifest: Path, seed: int, changes: Changes, task: str = ""
    ) -> Study:
        """Return a study on the patients of a manifest."""
        of_data = BRAIN if self.data == "brain" else SKIN
        content: dict[str, Any] = {
            "study": {"name": name, "task": task or self.task},
            "data": {**of_data["data"], "size": [self.size, self.size]},
            "model": of_data["model"],
            "training": {"learning_rate": 1e-3, "batch_size": 16, "local_steps": self.steps},
            "federation": {"rounds": self.rounds, "seed": seed},
            "evaluation": of_data["evaluation"],
            "simulation": {
                "data": "folder",
                "split": "natural",
                "compare": False,
                "options": {"manifest": str(manifest)},
            },
        }
        if task == "pretraining":
            del content["data"]["classes"], content["evaluation"]
        return with_changes(parse_study(content), changes)

    def run(self, study: Study) -> "Result":
        """Train a study unless that was done; what was trained goes on where it stopped."""
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
            whole = ModelContext.build(study, "cpu").on_base(commit.parameters)
            start = save(dict(whole), WeightsOrigin(model=study.name).as_metadata())
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
    parser.add_argument("--data-root", default="")
    parser.add_argument("--data", choices=("skin", "melanoma", "brain"), default="skin")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--pretraining-rounds", type=int, default=16)
    parser.add_argument("--pretraining", default="masked-l1", help=", ".join(PRETRAININGS))
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--steps", type=int, default=5, help="of a round at a site")
    parser.add_argument("--parts", default="sites,labels,bytes")
    parser.add_argument("--ways", default="plain", help=", ".join(WAYS))
    said = parser.parse_args()
    out = said.out.resolve()
    bench = Bench(said.data_root, out, said.rounds, said.size, said.steps, said.data)
    bench.out.mkdir(parents=True, exist_ok=True)
    print(machine())
    for seed in (int(text) for text in said.seeds.split(",")):
        for way in said.ways.split(","):
            if "sites" in said.parts:
                show(way, *from_site(bench, seed, way))
            if "labels" in said.parts:
                how = (said.pretraining, said.pretraining_rounds)
                show(f"{said.pretraining}, {way}", *from_unlabelled(bench, seed, way, how))
        if "bytes" in said.parts:
            bytes_sent(bench, seed, (said.pretraining, said.pretraining_rounds))


def from_site(bench: Bench, seed: int, way: str) -> tuple[Result, Result]:
    """Return the smallest site's run from scratch, and from the largest site's model."""
    rows = patients(bench, seed)
    whole = {"training.local_steps": None, "training.local_epochs": 2}
    source = bench.study(f"source-{seed}", some(bench, rows, seed, LARGEST), seed, whole)
    manifest = some(bench, rows, seed, SMALLEST)
    return both(bench, seed, ("small", manifest, way), bench.run(source), bench.rounds // 2)


def from_unlabelled(
    bench: Bench, seed: int, way: str, how: tuple[str, int]
) -> tuple[Result, Result]:
    """Return the run with a tenth of the labels from scratch, and from pretraining without any."""
    start, few = pretrained(bench, seed, how), tenth(bench, seed)
    return both(bench, seed, ("few", few, way), start, bench.rounds)


def both(
    bench: Bench, seed: int, what: tuple[str, Path, str], start: Result, rounds: int
) -> tuple[Result, Result]:
    """Return a run from scratch, and one from a model in so many rounds, in the same way."""
    name, manifest, way = what
    changes = {key: value for key, value in WAYS[way].items() if key != "model.frozen"}
    told = way if changes else "plain"
    scratch = bench.study(f"{name}-scratch-{told}-{seed}", manifest, seed, changes)
    moved = {
        **WAYS[way],
        "model.weights_sha256": start.weights,
        "federation.rounds": rounds,
    }
    if way == "head-first":
        return bench.run(scratch), head_first(bench, seed, what, moved)
    started = bench.study(f"{name}-{start.name}-{way}", manifest, seed, moved)
    return bench.run(scratch), bench.run(started)


def head_first(bench: Bench, seed: int, what: tuple[str, Path, str], moved: Changes) -> Result:
    """Return the last layer trained alone, and then all: one run in the rounds of both."""
    name, manifest, way = what
    alone = moved["federation.rounds"] // 3
    stage = {**moved, "model.frozen": ["?.*"], "federation.rounds": alone}
    head = bench.run(bench.study(f"{name}-{way}-alone-{seed}", manifest, seed, stage))
    left = moved["federation.rounds"] - alone
    stage = {**moved, "model.weights_sha256": head.weights, "federation.rounds": left}
    rest = bench.run(bench.study(f"{name}-{way}-{seed}", manifest, seed, stage))
    return replace(rest, validation=[*head.validation, *rest.validation[1:]])


def pretrained(bench: Bench, seed: int, how: tuple[str, int]) -> Result:
    """Return a pretraining at all sites, of their training patients' images."""
    loss, rounds = how
    changes = {**PRETRAININGS[loss], "federation.rounds": rounds}
    changes |= {"training.local_steps": None, "training.local_epochs": 1}
    name, manifest = f"{loss}-{rounds}-{seed}", some(bench, patients(bench, seed), seed)
    return bench.run(bench.study(name, manifest, seed, changes, "pretraining"))


def tenth(bench: Bench, seed: int) -> Path:
    """Return a manifest in which a tenth of the training patients are left."""
    rows = patients(bench, seed)
    drawn = sorted({row["patient"] for row in rows if row["split"] == "train"})
    random.Random(seed).shuffle(drawn)
    kept = set(drawn[: round(LABELLED * len(drawn))])
    left = [row for row in rows if row["split"] != "train" or row["patient"] in kept]
    return write(bench.out / f"tenth-{seed}.csv", left)


def bytes_sent(bench: Bench, seed: int, how: tuple[str, int]) -> None:
    """Print what a round sends with the encoder trained, and frozen."""
    few, start = tenth(bench, seed), pretrained(bench, seed, how)
    for name, frozen in (("moved", []), ("encoder-frozen", ["?.*"])):
        changes: Changes = {"model.weights_sha256": start.weights, "model.frozen": frozen}
        found = bench.run(bench.study(f"bytes-{name}-{seed}", few, seed, changes))
        print(
            f"{found.name}: round 2 down {found.bytes_down} up {found.bytes_up} bytes, "
            f"test {found.test:.3f}"
        )


def patients(bench: Bench, seed: int) -> list[dict[str, str]]:
    """Return every image with its site and its patient's split, drawn by the seed."""
    folder, rows = bench.out / "all", list[dict[str, str]]()
    skin = bench.data != "brain"
    if not folder.exists():
        line = [sys.executable, "-m", "wardround.cli", "split", "--json", "--out", str(folder)]
        root = ["--data-root", bench.data_root]
        sides = ["--set", f"data.size=[{bench.size},{bench.size}]"]
        line += ["skin-lesions", *root] if skin else ["brain-tissue", *sides]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    keys = ("patient", "image", "label") if skin else ("patient", "image.t1", "mask")
    for manifest in sorted(folder.glob("sites/*/manifest.csv")):
        with manifest.open(newline="", encoding="utf-8") as stream:
            site = manifest.parent.name
            rows += [{key: r[key] for key in keys} | {"site": site} for r in csv.DictReader(stream)]
    if bench.data == "melanoma":
        rows = [row for row in rows if row["label"] in ("mel", "nv")]
    for row in rows if skin else ():
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


def show(way: str, scratch: Result, moved: Result) -> None:
    """Print scratch beside the start from another model, of one seed."""
    best = max(scratch.validation)
    reached = next((n for n, value in enumerate(moved.validation) if value >= best), None)
    said = {
        "way": way,
        "scratch": scratch.name,
        "moved": moved.name,
        "validation": [round(best, 3), round(max(moved.validation), 3)],
        "rounds": [scratch.validation.index(best), reached],
        "test": [round(scratch.test, 3), round(moved.test, 3)],
    }
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
