"""What the sums of every task can do: merge, travel as arrays, and become metrics.

A new task is a file beside ``classification.py`` with such sums, and a row in ``sums.py``. The
value over all classes has class name ""; a value that is not defined is NaN with support 0.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, NoReturn, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import InputError
from wardround.common.study.study import Study

Counts = NDArray[np.int64]
Sums = NDArray[np.float64]
Arrays = dict[str, NDArray[np.generic]]

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
_Fields = TypeVar("_Fields", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One metric of one class, or over all classes.

    Attributes:
        metric: A key of the catalogue's METRICS.
        class_name: One class, or "" over all classes.
        value: NaN where it is not defined.
        support: Examinations (for a segmentation: cases) behind the value. Of one class: those
            of the class; over all classes of a segmentation: those of the most frequent class.
        error_bound: Largest possible error from binning scores; 0 where exact.
        standard_error: Sampling error of a mean over cases; 0 where it is not computed.
    """

    metric: str
    class_name: str
    value: float
    support: int
    error_bound: float = 0.0
    standard_error: float = 0.0


class TaskSums(Protocol):
    """Sums over some examinations of one task; adding two sites' sums measures both together.

    Attributes:
        OPTIONAL: Arrays that a message may lack.
    """

    OPTIONAL: ClassVar[frozenset[str]]

    @classmethod
    def empty(cls, study: Study, surfaces: bool) -> Self:
        """Return the sums over no examination.

        Args:
            study: Says the classes.
            surfaces: Whether the metrics are wanted that take long (``MetricEntry.surface``).
        """

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], examinations: int) -> Self:
        """Return the sums that :meth:`to_arrays` wrote, after checking that they can be true.

        Args:
            arrays: Of the names, shapes and types of :meth:`empty`, finite and not negative.
            examinations: How many the site says are behind them.

        Raises:
            InputError: No examinations can give these sums.
        """

    def to_arrays(self) -> Arrays:
        """Return the sums as arrays by name, as they travel; what was not measured is absent."""

    def plus(self, other: "TaskSums", examinations: tuple[int, int]) -> Self:
        """Return the sums over the examinations of both.

        What only one side measured is kept where the other side has no examinations, and dropped
        where it has: a mean must be over everybody or not be.

        Args:
            other: The other side.
            examinations: How many are behind this side, and behind the other.

        Raises:
            InputError: They were measured for different studies.
        """

    def summarise(self, metric: str, examinations: int, study: Study) -> Iterator[MetricValue]:
        """Yield a metric of the task over all classes, then a class; nothing if not measured."""

    def cells_behind(self, metric: str) -> Counts:
        """Return ``(K,)``: how many cases each class has, of those that a metric is about."""


def check_same_shape(x: Counts | Sums, y: Counts | Sums) -> None:
    """Refuse to merge sums of two studies.

    Raises:
        InputError: The shapes differ.
    """
    if x.shape != y.shape:
        msg = (
            f"metrics of shape {x.shape} and {y.shape} cannot be merged: "
            "measure both with the same study (data.classes, evaluation.score_bins)."
        )
        raise InputError(msg)


def added(one: _Fields, other: object) -> _Fields:
    """Return sums of which each field is that of both added.

    Raises:
        InputError: They were measured for different tasks, or different studies.
    """
    if not isinstance(other, type(one)):
        refuse_other_task()
    both = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(one)]
    for mine, theirs in both:
        check_same_shape(mine, theirs)
    return type(one)(*(mine + theirs for mine, theirs in both))


def refuse_other_task() -> NoReturn:
    """Refuse to merge sums of two tasks.

    Raises:
        InputError: Always.
    """
    msg = "metrics of two different tasks cannot be merged: use one study."
    raise InputError(msg)


def refuse(name: str, fact: str) -> NoReturn:
    """Refuse an array that no site running the study could have measured.

    Raises:
        InputError: Always.
    """
    msg = (
        f"the metric array {name} {fact}: "
        "run the same version of wardround and the same study on both sides."
    )
    raise InputError(msg)


def counts_of(arrays: Mapping[str, NDArray[np.generic]], name: str) -> Counts:
    """Return a checked array as whole numbers."""
    return arrays[name].astype(np.int64, copy=False)


def sums_of(arrays: Mapping[str, NDArray[np.generic]], name: str) -> Sums:
    """Return a checked array as float64."""
    return arrays[name].astype(np.float64, copy=False)


def no_counts(*shape: int) -> Counts:
    """Return counts over no examination."""
    return np.zeros(shape, dtype=np.int64)


def mean_over(metric: str, values: Sums, support: int) -> MetricValue:
    """Return the mean over the classes whose value is defined, of ``(K,)`` values."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return MetricValue(metric, "", math.nan, 0)
    return MetricValue(metric, "", float(defined.mean()), support)


def per_class(
    metric: str,
    names: tuple[str, ...],
    values: Sums,
    support: Counts,
    bounds: Sums | None = None,
) -> Iterator[MetricValue]:
    """Yield the value of each of K classes, from ``(K,)`` values, supports and error bounds."""
    bounds = np.zeros(len(names)) if bounds is None else bounds
    for name, value, count, bound in zip(names, values, support, bounds, strict=True):
        yield MetricValue(metric, name, float(value), round(float(count)), float(bound))


def divide(numerator: Counts | Sums, denominator: Counts | Sums) -> Sums:
    """Return the quotient, NaN where the denominator is 0."""
    undefined = np.full(np.shape(denominator), math.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)
