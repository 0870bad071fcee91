"""Every name a study may choose, with what it fits: the allow-lists, free of heavy imports."""

from dataclasses import dataclass
from typing import Literal

from wardround.common.files.packages.references import OpenTable

BOTH = ("classification", "segmentation")
_FEWEST_PATCHES = 7  # an image of fewer tokens a side is hardly one for attention
_LARGEST_PATCH = 16  # ViT-B/16: Dosovitskiy et al. 2021
NO_CLASS = "none"  # the label of a multi-label examination that is of no class


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """What a task asks of a study and of a manifest.

    How it is learnt stands in ``client/tasks``, how it is measured in ``common/metrics``, each
    under the same name.

    Attributes:
        column: The manifest's column that holds what is to be found: the text of a label, the
            file of a mask that lies on the image's grid, or boxes; "" where the images themselves
            are.
        verb: What the network does with an image, before the names of the classes.
        loss: The loss where a study chooses none.
        metric: The metric that picks the best model where a study chooses none.
        dense: Whether there is an answer at every voxel, so that images may differ in size and be
            seen in patches; otherwise there is one answer an image.
        classifies: Whether an examination is of a class: patients of a class can then be counted,
            and with ``data.multi_label`` an examination may be of several.
        boxes: Whether boxes about things are found, so that the network has anchors.
        fewest_classes: How many names ``data.classes`` must give.
        outcome: What ``[data.outcome]`` describes instead of classes: a number, or the time until
            an event; "" for a task that has classes.
        restores: Whether the network restores parts of the image that were hidden from it, so that
            no label is read.
    """

    column: Literal["label", "mask", "boxes", ""]
    verb: str
    loss: str
    metric: str
    dense: bool = False
    classifies: bool = False
    boxes: bool = False
    fewest_classes: int = 2
    outcome: Literal["", "number", "time"] = ""
    restores: bool = False


TASKS: dict[str, TaskEntry] = {
    "classification": TaskEntry(
        "label", "classify each as", "cross-entropy", "auroc", classifies=True
    ),
    "detection": TaskEntry(
        "boxes", "frame every", "focal-giou", "map50", boxes=True, fewest_classes=1
    ),
    "segmentation": TaskEntry("mask", "mark every voxel as", "dice-ce", "dice", dense=True),
    "regression": TaskEntry(
        "label", "estimate the", "mse", "mae", fewest_classes=0, outcome="number"
    ),
    "survival": TaskEntry(
        "label",
        "estimate the time until the",
        "piecewise-hazard",
        "c-index",
        fewest_classes=0,
        outcome="time",
    ),
    "pretraining": TaskEntry(
        "",
        "restore hidden parts of its images",
        "masked-l1",
        "pretraining-error",
        fewest_classes=0,
        restores=True,
    ),
}


def tasks_that(
    *facts: Literal["dense", "classifies", "boxes", "restores"], holds: bool = True
) -> str:
    """Return the tasks of which each fact holds, or none of them, as a message lists them."""
    return " or ".join(
        name
        for name, entry in TASKS.items()
        if all(getattr(entry, fact) == holds for fact in facts)
    )


def largest_patch(length: int) -> int:
    """Return the largest patch that cuts a side into enough pieces for a transformer; 0 if none."""
    largest = min(_LARGEST_PATCH, length // _FEWEST_PATCHES)
    return max((patch for patch in range(2, largest + 1) if length % patch == 0), default=0)


# Features whose second moments CORAL sends: those of resnet50, 16 MB a message.
MOST_MOMENTS = 2048

FINEST_STRIDE = 4  # voxels between the places of a detector's finest level; each further doubles it
DETECTOR_WIDTHS = (16, 32, 32, 64)
_SIDES_OF_STEP = 3  # of an anchor, where a study says nothing: it then overlaps its neighbours'


def anchor_sides(
    features: tuple[int, ...] | None, anchors: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Return the side of the anchors of each level of a detector, in voxels.

    Args:
        features: As ``model.features``: the pyramid has all levels but the first.
        anchors: As ``model.anchors``; None for three times the step between a level's places.
    """
    levels = len(features or DETECTOR_WIDTHS) - 1
    return anchors or tuple(_SIDES_OF_STEP * FINEST_STRIDE * 2**level for level in range(levels))


@dataclass(frozen=True, slots=True)
class NetworkEntry:
    """What a network can be used for.

    Attributes:
        tasks: Tasks it has an output for.
        dimensions: Spatial dimensions it accepts; 0 stands for a table.
        divisor: Each spatial size must be a multiple of it, at the default widths.
        normalisations: Choices beside "default"; empty where the network has a fixed one.
        activations: Whether the activation can be chosen.
        dropout: Whether dropout can be chosen.
        features: Whether the widths can be chosen.
        extra: The optional extra to install, if it needs one.
        minimum: Each spatial size must be at least this, at the default widths.
        widths: Fewest and most widths that ``model.features`` may list.
        narrowest: The least of these widths: some networks halve them inside.
        halves: Whether each further width halves the image once more.
        adapters: Whether it is a transformer, which LoRA adapters fit.
        patches: Whether it cuts the image into equal patches, see :func:`largest_patch`.
        flat: Whether its layers see one value a channel, so that a normalisation over the batch
            needs two examples at least.
    """

    tasks: tuple[str, ...]
    dimensions: tuple[int, ...]
    divisor: int = 1
    normalisations: tuple[str, ...] = ()
    activations: bool = False
    dropout: bool = False
    features: bool = False
    extra: str | None = None
    minimum: int = 1
    widths: tuple[int, int] = (1, 8)
    narrowest: int = 1
    halves: bool = False
    adapters: bool = False
    patches: bool = False
    flat: bool = False

    def divisor_for(self, features: tuple[int, ...] | None) -> int:
        """Return what each spatial size must be a multiple of, with these widths."""
        if features is None or not self.halves or self.divisor == 1:
            return self.divisor
        return int(2 ** (len(features) - 1))

    def minimum_for(self, features: tuple[int, ...] | None) -> int:
        """Return the least spatial size with these widths.

        A normalisation cannot train on a single pixel, so a U-shaped network keeps 2 at its bottom.
        """
        if features is None or not self.halves:
            return self.minimum
        return int(2 ** len(features))


_CHOICES = ("batch", "instance", "group")
_U: tuple[str, ...] = ("segmentation", "pretraining")
_FLAT: tuple[str, ...] = ("classification", "regression", "survival")
_IMAGE: tuple[str, ...] = (*_FLAT, "pretraining")  # has a map of features to restore an image from
_BOXES: tuple[str, ...] = ("detection",)
_OTHER_TASKS = ("classification", "segmentation", "regression", "survival")
_OTHER_NETWORK = NetworkEntry(_OTHER_TASKS, (0, 2, 3))
_OWN_NETWORKS: dict[str, NetworkEntry] = {
    "small-cnn": NetworkEntry(
        _IMAGE, (2, 3), 1, (*_CHOICES, "none"), True, True, True, minimum=4, halves=True
    ),
    "convnext": NetworkEntry(
        _FLAT, (2, 3), features=True, minimum=8, widths=(1, 5), narrowest=2, halves=True
    ),
    "mlp": NetworkEntry(
        _FLAT,
        (0, 2, 3),
        1,
        ("batch", "layer", "none"),
        True,
        True,
        True,
        widths=(0, 8),
        flat=True,
    ),
    "unet": NetworkEntry(
        _U, (2, 3), 8, _CHOICES, True, True, True, minimum=16, widths=(2, 6), halves=True
    ),
    "basic-unet": NetworkEntry(
        _U, (2, 3), 16, _CHOICES, True, True, True, minimum=32, widths=(6, 6), narrowest=2
    ),
    "attention-unet": NetworkEntry(
        _U,
        (2, 3),
        8,
        _CHOICES,
        False,
        True,
        True,
        minimum=16,
        widths=(2, 6),
        narrowest=2,
        halves=True,
    ),
    "segresnet": NetworkEntry(_U, (2, 3), 8, _CHOICES, True, True, False, minimum=16),
    "dynunet": NetworkEntry(
        _U, (2, 3), 8, _CHOICES, True, True, True, minimum=16, widths=(3, 6), halves=True
    ),
    "swin-unetr": NetworkEntry(
        _U, (2, 3), 32, _CHOICES, False, True, False, "transformers", minimum=64, adapters=True
    ),
    "densenet121": NetworkEntry(_IMAGE, (2, 3), 1, _CHOICES, True, True, False, minimum=64),
    "resnet18": NetworkEntry(_IMAGE, (2, 3), 1, _CHOICES, True, False, False, minimum=16),
    "resnet50": NetworkEntry(_IMAGE, (2, 3), 1, _CHOICES, True, False, False, minimum=16),
    "efficientnet-b0": NetworkEntry(_IMAGE, (2, 3), 1, _CHOICES, False, False, False, minimum=64),
    "vit": NetworkEntry(
        _IMAGE,
        (2, 3),
        1,
        (),
        False,
        True,
        False,
        "transformers",
        minimum=16,
        patches=True,
        adapters=True,
    ),
    "retinanet": NetworkEntry(
        _BOXES,
        (2, 3),
        1,
        ("group",),  # the coarsest level of a small image is one place, which no other can take
        True,
        False,
        True,
        minimum=16,
        widths=(2, 6),
        narrowest=2,
        halves=True,
    ),
}
NETWORKS = OpenTable(_OWN_NETWORKS, _OTHER_NETWORK, with_monai=True)

_OWN_LOSSES: dict[str, tuple[str, ...]] = {
    "cross-entropy": BOTH,
    "focal": BOTH,
    "bce": BOTH,
    "dice": ("segmentation",),
    "dice-ce": ("segmentation",),
    "generalised-dice": ("segmentation",),
    "mse": (*BOTH, "regression"),
    "focal-giou": _BOXES,
    "hard-negative-giou": _BOXES,
    "l1": ("regression",),
    "huber": ("regression",),
    "piecewise-hazard": ("survival",),
    "cox": ("survival",),
    "masked-l1": ("pretraining",),
    "nt-xent": ("pretraining",),
}
LOSSES = OpenTable(_OWN_LOSSES, ("classification", "segmentation", "regression"))


@dataclass(frozen=True, slots=True)
class MetricEntry:
    """A number that says how good a model is.

    Attributes:
        tasks: Where it is defined.
        higher_is_better: Its direction.
        title: How a report calls it.
        surface: Whether it needs surface distances, which are only computed at the end.
        unbounded: Whether it can leave [0, 1] though more of it is better.
    """

    tasks: tuple[str, ...]
    higher_is_better: bool
    title: str
    surface: bool = False
    unbounded: bool = False

    @property
    def in_unit_interval(self) -> bool:
        """Whether its values lie in [0, 1]; a loss, a distance or an error has a unit."""
        return self.higher_is_better and not self.unbounded


class _Metrics(OpenTable[MetricEntry]):
    """A metric of a package lies in [0, 1], more of it is better, and its name is its title."""

    def _of(self, name: str) -> MetricEntry:
        return MetricEntry(self._other.tasks, True, name)


_OWN_METRICS: dict[str, MetricEntry] = {
    "loss": MetricEntry(tuple(TASKS), False, "loss"),
    "accuracy": MetricEntry(("classification",), True, "accuracy"),
    "balanced-accuracy": MetricEntry(("classification",), True, "balanced accuracy"),
    "f1": MetricEntry(("classification",), True, "F1 (macro)"),
    "auroc": MetricEntry(("classification",), True, "AUROC"),
    "dice": MetricEntry(("segmentation",), True, "Dice (mean of foreground classes)"),
    "hd95": MetricEntry(("segmentation",), False, "HD95 in mm", surface=True),
    "surface-dice": MetricEntry(("segmentation",), True, "surface Dice", surface=True),
    "map50": MetricEntry(("detection",), True, "mAP at IoU .50"),
    "map": MetricEntry(("detection",), True, "mAP (IoU .50 to .95)"),
    "froc": MetricEntry(("detection",), True, "FROC (sensitivity at 1/8 to 8 false positives)"),
    "mae": MetricEntry(("regression",), False, "mean absolute error"),
    "rmse": MetricEntry(("regression",), False, "root mean squared error"),
    "r2": MetricEntry(("regression",), True, "R2", unbounded=True),
    "c-index": MetricEntry(("survival",), True, "C-index"),
    "brier": MetricEntry(("survival",), False, "Brier score"),
    "calibration-error": MetricEntry(("regression", "survival"), False, "calibration error"),
    "horizon-calibration-error": MetricEntry(
        ("survival",), False, "calibration error at the horizon"
    ),
    "pretraining-error": MetricEntry(
        ("pretraining",), False, "share of what pretraining asks that is not solved"
    ),
}
METRICS = _Metrics(
    _OWN_METRICS, MetricEntry(("classification", "segmentation", "regression"), True, "")
)
