"""What makes hospitals alike is worth at a scanner that took no part: brain tissue, four scanners.

Each hospital is left out in turn; the others train, and the model is measured on all patients of
the one that took no part but one, as ``wardround simulate --leave-one-site-out`` does it. Kinds of
scanners:

- ``spread``: the data set's own, which differ in contrast, shading, noise and blur;
- ``steep``: all alike, but one hospital's contrast is another (``x ** 2.7``) and its images shaded;
- ``equal``: all alike.

A variant is chosen on other virtual patients and splits (``--seeds 10``) than those that the
numbers come from (``--seeds 0,1,2``).

    python -m benchmarks.support.adaptation --out runs/adaptation --seeds 0,1,2

A run that is there already is not made again.
"""

import argparse
import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.support.processes import machine
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.server.sites.site_info import describe_sites
from wardround.simulations.experiment.federation import Machine, open_grid, run_federation
from wardround.simulations.experiment.testing.cross_site import cross_site_rows
from wardround.simulations.experiment.training import TrainedModel
from wardround.simulations.run_files.folder import FEDERATED
from wardround.simulations.sites.landmarks import landmarks_of_data
from wardround.simulations.sites.preparation import prepare_sites
from wardround.simulations.studies import find_study

METRIC = "dice"
STEEP = "hospital-3"
SMALL: dict[str, Any] = {
    "data.size": [48, 48],
    "model.features": [8, 16, 32],
    "training.batch_size": 8,
    "training.learning_rate": 1e-2,
    "training.local_epochs": 2,
    "training.schedule": "cosine",
    "federation.rounds": 10,
    "simulation.compare": False,
    "simulation.options.patients": 64,
    "simulation.options.slices": 2,
    "evaluation.test_fraction": 0.2,
}
SCANNERS: dict[str, list[dict[str, Any]]] = {
    "spread": [{"kind": kind} for kind in ("contrast", "bias-field", "noise", "blur")],
    "steep": [
        {"kind": "contrast", "strength": 2.0, "sites": [STEEP]},
        {"kind": "bias-field", "strength": 2.0, "sites": [STEEP]},
    ],
    "equal": [],
}
BATCH = {"model.normalisation": "batch"}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "landmarks": {"landmarks": True},
    "bias": {"data.harmonisation.bias_correction": True},
    "both": {"data.harmonisation.bias_correction": True, "landmarks": True},
    "augmented": {"data.augmentation": "mr"},
    "small-features": {"federation.objective": "small-features"},
    "batch": BATCH,
    "test-time-0.2": {**BATCH, "model.test_time_statistics": 0.2},
    "test-time-0.5": {**BATCH, "model.test_time_statistics": 0.5},
    "test-time-1": {**BATCH, "model.test_time_statistics": 1.0},
    "aligned": {
        **BATCH,
        "federation.objective": "aligned-features",
        "federation.options.feature_weight": 0.1,
    },
    "coral": {"federation.objective": "coral", "federation.options.feature_weight": 1.0},
    "coral-100": {"federation.objective": "coral", "federation.options.feature_weight": 100.0},
}
BESIDE = {name: "batch" for name, changes in VARIANTS.items() if "model.normalisation" in changes}


def main() -> None:
    """Run what is missing, then print a table for each kind of scanners."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--scanners", default="spread,steep,equal")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    said = parser.parse_args()
    print(machine())
    seeds = tuple(int(seed) for seed in said.seeds.split(","))
    for scanners in said.scanners.split(","):
        found: dict[str, dict[tuple[int, str], float]] = {}
        for variant in said.variants.split(","):
            found[variant] = left_out(said.out / f"{scanners}-{variant}", scanners, variant, seeds)
            show(scanners, variant, found)


def study_of(scanners: str, variant: str) -> Study:
    """Return the study of a variant."""
    changes = {**SMALL, "simulation.shift": SCANNERS[scanners], **VARIANTS[variant]}
    matched = changes.pop("landmarks", False)
    study = with_changes(find_study("brain-tissue"), changes)
    return landmarks_of_data(study, None).study if matched else study


def left_out(
    out: Path, scanners: str, variant: str, seeds: tuple[int, ...]
) -> dict[tuple[int, str], float]:
    """Return the Dice of each seed at each hospital, of a model that it did not help to train."""
    found = {}
    for seed in seeds:
        file = out / f"seed-{seed}.json"
        if not file.exists():
            seeded = {"federation.seed": seed, "simulation.seed": seed}
            study, folder = with_changes(study_of(scanners, variant), seeded), out / f"seed-{seed}"
            shutil.rmtree(folder, ignore_errors=True)
            sites = prepare_sites(study, folder).folders
            values = {site.name: dice_without(site, sites, study) for site in sites}
            file.write_text(json.dumps(values), encoding="utf-8")
        values = json.loads(file.read_text(encoding="utf-8"))
        found.update({(seed, site): value for site, value in values.items()})
    return found


def dice_without(left: Path, sites: Sequence[Path], study: Study) -> float:
    """Train without a hospital; return the Dice on all its patients but one."""
    one, name = Machine("cpu", "in-process", threads=1), left.name
    checkpoints = left.parent.parent / f"without-{name}"
    with open_grid([site for site in sites if site != left], study, one) as grid:
        commit = run_federation(grid, study, checkpoints)
    model = TrainedModel(FEDERATED, commit.progress.run, commit.progress.round, commit.parameters)
    all_patients = left.parent.parent / "measured" / name
    shutil.copytree(left, all_patients)
    with (left / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = [*csv.DictReader(stream)]
    for row in rows:  # a site without a training patient takes no part in anything
        row["split"] = "train" if row["patient"] == rows[0]["patient"] else "test"
    with (all_patients / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    measuring = with_changes(study, {"evaluation.validation_fraction": 0.0})
    with open_grid([all_patients], measuring, one) as grid:
        nodes, _ = describe_sites(grid, measuring)
        tested = cross_site_rows(grid, measuring, nodes, [model], [])
        return next(row.value for row in tested if row.metric == METRIC and not row.class_name)


def show(scanners: str, variant: str, found: dict[str, dict[tuple[int, str], float]]) -> None:
    """Print a variant's Dice at each hospital, the mean over seeds, and beside what it is."""
    sites, beside = defaultdict(list), BESIDE.get(variant, "plain")
    if beside == variant:
        beside = "plain"
    for (seed, site), value in found[variant].items():
        other = found.get(beside, {}).get((seed, site), float("nan"))
        sites[site].append((value, value - other))
    each = {
        site: f"{mean(value for value, _ in rows):.3f} {mean(gain for _, gain in rows):+.3f} "
        f"({min(gain for _, gain in rows):+.3f} to {max(gain for _, gain in rows):+.3f})"
        for site, rows in sorted(sites.items())
    }
    print(
        json.dumps({"scanners": scanners, "variant": variant, "beside": beside, **each}), flush=True
    )


if __name__ == "__main__":
    main()
