"""``[training]``: one site's work between two messages."""

from typing import Annotated, Literal

from pydantic import Field

from wardround.common.study.sections.fields import (
    Fraction,
    NonNegative,
    OrRegistered,
    Positive,
    Rounds,
    Section,
    Size,
)

Loss = Literal[
    "cross-entropy",
    "focal",
    "bce",
    "dice",
    "dice-ce",
    "generalised-dice",
    "mse",
    "focal-giou",
    "hard-negative-giou",
    "l1",
    "huber",
    "piecewise-hazard",
    "cox",
    "masked-l1",
    "nt-xent",
]  # the builders stand in wardround.client.training.losses.registry


class AdversarialSection(Section):
    """``[training.adversarial]``: training images are changed against the network at each step.

    Madry et al. 2018 (arXiv 1706.06083): the worst image within ``epsilon`` of each training image
    is looked for by ``steps`` steps of projected gradient ascent, and trained on instead of it.

    Attributes:
        epsilon: How far a grey value may go, in 255ths of the image's range.
        fraction: Share of each batch that is changed; the rest is trained on as it is.
        start_round: The first round in which it is done.
    """

    epsilon: Annotated[float, Field(gt=0, le=64)] = 4.0
    steps: Annotated[int, Field(ge=1, le=100)] = 3
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    start_round: Rounds = 1


class MaskingSection(Section):
    """``[training.masking]``: what pretraining hides of each image (Xie et al. 2022, SimMIM).

    Attributes:
        fraction: Share of the image that is hidden.
        patch: Side of the squares or cubes that are hidden, in pixels; an eighth of the image's
            shortest side where absent.
    """

    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.6
    patch: Size | None = None


class TrainingSection(Section):
    """``[training]``: one site's work between two messages.

    Attributes:
        nesterov: Whether momentum looks ahead (Sutskever et al. 2013).
        ema: How much of the mean of the round's networks each further step keeps. What leaves the
            site is that mean; its steps go on from the last network.
        label_smoothing: What share of a label is spread evenly over all classes (Szegedy et al.
            2016, section 7).
        mixup: alpha of the Beta distribution by which two examples are mixed (Zhang et al. 2018);
            0 mixes none.
    """

    loss: Annotated[Loss, OrRegistered()] | None = None
    class_weights: (
        Literal["none", "balanced"] | Annotated[tuple[Positive, ...], Field(max_length=10_000)]
    ) = "none"
    optimiser: Literal["sgd", "adam", "adamw"] = "adam"
    learning_rate: Positive = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False
    weight_decay: NonNegative = 0.0
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0
    schedule: Literal["constant", "cosine", "polynomial", "step"] = "constant"
    warmup: Fraction = 0.0
    batch_size: Size = 32
    local_epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    local_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gradient_clip: Positive | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    patch_size: Annotated[tuple[Size, ...], Field(max_length=8)] | None = None
    patches_per_image: Size = 1
    foreground_fraction: Fraction = 0.5
    adversarial: AdversarialSection | None = None
    masking: MaskingSection | None = None
