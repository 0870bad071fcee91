"""One number for all corruptions: the mean corruption error, and how much of it is damage.

Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1: the errors of a corruption are summed
over its severities and divided by those of a baseline model, then averaged over the corruptions.
The relative error takes away each model's error on the images as they are. MedMNIST-C (Di Salvo et
al. 2024) does the same with the balanced error, as here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wardround.simulations.run_files.folder import ALL_SITES
from wardround.simulations.run_files.stress import CLEAN, CorruptionRow


@dataclass(frozen=True, slots=True)
class CorruptionErrors:
    """One model's errors on all patients that were tested.

    Attributes:
        site: Whose patients.
        clean: Error on the images as they are.
        rows: By corruption, its errors by severity.
    """

    model: str
    site: str
    clean: CorruptionRow
    rows: dict[str, dict[int, CorruptionRow]]

    @property
    def mean(self) -> float:
        """The mean error over corruptions and severities."""
        errors = [row.error for by in self.rows.values() for row in by.values()]
        return _mean(errors)

    @property
    def worst(self) -> CorruptionRow:
        """The row of the largest error."""
        known = [r for by in self.rows.values() for r in by.values() if not math.isnan(r.error)]
        return max(known, key=lambda row: row.error)


def errors_of(rows: Sequence[CorruptionRow], model: str) -> CorruptionErrors | None:
    """Return a model's errors on all sites together, or on the only one; None where it has none."""
    own = [row for row in rows if row.model == model]
    sites = dict.fromkeys(row.site for row in own)
    if not sites:
        return None
    site = ALL_SITES if ALL_SITES in sites else next(iter(sites))
    found: dict[str, dict[int, CorruptionRow]] = {}
    clean = None
    for row in own:
        if row.site != site:
            continue
        if row.corruption == CLEAN:
            clean = row
        else:
            found.setdefault(row.corruption, {})[row.severity] = row
    if (
        clean is None
        or not found
        or all(math.isnan(r.error) for by in found.values() for r in by.values())
    ):
        return None
    return CorruptionErrors(model, site, clean, found)


def mean_corruption_error(own: CorruptionErrors, baseline: CorruptionErrors) -> float:
    """Return mCE: 1 where the model errs as often as the baseline; NaN where that never errs."""
    return _mean([_ratio(own, baseline, name, 0.0, 0.0) for name in own.rows])


def relative_corruption_error(own: CorruptionErrors, baseline: CorruptionErrors) -> float:
    """Return relative mCE: 1 where corruptions harm the model as much as the baseline.

    A corruption that does not harm the baseline has no ratio and is left out; NaN where none does.
    """
    clean = own.clean.error, baseline.clean.error
    return _mean([_ratio(own, baseline, name, *clean) for name in own.rows])


def _ratio(
    own: CorruptionErrors,
    baseline: CorruptionErrors,
    name: str,
    own_clean: float,
    base_clean: float,
) -> float:
    others = baseline.rows.get(name, {})
    shared = [severity for severity in own.rows[name] if severity in others]
    mine = sum(own.rows[name][severity].error - own_clean for severity in shared)
    theirs = sum(others[severity].error - base_clean for severity in shared)
    return mine / theirs if theirs > 0 else math.nan


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
