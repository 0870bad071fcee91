"""The job of a deployed federation: a table of two numbers, a perceptron, one step.

The work is trivial whatever the network's size, so that what is measured is the federation.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

SITES = ("site-0", "site-1")
TRAINED_ON = 24  # patients a site trains on, in one step
_INPUTS, _CLASSES, _PATIENTS_OF_A_SITE = 2, 2, 40
_SPLITS = ("train", "train", "train", "validation", "test")


@dataclass(frozen=True)
class Perceptron:
    """The network of the job.

    Attributes:
        hidden: The widths of its hidden layers.
    """

    hidden: tuple[int, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """All layers' widths, from the inputs to the classes."""
        return _INPUTS, *self.hidden, _CLASSES

    @property
    def megabytes(self) -> float:
        """Its numbers as float32."""
        return sum(4 * (before + 1) * after for before, after in pairwise(self.widths)) / 1e6


TINY = Perceptron((8,))


def of_size(megabytes: float, layers: int = 7) -> Perceptron:
    """Return a perceptron of about this size, with equal layers."""
    return Perceptron((round((megabytes * 1e6 / 4 / layers) ** 0.5),) * (layers + 1))


def make_study(
    folder: Path, network: Perceptron, rounds: int, sites: Sequence[str] = SITES
) -> Study:
    """Write the patients, and return the study about them."""
    return parse_study(
        {
            "study": {"name": "federation-job", "task": "classification"},
            "data": {
                "kind": "table",
                "classes": ["no", "yes"],
                "covariates": [{"name": name, "mean": 0.5, "scale": 1.0} for name in ("a", "b")],
            },
            "model": {"network": "mlp", "features": list(network.hidden)},
            "training": {
                "optimiser": "sgd",
                "learning_rate": 0.1,
                "local_steps": 1,
                "batch_size": TRAINED_ON,
            },
            "federation": {"rounds": rounds, "minimum_sites": len(sites)},
            "evaluation": {"keep": "last"},
            "simulation": {
                "data": "folder",
                "split": "natural",
                "compare": False,
                "options": {"manifest": str(_write_manifest(folder, sites))},
            },
        }
    )


def _write_manifest(folder: Path, sites: Sequence[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    generator, manifest = np.random.default_rng(0), folder / "manifest.csv"
    with manifest.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "label", "split", "site", "a", "b"])
        for number in range(_PATIENTS_OF_A_SITE * len(sites)):
            a, b = generator.normal(loc=number % 2, size=_INPUTS)
            turn, place = divmod(number // 2, len(sites))
            split, site = _SPLITS[turn % len(_SPLITS)], sites[place]
            writer.writerow([f"p{number}", number % 2, split, site, a, b])
    return manifest
