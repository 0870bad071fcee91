"""How the risk of a hazard model ranks patients, chosen on validation; and its Brier score.

Two public sets of patients that lifelines ships: GBSG2 (686 with breast cancer, Schumacher et al.
1994) and Rossi (432 after prison, Rossi et al. 1980), each split at random into four hospitals. A
quarter of the patients are for validation and a quarter for the test. Over several seeds:

- the C-index of the risk as the share of the time up to the horizon that is expected to be lost,
  beside that of the probability of an event up to the horizon;
- the integrated Brier score, beside that of a Kaplan-Meier curve of the training patients, which
  says the same of everybody.

    python -m benchmarks.support.survival --out runs/survival --seeds 0,1,2
"""

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.support.processes import machine
from wardround.common.metrics.censoring import censored_cases
from wardround.common.metrics.survival import at_horizon, exact_pairs, time_edges
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.study import Study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import SimulationRequest, simulate
from wardround.simulations.run_files.folder import FEDERATED
from wardround.simulations.run_files.outcomes import Outcomes, outcomes_together, read_outcomes

SETS = {
    "gbsg2": (365.0, 730.0, 1095.0, 1460.0, 1825.0),  # days
    "rossi": (13.0, 26.0, 39.0, 52.0),  # weeks
}


@dataclass(frozen=True)
class Ranked:
    """What one run gives on one split."""

    time_lost: float
    at_horizon: float
    brier: float
    brier_of_all: float


def write_patients(name: str, folder: Path) -> Study:
    """Write a set as a manifest; return its study."""
    from lifelines import datasets

    table = datasets.load_gbsg2() if name == "gbsg2" else datasets.load_rossi()
    table = table.rename(columns={"cens": "event", "week": "time", "arrest": "event"})
    for column, words in {
        "menostat": {"Pre": 0, "Post": 1},
        "horTh": {"no": 0, "yes": 1},
        "tgrade": {"I": 1, "II": 2, "III": 3},
    }.items():
        if column in table:
            table[column] = table[column].map(words)
    values = [column for column in table if column not in ("time", "event")]
    scales = [
        {"name": one, "mean": float(table[one].mean()), "scale": float(table[one].std())}
        for one in values
    ]
    place = folder / f"{name}.csv"
    with place.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", *table.columns])
        writer.writerows([f"p{at}", *row] for at, row in enumerate(table.values.tolist()))
    return parse_study(
        {
            "study": {"name": name, "task": "survival"},
            "data": {"kind": "table", "covariates": scales, "outcome": {"times": SETS[name]}},
            "model": {"network": "mlp", "features": [16]},
            "training": {"learning_rate": 0.005, "batch_size": 32, "local_steps": 10},
            "federation": {"rounds": 20},
            "evaluation": {"metric": "brier", "validation_fraction": 0.25, "test_fraction": 0.25},
            "simulation": {"sites": 4, "compare": False, "options": {"manifest": str(place)}},
        }
    )


def ranked(run: Path, study: Study, split: str) -> Ranked:
    """Return what the federated model of a run gives on all hospitals' patients of a split."""
    found = read_outcomes(run, "time")
    parts = [one for (model, _, of), one in found.items() if (model, of) == (FEDERATED, split)]
    all_of_them = outcomes_together(parts)
    errors = all_of_them.errors
    return Ranked(
        _index(all_of_them, all_of_them.estimates),
        _index(all_of_them, 1 - errors.alive),
        float(errors.brier.sum() / errors.told.sum()),
        _same_of_everybody(run, study, parts),
    )


def _index(said: Outcomes, risks: NDArray[np.float64]) -> float:
    right, comparable = exact_pairs(said.truth, said.events, risks)
    return float(right / comparable)


def _same_of_everybody(run: Path, study: Study, parts: list[Outcomes]) -> float:
    """Return the integrated Brier score of the Kaplan-Meier curve of all training patients."""
    from lifelines import KaplanMeierFitter

    times, events = [], []
    for manifest in sorted(run.glob("sites/*/manifest.csv")):
        with manifest.open(newline="", encoding="utf-8") as stream:
            train = [r["label"] for r in csv.DictReader(stream) if r["split"] == "train"]
        times += [float(label.partition(";")[0]) for label in train]
        events += [float(label.partition(";")[2]) > 0 for label in train]
    edges = time_edges(study)
    curve = KaplanMeierFitter().fit(times, events).predict(edges).to_numpy()
    total = told = 0.0
    for one in parts:  # each hospital weighs with its own ends of follow-up
        kept = at_horizon(one.truth, one.events, float(edges[-1]))
        errors = censored_cases(*kept, np.tile(curve, (len(one.truth), 1)), edges)
        total, told = total + float(errors.brier.sum()), told + float(errors.told.sum())
    return total / told


def main() -> None:
    """Print a line a set, seed and split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    alone = Machine("cpu", "in-process", threads=1)
    sys.stdout.write(f"{machine()}\nset seed split time-lost at-horizon brier brier-of-all\n")
    for name in SETS:
        plain = write_patients(name, given.out)
        for seed in map(int, given.seeds.split(",")):
            changes = {"federation.seed": seed, "simulation.seed": seed}
            study, run = with_changes(plain, changes), given.out / f"{name}-{seed}"
            if not run.exists():
                simulate(SimulationRequest(study, run, alone))
            for split in ("validation", "test"):
                one = ranked(run, study, split)
                sys.stdout.write(
                    f"{name} {seed} {split} {one.time_lost:.3f} {one.at_horizon:.3f} "
                    f"{one.brier:.3f} {one.brier_of_all:.3f}\n"
                )


if __name__ == "__main__":
    main()
