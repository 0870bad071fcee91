"""One study that is being drawn: what all its sections have to fit."""

from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar

from tests.studies.patients import SITES, Kind

from wardround.common.study.private_networks import PRIVATE_NETWORKS
from wardround.common.study.registry import NETWORKS, TASKS

Content = dict[str, Any]
_Item = TypeVar("_Item")

# These are drawn less often, and make one step.
HEAVY = ("resnet18", "resnet50", "densenet121", "efficientnet-b0", "swin-unetr")
HEAVY_TOO = ("segresnet", "vit")
OF_MONAI = "monai:UNet"
# A round of these takes half a minute on a core where a volume is the least they take.
TOO_SLOW = {(name, 3) for name in HEAVY}
AUGMENTATIONS = (
    "none",
    "light",
    "xray",
    "ct",
    "mr",
    "dermoscopy",
    "ultrasound",
    "histology",
    "nnunet",
)
MIRRORING = ("dermoscopy", "histology", "nnunet")


class Chance(Random):
    """The draws of one study."""

    def mostly(self, usual: _Item, *others: _Item) -> _Item:
        """Return the usual in two of three draws."""
        return usual if self.random() < 2 / 3 else self.choice(others)

    def seldom(self) -> bool:
        """Return whether one draw in four says so."""
        return self.random() < 1 / 4

    def some(self, keys: dict[str, Sequence[Any]]) -> Content:
        """Return a third of the keys, each with one of its values."""
        return {k: self.choice(v) for k, v in keys.items() if self.random() < 1 / 3}


class Draft:
    """What was drawn first, and decides what else can be drawn."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self.task = chance.choice(sorted(TASKS))
        self.dense, self.restores = TASKS[self.task].dense, TASKS[self.task].restores
        self.privacy = chance.mostly("none", "patient", "site")
        has_grid = self.dense or self.restores or TASKS[self.task].boxes
        table = not has_grid and chance.seldom()
        self.dimensions = 0 if table else chance.mostly(2, 3)
        self.network = self._fitting_network()
        self.heavy = self.network in HEAVY or (self.network in HEAVY_TOO)
        colour = self.dimensions == 2 and chance.seldom()
        self.kind = Kind(self.dimensions or 2, colour, chance.mostly(True, False))
        self.several = TASKS[self.task].classifies and chance.seldom()

    def _fitting_network(self) -> str:
        fitting = [
            name
            for name, entry in NETWORKS.items()
            if self.task in entry.tasks and self.dimensions in entry.dimensions
            if (name, self.dimensions) not in TOO_SLOW
            if self.privacy != "patient" or name in PRIVATE_NETWORKS
        ]
        if self.task == "segmentation" and self.dimensions:
            fitting.append(OF_MONAI)
        weights = [0.06 if name in (*HEAVY, *HEAVY_TOO) else 1.0 for name in fitting]
        return self.chance.choices(fitting, weights)[0]


def sites_of(content: Content) -> list[str]:
    """Return the names of a study's sites."""
    simulation = content["simulation"]
    if simulation["split"] == "natural":
        return list(SITES)
    return [f"hospital-{number + 1}" for number in range(simulation["sites"])]
