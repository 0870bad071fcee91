"""By what a study's patients are grouped, and in which group each is: sites and report agree on it.

A group is found from the text of a manifest's cell, or from the image alone. Whoever has no value
is in a group of their own, for a missing value is seldom missing by chance.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from wardround.common.study.study import Study

QUALITY = "quality"
QUALITIES = ("sharpness", "contrast", "noise")  # of the image as it is stored
THIRDS = ("lowest third", "middle third", "highest third")
MISSING = "missing"
BANDS: dict[str, tuple[float, ...]] = {"age": (40, 60)}
_MISSING = frozenset({"", "?", "na", "n/a", "nan", "none", "null", "unknown", "missing"})


@dataclass(frozen=True, slots=True)
class Grouping:
    """One way to group examinations.

    Attributes:
        name: A covariate, another column of the manifest, or one of QUALITIES.
        bounds: Upper ends of all bands but the last, ascending; empty where there are no bands.
        values: The groups that there can be, where the study lists a category's values.
    """

    name: str
    bounds: tuple[float, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def from_image(self) -> bool:
        """Whether the group is computed from the image, and not read in the manifest."""
        return self.name in QUALITIES

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups in their order, the missing ones last; empty where any text may be one."""
        if self.from_image:
            return THIRDS
        known = self.values
        if self.bounds:
            known = tuple(band_name(self.bounds, n) for n in range(len(self.bounds) + 1))
        return (*known, MISSING) if known else ()

    def group_of(self, text: str) -> str:
        """Return the group of a cell's text; what cannot be understood counts as missing."""
        if text.strip().casefold() in _MISSING:
            return MISSING
        number = _number(text)
        if self.bounds:
            return MISSING if number is None else band_name(self.bounds, _band(self.bounds, number))
        if self.values:
            return text if text in self.values else MISSING
        return text.strip() if number is None else f"{number:g}"


def groupings_of(study: Study) -> tuple[Grouping, ...]:
    """Return by what the study groups its patients, in its order."""
    covariates = {covariate.name: covariate for covariate in study.data.covariates}
    found: list[Grouping] = []
    for name in study.evaluation.subgroups:
        if name == QUALITY:
            found += [Grouping(quality) for quality in QUALITIES]
            continue
        covariate = covariates.get(name)
        values = () if covariate is None else covariate.values
        bounds = study.evaluation.bands.get(name, () if values else BANDS.get(name, ()))
        found.append(Grouping(name, tuple(bounds), () if bounds else values))
    return tuple(found)


def columns_of(study: Study) -> tuple[str, ...]:
    """Return the columns of a manifest that are read for nothing but the groups."""
    covariates = {covariate.name for covariate in study.data.covariates}
    return tuple(
        one.name for one in groupings_of(study) if not one.from_image and one.name not in covariates
    )


def thirds_of(values: Sequence[float]) -> tuple[str, ...]:
    """Return the third of each value among all of them: of one site's examinations.

    Equal values are in one third, so that thirds of coarse values are not equally large.
    """
    finite = sorted(value for value in values if math.isfinite(value))
    if not finite:
        return (MISSING,) * len(values)
    ends = [finite[max(0, math.ceil(len(finite) * part / 3) - 1)] for part in (1, 2)]
    return tuple(
        THIRDS[bisect_left(ends, value)] if math.isfinite(value) else MISSING for value in values
    )


def band_name(bounds: Sequence[float], number: int) -> str:
    """Return what a band is called: ``<=40``, ``41-60``, ``>60``; of fractions ``18.5-25``."""
    if number == 0:
        return f"<={bounds[0]:g}"
    if number == len(bounds):
        return f">{bounds[-1]:g}"
    low, high = bounds[number - 1], bounds[number]
    whole = float(low).is_integer() and float(high).is_integer()
    return f"{low + 1 if whole else low:g}-{high:g}"


def _band(bounds: Sequence[float], value: float) -> int:
    return bisect_left(bounds, value)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None
