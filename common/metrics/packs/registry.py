"""The packs of a study together: as arrays of a message, and back, each checked once."""

from collections.abc import Mapping
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.packs.calibration import CalibrationPack
from wardround.common.metrics.packs.gains import GainPack
from wardround.common.metrics.packs.intervals import IntervalPack
from wardround.common.metrics.packs.subgroups import SubgroupPack
from wardround.common.metrics.task_sums import Arrays, refuse
from wardround.common.parameters.schema import ArraySpec, Schema
from wardround.common.study.study import Study


class Pack(Protocol):
    """What every pack can do: begin empty, travel, and be checked where it comes in."""

    @classmethod
    def empty(cls, study: Study) -> Self:
        """Return the pack of nobody."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], study: Study) -> Self:
        """Return a pack that came.

        Raises:
            InputError: No patients can give it.
        """

    def to_arrays(self) -> Arrays:
        """Return it as it travels."""


PACK_SUMS: dict[str, type[Pack]] = {
    "intervals": IntervalPack,
    "calibration": CalibrationPack,
    "subgroups": SubgroupPack,
    "gains": GainPack,
}
Packs = Mapping[str, Pack]


def empty_packs(study: Study) -> Packs:
    """Return a study's packs of nobody, by name."""
    return {name: PACK_SUMS[name].empty(study) for name in study.evaluation.pack}


def pack_arrays(packs: Packs) -> Arrays:
    """Return packs as arrays, each named for its pack."""
    return {
        f"{pack}/{name}": array
        for pack, sums in packs.items()
        for name, array in sums.to_arrays().items()
    }


def packs_of(arrays: Mapping[str, NDArray[np.generic]], study: Study) -> Packs:
    """Return the packs that came, once they are the study's and can be true.

    Raises:
        InputError: They are not, or cannot.
    """
    expected = pack_arrays(empty_packs(study))
    check_arrays(arrays, expected)
    return {
        pack: PACK_SUMS[pack].from_arrays(
            {
                name.removeprefix(f"{pack}/"): array
                for name, array in arrays.items()
                if name.startswith(f"{pack}/")
            },
            study,
        )
        for pack in study.evaluation.pack
    }


def check_arrays(arrays: Mapping[str, NDArray[np.generic]], expected: Arrays) -> None:
    """Check that arrays have the names, shapes and types that are expected, and finite numbers.

    Raises:
        InputError: They have not.
    """
    if set(arrays) != set(expected):
        refuse("pack", "does not hold the study's tables")
    for name, wanted in expected.items():
        array = arrays[name]
        if array.shape != wanted.shape or array.dtype != wanted.dtype:
            refuse(name, f"is not {wanted.dtype} {list(wanted.shape)}")
        if not np.isfinite(array).all():
            refuse(name, "holds NaN or infinity")


def pack_schema(study: Study) -> Schema:
    """Return name, shape and type of every array of a study's packs."""
    arrays = pack_arrays(empty_packs(study))
    return tuple(ArraySpec(name, array.shape, str(array.dtype)) for name, array in arrays.items())
