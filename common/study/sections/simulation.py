"""``[simulation]``: a stand-in for hospitals, which they and the digest ignore."""

from typing import Annotated, Literal

from pydantic import Field

from wardround.common.study.sections.continual import Wave
from wardround.common.study.sections.fields import (
    LongText,
    Measured,
    Name,
    NonNegative,
    Positive,
    PositiveInt,
    Section,
    Text,
    WholeNumber,
)


class Shift(Section):
    """One change that makes a site's scanner differ from the others'.

    Attributes:
        waves: The waves of data that it changes; all of them where absent.
    """

    kind: Literal["contrast", "bias-field", "noise", "blur", "scaling"]
    strength: NonNegative = 1.0
    sites: Annotated[tuple[Text, ...], Field(max_length=10_000)] = ()
    waves: Annotated[tuple[Wave, ...], Field(max_length=1_000)] = ()


class Lacking(Section):
    """Channels or covariates that some of the simulated sites have of none of their patients."""

    names: Annotated[tuple[Name, ...], Field(min_length=1, max_length=10_000)]
    sites: Annotated[tuple[Text, ...], Field(min_length=1, max_length=10_000)]


class Adversary(Section):
    """Sites that attack the federated training: named, or as many as ``count`` drawn by the seed.

    ``strength`` is the attack's own: a factor, or a standard deviation; its default where absent.
    """

    kind: Literal[
        "label-flip",
        "sign-flip",
        "gaussian",
        "scaling",
        "alie",
        "inner-product",
        "backdoor",
    ]  # explained in wardround.simulations.adversaries.manipulations
    sites: Annotated[tuple[Text, ...], Field(max_length=10_000)] = ()
    count: Annotated[int, Field(ge=1, le=100_000)] | None = None
    strength: Positive | None = None
    target: Text | None = None  # backdoor: the class that the trigger stands for; else the first


class SimulationSection(Section):
    """``[simulation]``: a stand-in for hospitals, which they and the digest ignore.

    Attributes:
        parent: The run folder of the study that this one goes on from: patients stay where they
            are there, and what was measured there is told beside.
    """

    data: Text = "folder"
    options: Annotated[
        dict[Text, LongText | WholeNumber | Measured | bool], Field(max_length=100)
    ] = Field(default_factory=dict)
    split: Literal["natural", "iid", "dirichlet", "quantity", "one-large", "classes"] = "iid"
    sites: Annotated[int, Field(ge=1, le=100_000)] = 4
    alpha: Positive = 0.5
    classes_per_site: PositiveInt = 2
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    shift: Annotated[tuple[Shift, ...], Field(max_length=1_000)] = ()
    lacking: Annotated[tuple[Lacking, ...], Field(max_length=1_000)] = ()
    adversary: Annotated[tuple[Adversary, ...], Field(max_length=1_000)] = ()
    late: Annotated[
        dict[Text, Annotated[int, Field(ge=2, le=1_000_000)]], Field(max_length=10_000)
    ] = Field(default_factory=dict)
    compare: bool = True
    keep_updates_mb: Annotated[int, Field(ge=0, le=1_000_000)] = 64
    parent: LongText | None = None
