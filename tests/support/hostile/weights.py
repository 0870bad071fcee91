"""Models that a hostile server might send, for every network that trains privately.

Layers that cancel, huge and tiny scales, denormals, exact zeros, and inputs of the same kinds.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients.clipped_sum import clipped_gradient_sum
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.training.losses.boxes import focal_giou
from wardround.client.training.losses.mean_loss import MeanLoss
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.schema import Parameters, read_parameters, write_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.private_networks import PRIVATE_NETWORKS
from wardround.common.study.registry import NETWORKS

CLIP = 1.0
MOST = CLIP * (1 + 1e-3)
SCALES = (0.0, 1e-45, 1e-40, 1e-20, 1e-6, 1.0, 1e3, 1e6, 1e9, 1e12, 1e18, 1e30)
NARROW = {
    "unet": [4, 6, 8],
    "basic-unet": [4, 4, 4, 6, 6, 4],
    "attention-unet": [4, 6],
    "dynunet": [4, 6, 8],
    "small-cnn": [4, 6],
    "mlp": [8],
}
# A step of one of these takes as long as fifty of the others; only their own method is tried.
DEAR = tuple(name for name in PRIVATE_NETWORKS if name not in (*NARROW, "segresnet"))


@dataclass(frozen=True, slots=True)
class Subject:
    """A network under attack.

    Attributes:
        honest: Its weights before any attack.
        inputs: The shape of an example.
        masks: The shape of a target; empty for a class.
        methods: The ways in which its gradients are clipped.
    """

    network: nn.Module
    honest: Parameters
    inputs: tuple[int, ...]
    masks: tuple[int, ...]
    is_table: bool
    has_boxes: bool
    methods: tuple[str, ...]


@lru_cache(maxsize=2)
def subject_of(name: str) -> Subject:
    """Return a small network of a name, in two dimensions where it takes images."""
    entry, private = NETWORKS[name], PRIVATE_NETWORKS[name]
    model: dict[str, Any] = {"network": name, "normalisation": private.normalisations[0]}
    data: dict[str, Any] = {"classes": ["a", "b"]}
    if name in NARROW:
        model["features"] = NARROW[name]
    dimensions = 2 if 2 in entry.dimensions else entry.dimensions[0]
    if dimensions == 0:
        data |= {"kind": "table", "channels": [], "covariates": [{"name": "x"}, {"name": "y"}]}
    else:
        side = max(entry.minimum_for(tuple(NARROW[name]) if name in NARROW else None), 8)
        data |= {"channels": ["x"], "dimensions": dimensions, "size": [side] * dimensions}
    content = {"study": {"name": "hostile", "task": entry.tasks[0]}, "data": data, "model": model}
    study = parse_study(content)
    network, size = build_network(study, 1).train(), study.input_size or ()
    dense = study.study.task == "segmentation"
    is_table = dimensions == 0
    return Subject(
        network=network,
        honest={key: value.clone() for key, value in read_parameters(network).items()},
        inputs=(study.data.covariate_width,) if is_table else (study.data.planes, *size),
        masks=size if dense else (),
        is_table=is_table,
        has_boxes=study.task.boxes,
        methods=(private.method_for(dimensions),) if name in DEAR else ("loop", "ghost", "vmap"),
    )


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    losses = F.cross_entropy(logits.float(), targets, reduction="none")
    return losses if losses.ndim == 1 else losses.flatten(1).mean(1)


def norm_of(sums: Parameters) -> float:
    return float(torch.cat([part.double().flatten() for part in sums.values()]).norm())


Change = Callable[[Tensor, random.Random], None]


def _scale(weight: Tensor, chance: random.Random) -> None:
    weight.mul_(chance.choice(SCALES))


def _cancel(weight: Tensor, chance: random.Random) -> None:
    weight[1::2] = -weight[0::2][: len(weight[1::2])]
    weight.mul_(chance.choice(SCALES))


def _copy(weight: Tensor, chance: random.Random) -> None:
    weight[1::2] = weight[0::2][: len(weight[1::2])]


def _fill(weight: Tensor, chance: random.Random) -> None:
    weight.fill_(chance.choice(SCALES) * chance.choice([1, -1]))


def _thin_out(weight: Tensor, chance: random.Random) -> None:
    weight.mul_(torch.rand_like(weight) < 0.1)


CHANGES: tuple[Change, ...] = (_scale, _cancel, _copy, _fill, _thin_out)


@torch.no_grad()
def attack_weights(network: nn.Module, chance: random.Random) -> None:
    """Change all layers of a network in one way, or some of them each in its own."""
    everywhere = chance.choice(SCALES) if chance.random() < 0.1 else None
    share = chance.choice([0.1, 0.3, 1.0])  # of the layers that are attacked
    for weight in network.parameters():
        if everywhere is not None:
            weight.mul_(everywhere)
        elif chance.random() < share:
            chance.choice(CHANGES)(weight, chance)


def patients_of(subject: Subject, chance: random.Random) -> PatientBatch:
    """Return two patients; the first has equal examples, or some that differ in the last digit."""
    counts = (chance.randint(1, 3), 1)
    images = torch.rand(1, *subject.inputs).repeat(sum(counts), *(1 for _ in subject.inputs))
    images = images * chance.choice([*SCALES] + [1.0] * len(SCALES))
    if chance.random() < 0.5:
        images = images * (1 + 1e-7 * torch.randn_like(images))
    targets = torch.randint(0, 2, (sum(counts), *subject.masks))
    if subject.has_boxes:
        corners = torch.tensor([[1.0, 2.0, 9.0, 7.0], [6.0, 6.0, 16.0, 16.0]])
        corners = corners.expand(sum(counts), 2, 4)
        targets = torch.cat([targets.float()[:, None, None].expand(-1, 2, 1), corners], dim=2)
    image, table = (None, images) if subject.is_table else (images, None)
    return PatientBatch(Batch(image, table, targets), counts)


def contribution(name: str, seed: int) -> float:
    """Return the norm of what an attacked patient adds by one of the methods; of two, the half."""
    subject, chance = subject_of(name), random.Random(f"{name} {seed}")
    torch.manual_seed(seed)
    write_parameters(subject.network, subject.honest)
    attack_weights(subject.network, chance)
    patients, method = patients_of(subject, chance), chance.choice(subject.methods)
    share = 1.0
    if chance.random() < 0.2:
        share = 0.5
    else:
        patients = patients.slice(0, 1)
    loss = MeanLoss(focal_giou).per_sample if subject.has_boxes else cross_entropy
    sums = clipped_gradient_sum(subject.network, patients, loss, CLIP, method, 8)
    return share * norm_of(sums)


def longest_contribution(name: str, attacks: int) -> float:
    """Return the longest contribution of so many attacks; NaN if one is no number.

    That the attacks reach the bound shows that it is what holds them.
    """
    return max((contribution(name, seed) for seed in range(attacks)), key=_nan_last)


def _nan_last(value: float) -> tuple[bool, float]:
    return (value != value, value)
