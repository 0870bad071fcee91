"""The sites' histograms as one: counts of patients, their quantiles and moments."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from wardround.common.messages.statistics import Cells
from wardround.common.metrics.noised.decoding import nearest_counts
from wardround.common.study.plans.statistics import (
    Histogram,
    asked_histograms,
    patient_scale,
    plan_statistics,
)
from wardround.common.study.study import Study
from wardround.server.planning.collection import Collected


@dataclass(frozen=True, slots=True, eq=False)
class MergedHistogram:
    """One histogram over the patients of all sites.

    Attributes:
        cells: ``(cells,)``, in patients; at least 0.
        patients: How many there are, as the sites round it.
        noise: Standard deviation of the noise on each cell, in patients.
    """

    asked: Histogram
    cells: Cells
    patients: float
    noise: float = 0.0

    @property
    def total(self) -> float:
        """Patients in the cells."""
        return float(self.cells.sum())

    @property
    def suppressed(self) -> float:
        """Share of the patients who are in no cell: left out by a policy, or rounded away."""
        return max(0.0, 1 - self.total / self.patients) if self.patients else 0.0

    def quantile(self, share: float) -> float:
        """Return the value of the first cell up to which there is this share; NaN of nobody."""
        if not self.total > 0:
            return math.nan
        return self.asked.value(self._cell_at(share))

    def median_within(self) -> float:
        """Return the median, where a cell's patients are spread evenly over it; NaN of nobody."""
        if not self.total > 0:
            return math.nan
        cell = self._cell_at(0.5)
        before = float(self.cells[:cell].sum())
        inside = (self.total / 2 - before) / float(self.cells[cell])
        return self.asked.value(cell - 0.5 + inside)

    def _cell_at(self, share: float) -> int:
        upto = np.cumsum(self.cells) / self.total
        return int(np.searchsorted(upto, share - 1e-9))

    @property
    def mean(self) -> float:
        """Mean of the cells' values; NaN of nobody."""
        return self._moment(lambda values: values)

    @property
    def deviation(self) -> float:
        """Standard deviation of the cells' values; NaN of nobody."""
        mean = self.mean
        return math.sqrt(self._moment(lambda values: (values - mean) ** 2))

    def _moment(self, of: Callable[[Cells], Cells]) -> float:
        if not self.total > 0:
            return math.nan
        places = np.arange(len(self.cells), dtype=np.float64)
        values: Cells = (self.asked.first + self.asked.step * places).astype(np.float64)
        return float((of(values) * self.cells).sum() / self.total)

    def without_first(self) -> "MergedHistogram":
        """Return it without the first cell, which says of a spacing that it is not known."""
        cells = self.cells.copy()
        cells[0] = 0
        return MergedHistogram(self.asked, cells, self.patients, self.noise)


def merge_statistics(collected: Collected, study: Study) -> Mapping[str, MergedHistogram]:
    """Return each histogram over all sites, by name.

    Under privacy for patients the noise is taken off as far as that is possible: cells that nobody
    can be in are 0, and the sum stays.
    """
    plan = plan_statistics(study)
    merged = {}
    for one in asked_histograms(study):
        if plan is None:
            cells = np.zeros(one.cells)
            for said in collected.sites.values():
                cells = cells + said.cells[one.name] * (1.0 if one.is_whole else said.patients)
            patients = float(sum(said.patients for said in collected.sites.values()))
            merged[one.name] = MergedHistogram(one, cells, patients)
            continue
        scale = patient_scale(study)
        total = np.sum([said.cells[one.name] for said in collected.sites.values()], axis=0) / scale
        cells, noise = nearest_counts(total), plan.noise_multiplier / scale
        merged[one.name] = MergedHistogram(
            one, cells, float(cells.sum()), noise * math.sqrt(len(collected.sites))
        )
    return merged
