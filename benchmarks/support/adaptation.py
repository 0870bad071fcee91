"""What makes hospitals alike is worth at a scanner that took no part: brain tissue, four scanners.

Each hospital is left out in turn; the others train, and the model is measured on all patients of the
one that took no part, as ``wardround simulate --leave-one-site-out`` does it. Three kinds of
scanners:

- ``spread``: the data set's own, which differ in contrast, shading, noise and blur;
- ``steep``: all alike, but one hospital's contrast is another (``x ** 2.7``) and its images shaded;
- ``equal``: all alike.

A variant is chosen on other virtual patients and splits (``--seeds 10``) than those that the numbers
come from (``--seeds 0,1,2``).

    python -m benchmarks.support.adaptation --out runs/adaptation --seeds 0,1,2

A series that is there already is not made again.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.support.processes import machine
from wardround.common.files.tables import read_table
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.series.series import SeriesRequest, resume_series, run_series
from wardround.simulations.run_files.series import LEFT_OUT_EVERYBODY, MeasuredRow, is_series
from wardround.simulations.sites.landmarks import landmarks_of_data
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
        folder, one = out / f"seed-{seed}", Machine("cpu", "in-process", threads=1)
        if is_series(folder):
            resume_series(folder, one)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            study = study_of(scanners, variant)
            run_series(SeriesRequest(study, folder, True, (seed,), one))
        for row in read_table(folder / "measured.csv", MeasuredRow):
            if row.model == LEFT_OUT_EVERYBODY and row.metric == METRIC:
                found[seed, row.site] = row.value
    return found


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
    print(json.dumps({"scanners": scanners, "variant": variant, "beside": beside, **each}))


if __name__ == "__main__":
    main()
