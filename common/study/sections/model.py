"""``[model]``: a network by name, and its free choices."""

from typing import Annotated, Literal

from pydantic import Field

from wardround.common.runtime.fields import OfForm
from wardround.common.study.sections.fields import (
    Argument,
    ArgumentName,
    Positive,
    Section,
    Size,
    Text,
)


class ModelSection(Section):
    """``[model]``: a network by name, and its free choices.

    Attributes:
        network: Of Wardround's own, of an installed package (``package:name``), or a class of MONAI
            (``monai:Class``).
        arguments: What a network that is not Wardround's own is built with, beside what follows
            from the study: dimensions, input planes, outputs, image size.
        fusion: Where channels and clinical values come together: as planes of one network, inside
            of a network whose channels have layers of their own, or at the logits.
        adapter_rank: Rank of LoRA adapters; the network is then frozen but for them and its head.
        adapter_scale: What their output is multiplied by, alpha / r in the paper.
        weights_sha256: Hash of a file of pretrained weights that training starts from, or that lie
            beneath the adapters; drawn if absent.
        frozen: Patterns of numbers that training leaves as they are, and that do not travel.
        anchors: Of a detector: sides of the squares or cubes that its boxes start from, in voxels,
            one a level, the finest first.
        deep_supervision: How many of a U-Net's coarser levels answer too while it is trained, each
            with half the weight of the finer one before it.
        test_time_statistics: What part of a batch normalisation's statistics are the image's own
            where the network is evaluated; None trusts those of the training alone.
        fixer: "opacus": layers that cannot train under privacy.mode = "patient" are replaced as
            Opacus's fixers do, batch normalisation by group normalisation, and recurrent and
            attention layers by those whose gradients are known for each example.
    """

    network: Text
    arguments: Annotated[dict[ArgumentName, Argument], Field(max_length=32)] = Field(
        default_factory=dict
    )
    features: Annotated[tuple[Size, ...], Field(max_length=64)] | None = None
    anchors: Annotated[tuple[Size, ...], Field(max_length=8)] | None = None
    normalisation: Literal["default", "batch", "instance", "group", "layer", "none"] = "default"
    activation: Literal["default", "relu", "leakyrelu", "prelu", "gelu", "elu", "swish"] = "default"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    fusion: Literal["early", "intermediate", "late"] = "early"
    adapter_rank: Annotated[int, Field(ge=1, le=256)] | None = None
    adapter_scale: Positive = 1.0
    weights_sha256: Annotated[str, OfForm("^[0-9a-f]{64}$", "64 hexadecimal digits")] | None = None
    frozen: Annotated[tuple[Text, ...], Field(max_length=1_000)] = ()
    deep_supervision: Annotated[int, Field(ge=0, le=4)] = 0
    test_time_statistics: Annotated[float, Field(gt=0, le=1)] | None = None
    fixer: Literal["none", "opacus"] = "none"

    @property
    def adapted(self) -> bool:
        """Whether a part of the network is frozen, so that only the rest is trained and sent."""
        return self.adapter_rank is not None or bool(self.frozen)
