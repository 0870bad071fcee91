"""``[data]``: the contract between a site's images and the network."""

from typing import Annotated, Literal

from pydantic import Field

from wardround.common.runtime.fields import OfForm
from wardround.common.study.sections.combat import CombatSection
from wardround.common.study.sections.fields import (
    Measured,
    Name,
    OrRegistered,
    Positive,
    Section,
    Size,
    Text,
)
from wardround.common.study.sections.harmonisation import HarmonisationSection
from wardround.common.study.sections.outcome import OutcomeSection

COMMON_ORIENTATION = "RAS"  # MONAI's default too


AS_STORED = "stored"


Intensity = Literal["none", "xray", "ct", "mr", "dermoscopy", "ultrasound", "histology"]


class Covariate(Section):
    """One clinical value of a patient: a number, or a category with its known values.

    A number enters the network as ``(value - mean) / scale``, a category as one column a value.
    Where ``data.optional`` names it, a further column says 1 for a missing value, or for a word
    that is not listed; its own columns are then 0. Where not, such a row is refused.

    Attributes:
        reference: A category's value that the others are compared with: it has no column.
    """

    name: Name
    values: Annotated[tuple[Text, ...], Field(max_length=10_000)] = ()
    reference: Text = ""
    mean: Measured = 0.0
    scale: Positive = 1.0

    @property
    def width(self) -> int:
        """Number of input columns."""
        return len(self.values) or 1


class LabelsSection(Section):
    """``[data.labels]``: what a class is called elsewhere, and whether sites may lack some.

    Attributes:
        codes: A class's code in a terminology, e.g. "SCT:64033007" or "RADLEX:RID205": a site may
            write it instead of the name, and whoever reads the model knows what is meant.
        words: What sites are likely to write, and the class that it stands for; a site's own words
            (``[labels.words]`` of its ``site.toml``) win.
        partial: Whether a site takes part that has annotated some of the classes alone.
    """

    codes: Annotated[dict[Name, Text], Field(max_length=10_000)] = Field(default_factory=dict)
    words: Annotated[dict[Text, Name], Field(max_length=10_000)] = Field(default_factory=dict)
    partial: bool = False


class DataSection(Section):
    """``[data]``: the contract between a site's images and the network.

    Attributes:
        ignore_label: The label of voxels in a mask that nobody annotated: they count in no loss and
            in no metric.
        orientation: Where the axes of a volume point to; None is :data:`COMMON_ORIENTATION` for
            every file that says how it lies. ``stored`` leaves volumes as they are.
        resample_to: Whether a mask or channel on another grid than the first channel's is brought
            onto that ("image"), or refused.
        optional: Channels and covariates that an examination, or a whole site, may lack. The
            network learns what their absence means; an absent one is never a zero among others.
    """

    kind: Literal["image", "table"] = "image"
    channels: Annotated[tuple[Name, ...], Field(max_length=256)] = ("image",)
    dimensions: Literal[2, 3] = 2
    colour: bool = False
    classes: Annotated[tuple[Name, ...], Field(max_length=10_000)] = ()
    outcome: OutcomeSection | None = None
    multi_label: bool = False
    ignore_label: Annotated[int, Field(ge=-32_768, le=65_535)] | None = None
    size: Annotated[tuple[Size, ...], Field(max_length=8)] | None = None
    fit: Literal["resize", "pad"] = "resize"
    spacing: Annotated[tuple[Positive, ...], Field(max_length=8)] | None = None
    orientation: (
        Annotated[
            str,
            OfForm("^([LR][AP][SI]|stored)$", "three letters: L or R, A or P, S or I; or 'stored'"),
        ]
        | None
    ) = None
    resample_to: Literal["image"] | None = None
    intensity: Intensity = "none"
    window: tuple[Measured, Measured] | None = None
    scaling: tuple[Measured, Positive] | None = None
    denoise: bool = False
    harmonisation: HarmonisationSection = HarmonisationSection()
    augmentation: Annotated[
        Literal[
            "none", "light", "xray", "ct", "mr", "dermoscopy", "ultrasound", "histology", "nnunet"
        ],
        OrRegistered(),
    ] = "none"
    covariates: Annotated[tuple[Covariate, ...], Field(max_length=10_000)] = ()
    covariate_scaling: Literal["study", "site"] = "study"
    optional: Annotated[tuple[Name, ...], Field(max_length=10_256)] = ()
    combat: CombatSection | None = None
    labels: LabelsSection = LabelsSection()

    @property
    def planes(self) -> int:
        """Number of input planes of the network: channels times colours."""
        return len(self.channels) * (3 if self.colour else 1)

    def of_channel(self, place: int) -> "DataSection":
        """Return the contract for one channel: of the landmarks those of its own planes alone."""
        landmarks = self.harmonisation.landmarks
        if not landmarks:
            return self
        planes = self.planes // len(self.channels)
        own = landmarks[place * planes : (place + 1) * planes]
        harmonisation = self.harmonisation.model_copy(update={"landmarks": own})
        return self.model_copy(update={"harmonisation": harmonisation})

    @property
    def input_planes(self) -> int:
        """Number of planes of a network of all channels: those, and a flag an optional channel."""
        return self.planes + len(self.optional_channels)

    @property
    def optional_channels(self) -> tuple[str, ...]:
        """Those that an examination may lack, in the order of ``channels``."""
        if self.kind == "table":
            return ()
        return tuple(name for name in self.channels if name in self.optional)

    @property
    def optional_covariates(self) -> tuple[str, ...]:
        """Those that an examination may lack, in the order of ``covariates``."""
        return tuple(one.name for one in self.covariates if one.name in self.optional)

    @property
    def value_width(self) -> int:
        """Number of columns of the covariates' values."""
        return sum(covariate.width for covariate in self.covariates)

    @property
    def covariate_width(self) -> int:
        """Number of columns that enter the network beside the images.

        The values of the covariates, then a flag an optional covariate, then a flag an optional
        channel: 1 where it is missing.
        """
        return self.value_width + len(self.optional_covariates) + len(self.optional_channels)
