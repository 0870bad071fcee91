"""Every name a study may choose, with what it fits: the allow-lists, free of heavy imports."""

from dataclasses import dataclass
from typing import Literal

Task = Literal["classification", "segmentation"]
BOTH: tuple[Task, ...] = ("classification", "segmentation")


@dataclass(frozen=True, slots=True)
class NetworkEntry:
    """What a network can be used for.

    Attributes:
        tasks: Tasks it has an output for.
        dimensions: Spatial dimensions it accepts; 0 stands for a table.
        divisor: Each spatial size must be a multiple of it.
        normalisations: Choices beside "default"; empty where the network has a fixed one.
        activations: Whether the activation can be chosen.
        dropout: Whether dropout can be chosen.
        features: Whether the widths can be chosen.
        extra: The optional extra to install, if it needs one.
    """

    tasks: tuple[Task, ...]
    dimensions: tuple[int, ...]
    divisor: int = 1
    normalisations: tuple[str, ...] = ()
    activations: bool = False
    dropout: bool = False
    features: bool = False
    extra: str | None = None


_CHOICES = ("batch", "instance", "group")
NETWORKS: dict[str, NetworkEntry] = {
    "small-cnn": NetworkEntry(
        ("classification",), (2, 3), 1, ("batch", "instance", "group", "none"), True, True, True
    ),
    "mlp": NetworkEntry(
        ("classification",), (0, 2, 3), 1, ("batch", "layer", "none"), True, True, True
    ),
    "unet": NetworkEntry(("segmentation",), (2, 3), 8, _CHOICES, True, True, True),
    "basic-unet": NetworkEntry(("segmentation",), (2, 3), 16, _CHOICES, True, True, True),
    "attention-unet": NetworkEntry(("segmentation",), (2, 3), 8, (), False, True, True),
    "segresnet": NetworkEntry(("segmentation",), (2, 3), 8, _CHOICES, True, True, False),
    "dynunet": NetworkEntry(("segmentation",), (2, 3), 8, _CHOICES, True, True, True),
    "swin-unetr": NetworkEntry(
        ("segmentation",), (2, 3), 32, ("batch", "instance"), False, True, False, "transformers"
    ),
    "densenet121": NetworkEntry(("classification",), (2, 3), 1, _CHOICES, True, True, False),
    "resnet18": NetworkEntry(("classification",), (2, 3), 1, _CHOICES, False, False, False),
    "resnet50": NetworkEntry(("classification",), (2, 3), 1, _CHOICES, False, False, False),
    "efficientnet-b0": NetworkEntry(("classification",), (2, 3), 1, _CHOICES, False, False, False),
    "vit": NetworkEntry(("classification",), (2, 3), 1, (), False, True, False, "transformers"),
}

LOSSES: dict[str, tuple[Task, ...]] = {
    "cross-entropy": BOTH,
    "focal": BOTH,
    "bce": BOTH,
    "dice": ("segmentation",),
    "dice-ce": ("segmentation",),
    "generalised-dice": ("segmentation",),
    "mse": BOTH,
}


@dataclass(frozen=True, slots=True)
class MetricEntry:
    """A number that says how good a model is.

    Attributes:
        tasks: Where it is defined.
        higher_is_better: Its direction.
        title: How a report calls it.
        surface: Whether it needs surface distances, which are only computed at the end.
    """

    tasks: tuple[Task, ...]
    higher_is_better: bool
    title: str
    surface: bool = False


METRICS: dict[str, MetricEntry] = {
    "loss": MetricEntry(BOTH, False, "loss"),
    "accuracy": MetricEntry(("classification",), True, "accuracy"),
    "balanced-accuracy": MetricEntry(("classification",), True, "balanced accuracy"),
    "f1": MetricEntry(("classification",), True, "F1 (macro)"),
    "auroc": MetricEntry(("classification",), True, "AUROC"),
    "dice": MetricEntry(("segmentation",), True, "Dice (mean of foreground classes)"),
    "hd95": MetricEntry(("segmentation",), False, "HD95 in mm", surface=True),
    "surface-dice": MetricEntry(("segmentation",), True, "surface Dice", surface=True),
}

DEFAULT_LOSS: dict[Task, str] = {"classification": "cross-entropy", "segmentation": "dice-ce"}
DEFAULT_METRIC: dict[Task, str] = {"classification": "auroc", "segmentation": "dice"}

STRATEGIES: dict[str, str] = {
    "fedavg": "the mean of the sites' models, weighted by their training examinations",
}
