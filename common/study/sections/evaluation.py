"""``[evaluation]``: what is measured, and on whom."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from wardround.common.study.sections.fields import (
    Measured,
    Name,
    Positive,
    Registered,
    Section,
    Text,
)

InsideOne = Annotated[float, Field(gt=0, lt=1)]


def _by_class(content: object) -> object:
    if not isinstance(content, dict):
        msg = "write it by class, as { disease = 0.02 }"
        raise ValueError(msg)  # pydantic turns it into a refusal
    return content


class OperatingPoint(Section):
    """``operating_point``: what the threshold that is chosen on validation patients shall reach.

    Attributes:
        sensitivity: At least this share of a class's cases is found.
        specificity: At least this share of the others is left alone, instead.
    """

    sensitivity: InsideOne | None = None
    specificity: InsideOne | None = None


class EvaluationSection(Section):
    """``[evaluation]``: what is measured, and on whom.

    Attributes:
        metrics: Of installed packages (``package:name``), measured beside the task's own.
        subgroups: By what the patients are grouped: covariates, further columns of the manifest, or
            "quality", which is computed from the image.
        bands: Of a number among these the upper ends of all bands but the last.
        tta: Whether the test patients, and those that the finished model is used on, are seen
            mirrored along every axis too, and the answers averaged. It chooses no round.
        operating_point: For each class by itself; of two classes for the second.
        prevalence: Which share of the people has a class where the model would be used.
    """

    metric: Text | None = None
    metrics: Annotated[tuple[Registered, ...], Field(max_length=8)] = ()
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.15
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.15
    # Keys of wardround.common.study.plans.packs.PACKS: sums that leave once, at the end
    pack: Annotated[tuple[Text, ...], Field(max_length=8)] = ()
    pack_bins: Annotated[int, Field(ge=10, le=1_000)] = 100  # of the scores in a pack
    surface_tolerance_mm: Positive = 1.0
    score_bins: Annotated[int, Field(ge=10, le=100_000)] = 1000
    keep: Literal["best", "last"] = "best"
    margin: Positive = 0.02
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    tta: Literal["none", "mirror"] = "none"
    subgroups: Annotated[tuple[Name, ...], Field(max_length=32)] = ()
    bands: Annotated[
        dict[Name, Annotated[tuple[Measured, ...], Field(min_length=1, max_length=20)]],
        Field(max_length=32),
    ] = Field(default_factory=dict)
    operating_point: OperatingPoint | None = None
    prevalence: Annotated[
        dict[Text, InsideOne], Field(max_length=10_000), BeforeValidator(_by_class)
    ] = Field(default_factory=dict)
