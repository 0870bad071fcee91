"""What a model says of one examination."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Classified:
    """The classes of an examination.

    Attributes:
        classes: K names, in the study's order.
        probabilities: One a class; they add up to 1 unless the study is multi-label.
        found: The classes that are reported: those from the operating point on, or the most
            probable one where there are more than two.
        threshold: The operating point; None where the most probable class is taken.
        is_calibrated: Whether a temperature was fitted for the model.
        entropy: Of the probabilities, 0 (certain) to 1 (nothing is known); of a multi-label study
            the mean over classes.
        spread: Standard deviation of each probability over views and models; None for one of each.
    """

    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    found: tuple[str, ...]
    threshold: float | None
    is_calibrated: bool
    entropy: float
    spread: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Segmented:
    """A class at every voxel of the image as it was read.

    Attributes:
        classes: K names, class 0 first.
        labels: ``(*spatial)`` integers, in the reader's own order of axes.
        affine: 4x4, from its voxels to RAS millimetres; None where the file did not say.
        spacing: Millimetres a voxel; None where the file did not say.
        voxels: How many voxels of each class.
        volumes_ml: Of each class; None where the voxel size is not known, and in 2D.
        entropy: Mean over the voxels of foreground classes, 0 to 1; None where it was not asked
            for, or nothing was found.
    """

    classes: tuple[str, ...]
    labels: NDArray[Any]
    affine: NDArray[Any] | None
    spacing: tuple[float, ...] | None
    voxels: tuple[int, ...]
    volumes_ml: tuple[float, ...] | None
    entropy: float | None = None


@dataclass(frozen=True, slots=True)
class FoundBox:
    """A thing that was found.

    Attributes:
        name: Of its class.
        score: How sure the model is, 0 to 1; no probability, for nothing calibrates it.
        low: First corner in voxels of the image as it was read: of a picture (x, y), of a volume
            the axes of its array.
        high: Last corner; the voxel there is outside.
    """

    name: str
    score: float
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Detected:
    """The boxes of an examination.

    Attributes:
        classes: K names.
        boxes: By falling score; none overlaps another one of its class by more than half.
        threshold: From which score on a box is reported among ``counts``.
        counts: How many boxes of each class have at least that score.
        affine: 4x4, from the image's voxels to RAS millimetres; None where the file did not say.
    """

    classes: tuple[str, ...]
    boxes: tuple[FoundBox, ...]
    threshold: float
    counts: tuple[int, ...]
    affine: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Estimated:
    """The numbers that a task without classes says of an examination.

    Attributes:
        names: Of the numbers, as "age", or "risk" and "survival at 365 days".
        values: One a name.
        unit: Of the outcome; "" where it has none.
        spread: Standard deviation of each over views and models; None for one of each.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]
    unit: str
    spread: tuple[float, ...] | None = None


Prediction: TypeAlias = Classified | Segmented | Detected | Estimated
