"""``[statistics]``: what a study is planned from."""

from typing import Annotated

from pydantic import Field

from wardround.common.study.sections.combat import CombatColumn
from wardround.common.study.sections.fields import Measured, Section


class StatisticsSection(Section):
    """``[statistics]``: histograms of the sites' training data, from which a study is planned.

    Every edge follows from these keys, and so stands under the digest that a hospital approves.

    Attributes:
        ask: Whether the run asks for the statistics; it then trains nothing.
        epsilon: What the statistics spend on a training patient, with ``privacy.mode = "patient"``.
        intensity: From where to where intensities are counted; what is outside counts at the end.
        intensity_bins: Into how many bins.
        spacing_step_mm: A voxel's sides are counted in steps of this.
        size_step: The image's sides are counted in steps of so many voxels.
        extent_step_mm: And in steps of so many millimetres.
        combat: Covariates of whose products the sums are asked for instead of histograms, from
            which ComBat is fitted.
    """

    ask: bool = False
    epsilon: Annotated[float, Field(gt=0, le=1_000)] = 1.0
    intensity: tuple[Measured, Measured] | None = None
    intensity_bins: Annotated[int, Field(ge=8, le=4_096)] = 256
    spacing_step_mm: Annotated[float, Field(ge=0.001, le=10)] = 0.05
    size_step: Annotated[int, Field(ge=1, le=64)] = 4
    extent_step_mm: Annotated[float, Field(ge=0.1, le=100)] = 5.0
    combat: Annotated[tuple[CombatColumn, ...], Field(max_length=64)] = ()
