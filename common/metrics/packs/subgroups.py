"""The pack "subgroups": for whom a model is good, a few ratios for each group of patients."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.packs.ratios import RatioSums
from wardround.common.metrics.task_sums import Arrays, counts_of, sums_of
from wardround.common.study.plans.packs import group_ratios_of
from wardround.common.study.study import Study


@dataclass(frozen=True, slots=True, eq=False)
class SubgroupPack:
    """What the pack tells of one site's test patients.

    Attributes:
        ratios: In the order of ``group_ratios_of``; groups that are too small tell nothing.
    """

    ratios: RatioSums

    @classmethod
    def empty(cls, study: Study) -> "SubgroupPack":
        """Return the pack of nobody."""
        return cls(RatioSums.empty(group_ratios_of(study)))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], study: Study) -> "SubgroupPack":
        """Return a pack that came, of the names, shapes and types of :meth:`empty`.

        Raises:
            InputError: No patients can give it.
        """
        patients, means = counts_of(arrays, "patients"), sums_of(arrays, "means")
        return cls(RatioSums.from_arrays(patients, means, group_ratios_of(study)))

    def to_arrays(self) -> Arrays:
        """Return it as it travels."""
        return self.ratios.to_arrays("")

    def plus(self, other: "SubgroupPack") -> "SubgroupPack":
        """Return the pack of both sites' patients.

        Raises:
            InputError: They are of two studies.
        """
        return SubgroupPack(self.ratios.plus(other.ratios))
