"""How pretraining is measured: what share of the hidden parts of images is not restored."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.task_sums import (
    Arrays,
    Counts,
    MetricValue,
    Sums,
    TaskSums,
    added,
    refuse,
    sums_of,
)
from wardround.common.study.study import Study

_ROUNDING = 1e-9  # of a sum, relative


@dataclass(frozen=True, slots=True, eq=False)
class PretrainingSums:
    """Sums over examinations of which parts were hidden.

    The share of an examination is the mean squared error over its hidden voxels, divided by their
    variance and cut to [0, 1]: 0 is a perfect restoration, 1 no better than their mean.

    Attributes:
        errors: ``(1,)`` sum of the shares.
        squares: ``(1,)`` sum of their squares.
        counted: ``(1,)`` how many examinations.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset()

    errors: Sums
    squares: Sums
    counted: Sums

    @classmethod
    def empty(cls, study: Study, surfaces: bool) -> "PretrainingSums":
        """Return the sums over no examination; there are no surfaces."""
        return cls(np.zeros(1), np.zeros(1), np.zeros(1))

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.generic]], examinations: int
    ) -> "PretrainingSums":
        """Return the sums that came as arrays.

        Raises:
            InputError: No shares of so many examinations have these sums.
        """
        found = cls(*(sums_of(arrays, name) for name in ("errors", "squares", "counted")))
        errors, squares = float(found.errors[0]), float(found.squares[0])
        counted = float(found.counted[0])
        room = _ROUNDING * max(1.0, counted)
        if counted != examinations:
            refuse("counted", f"does not count the {examinations} examinations")
        if errors > counted + room:
            refuse("errors", "is more than a share of each examination")
        # Of numbers in [0, 1] squares are less, and their mean is at least the mean's square.
        if squares > errors + room or squares * counted < errors**2 - room * max(1.0, errors):
            refuse("squares", "does not fit the sum of the shares")
        return found

    def to_arrays(self) -> Arrays:
        """Return the sums by name."""
        return {"errors": self.errors, "squares": self.squares, "counted": self.counted}

    def plus(self, other: TaskSums, examinations: tuple[int, int]) -> "PretrainingSums":
        """Return the sums over the examinations of both.

        Raises:
            InputError: They were measured for different tasks.
        """
        return added(self, other)

    def summarise(self, metric: str, examinations: int, study: Study) -> Iterator[MetricValue]:
        """Yield the mean share, and its sampling error."""
        counted = float(self.counted[0])
        if counted <= 0:
            yield MetricValue(metric, "", math.nan, 0)
            return
        mean = float(self.errors[0]) / counted
        spread = max(0.0, float(self.squares[0]) / counted - mean**2)
        yield MetricValue(
            metric, "", mean, examinations, standard_error=math.sqrt(spread / counted)
        )

    def cells_behind(self, metric: str) -> Counts:
        """Return ``(1,)``: how many examinations, which have no classes."""
        return np.rint(self.counted).astype(np.int64)
