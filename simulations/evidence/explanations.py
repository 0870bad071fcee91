"""What the checks of many maps come to, a site at a time; its unit is the patient."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wardround.simulations.run_files.explanations import ExplanationRow

_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over patients with its 95 % interval; NaN where it is not known.

    Attributes:
        patients: How many it is of.
    """

    value: float
    low: float
    high: float
    patients: int


@dataclass(frozen=True, slots=True)
class SiteMaps:
    """What the maps of one site's examinations came to.

    Attributes:
        maps: Examinations that were explained.
        marked: Maps that are not to be believed.
        beyond_area: By how much the share of positive attribution inside the lesion exceeds the
            lesion's share of the image.
        believed_beyond_area: The same over the maps that are not marked.
        last_layer, all_layers: Mean rank correlation with the maps of random weights.
        agreement_rank, agreement_ssim: Mean likeness of the maps of sites' own models.
        repeatability: Mean rank correlation with the maps of another round.
    """

    site: str
    maps: int
    marked: int
    beyond_area: Mean
    believed_beyond_area: Mean
    last_layer: float
    all_layers: float
    agreement_rank: float
    agreement_ssim: float
    repeatability: float


def summarise_maps(rows: Sequence[ExplanationRow]) -> tuple[SiteMaps, ...]:
    """Return a summary of each site, in the order of the rows."""
    sites = dict.fromkeys(row.site for row in rows)
    return tuple(_of_site(site, [row for row in rows if row.site == site]) for site in sites)


def _of_site(site: str, rows: Sequence[ExplanationRow]) -> SiteMaps:
    believed = [row for row in rows if not row.marks]
    return SiteMaps(
        site=site,
        maps=len(rows),
        marked=len(rows) - len(believed),
        beyond_area=_beyond_area(rows),
        believed_beyond_area=_beyond_area(believed),
        last_layer=_known_mean([row.last_layer for row in rows]),
        all_layers=_known_mean([row.all_layers for row in rows]),
        agreement_rank=_known_mean([row.agreement_rank for row in rows]),
        agreement_ssim=_known_mean([row.agreement_ssim for row in rows]),
        repeatability=_known_mean([row.repeatability for row in rows]),
    )


def _beyond_area(rows: Sequence[ExplanationRow]) -> Mean:
    known = [row for row in rows if not math.isnan(row.inside)]
    return mean_over_patients(
        [row.inside - row.area for row in known], [row.patient for row in known]
    )


def mean_over_patients(values: Sequence[float], patients: Sequence[int]) -> Mean:
    """Return the mean of the patients' means, with Student's interval over patients.

    Args:
        values: ``(N,)``, one an examination.
        patients: ``(N,)`` whose each is.
    """
    from scipy.special import stdtrit

    each: dict[int, list[float]] = {}
    for value, patient in zip(values, patients, strict=True):
        each.setdefault(patient, []).append(value)
    means = np.array([float(np.mean(one)) for one in each.values()])
    if len(means) < 2:
        return Mean(float(means[0]) if len(means) else _NAN, _NAN, _NAN, len(means))
    half = float(stdtrit(len(means) - 1, 0.975)) * float(means.std(ddof=1)) / math.sqrt(len(means))
    centre = float(means.mean())
    return Mean(centre, centre - half, centre + half, len(means))


def _known_mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else _NAN
