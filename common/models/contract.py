"""What a model was made for: its study, and what the images that it learnt from looked like.

Whoever applies the model holds each new image against it. Data, never code.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from wardround.common.runtime.fields import OfForm
from wardround.common.study.study import Study

Short = Annotated[str, StringConstraints(max_length=256)]
Sentence = Annotated[str, StringConstraints(max_length=4_096)]
Digest = Annotated[str, OfForm("^[0-9a-f]{64}$", "64 hexadecimal digits")]
Number = Annotated[float, Field(ge=-1e30, le=1e30)]
Count = Annotated[int, Field(ge=0, le=10**12)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Spread(_Table):
    """The smallest and the largest value among the training images."""

    low: Number
    high: Number

    def plus(self, other: "Spread") -> "Spread":
        """Return what holds both."""
        return Spread(low=min(self.low, other.low), high=max(self.high, other.high))


class SeenIntensities(_Table):
    """What the values of a channel were, as stored, before any preprocessing.

    Attributes:
        dark: The 1st percentile of each image.
        middle: The median of each image.
        bright: The 99th percentile of each image.
    """

    dark: Spread
    middle: Spread
    bright: Spread

    def plus(self, other: "SeenIntensities") -> "SeenIntensities":
        """Return what holds both."""
        return SeenIntensities(
            dark=self.dark.plus(other.dark),
            middle=self.middle.plus(other.middle),
            bright=self.bright.plus(other.bright),
        )


class Seen(_Table):
    """What the training images looked like, as the smallest and largest of their values.

    Each is the value of a single image, so it is written for simulations alone: what it would say
    of a hospital's images has not left the hospital.

    Attributes:
        images: How many were looked at.
        channels: One a channel of the study, in its order; None where all images lacked it.
        size: Voxels along each axis.
        spacing: Millimetres along each axis; None where no file said so.
        orientations: Where their axes pointed to, e.g. "RAS"; empty where no file said so.
        eight_bit: Whether the files held bytes; None where some did and some did not.
        coloured: Whether their planes differed, where the study takes colours; None where some
            did and some did not, and for a study of grey images.
    """

    images: Annotated[int, Field(ge=1, le=10**9)]
    channels: Annotated[tuple[SeenIntensities | None, ...], Field(max_length=256)]
    size: Annotated[tuple[Spread, ...], Field(max_length=3)]
    spacing: Annotated[tuple[Spread, ...], Field(max_length=3)] | None = None
    orientations: Annotated[tuple[Short, ...], Field(max_length=48)] = ()
    eight_bit: bool | None = None
    coloured: bool | None = None

    def plus(self, other: "Seen") -> "Seen":
        """Return what holds both."""
        spacing = None
        if self.spacing is not None and other.spacing is not None:
            spacing = _joined(self.spacing, other.spacing)
        return Seen(
            images=self.images + other.images,
            channels=tuple(
                a.plus(b) if a and b else a or b
                for a, b in zip(self.channels, other.channels, strict=True)
            ),
            size=_joined(self.size, other.size),
            spacing=spacing,
            orientations=tuple(sorted({*self.orientations, *other.orientations})),
            eight_bit=self.eight_bit if self.eight_bit == other.eight_bit else None,
            coloured=self.coloured if self.coloured == other.coloured else None,
        )


def _joined(some: tuple[Spread, ...], others: tuple[Spread, ...]) -> tuple[Spread, ...]:
    return tuple(a.plus(b) for a, b in zip(some, others, strict=True))


class Measured(_Table):
    """One measurement of the model.

    Attributes:
        of: On whom, e.g. "all sites, test patients".
        class_name: One class, or "" for all.
        interval: A 95 % interval; None where it is not known.
        support: Examinations behind it; None where it is not known.
    """

    of: Short
    metric: Short
    class_name: Short = ""
    value: Number
    interval: tuple[Number, Number] | None = None
    support: Count | None = None


class Contract(_Table):
    """What a model was made for.

    Attributes:
        format: Of the model folder; a later version of it has a higher number.
        wardround: The version that wrote it.
        name: Of the model, e.g. ``federated``.
        study: The study without ``[simulation]``: network, classes, channels, preprocessing.
        study_digest: What hospitals approved.
        parameters: Digest over names, shapes, types and values of all weights.
        complete: Whether the weights are all that the network needs; otherwise each site keeps a
            part of its own, which is not here.
        seen: What the training images looked like; None where it is not known.
        seen_note: Why it is not known, or how it was found.
        temperature: What logits are divided by before they become probabilities; None where it was
            never fitted, so that probabilities are not calibrated.
        threshold: From which probability on a class is reported, where a study has two classes or
            is multi-label.
        calibration: How temperature and threshold were found, or why there is no temperature.
    """

    format: Literal[1] = 1
    wardround: Short
    name: Short
    run: Short = ""
    round: Count = 0
    study: dict[str, Any]
    study_digest: Digest
    parameters: Digest
    complete: bool = True
    seen: Seen | None = None
    seen_note: Sentence = ""
    temperature: Annotated[float, Field(gt=0, le=1e3)] | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    calibration: Sentence = ""


class Metrics(_Table):
    """What was measured of a model: the content of ``metrics.json``."""

    measured: Annotated[tuple[Measured, ...], Field(max_length=100_000)] = ()


def study_content(study: Study) -> dict[str, Any]:
    """Return what a contract holds of a study: all that its digest speaks of."""
    return study.model_dump(mode="json", exclude_none=True, exclude={"simulation"})
