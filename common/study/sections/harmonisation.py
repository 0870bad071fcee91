"""``[data.harmonisation]``: images of different scanners made alike."""

from typing import Annotated, Literal

from pydantic import Field

from wardround.common.study.sections.fields import Measured, Section

# Of the grey values of a reference, from which images are matched to it (Nyul et al. 2000).
LANDMARK_PERCENTS = (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0)


class HarmonisationSection(Section):
    """``[data.harmonisation]``: images of different scanners made alike, each by itself.

    No number of it comes from a hospital: landmarks are those of a public reference.

    Attributes:
        bias_correction: Whether a smooth shading is divided out, as N4 does.
        landmarks: For each plane the grey values of a reference at :data:`LANDMARK_PERCENTS` of its
            foreground; every image's quantiles are moved there.
        foreground: The voxels whose quantiles count: those that are not 0, those above the image's
            mean, or all.
    """

    bias_correction: bool = False
    landmarks: Annotated[
        tuple[Annotated[tuple[Measured, ...], Field(max_length=64)], ...], Field(max_length=768)
    ] = ()
    foreground: Literal["nonzero", "above-mean", "all"] = "nonzero"

    @property
    def is_asked(self) -> bool:
        """Whether it changes an image."""
        return self.bias_correction or bool(self.landmarks)
