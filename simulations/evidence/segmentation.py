"""What a segmentation's cases say: volumes, lesions one by one, and where it failed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.statistics.agreement import Agreement, bland_altman
from wardround.simulations.run_files.folder import FEDERATED
from wardround.simulations.run_files.predictions import Key, LesionRow, Masks

WORST = 3  # cases a site that are shown
_SIZES = ("smallest third", "middle third", "largest third")
_NEARLY_ALL = 0.8
_FEWEST_TO_PART = 9  # lesions, from which on they are parted by size


@dataclass(frozen=True, slots=True)
class Volumes:
    """Volumes of one class that a model marked, and those of the truth, in millilitres.

    Attributes:
        site: ``all sites`` for those of every one.
        truth, found: ``(N,)``.
        agreement: Of found less truth.
    """

    site: str
    class_name: str
    truth: NDArray[np.float64]
    found: NDArray[np.float64]
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Failure:
    """One of a site's worst test cases.

    Attributes:
        case: The row of the site's manifest.
        dice: Mean over the classes that its truth holds.
        worst_class: The class with the lowest Dice.
        worst_dice: That Dice.
    """

    site: str
    case: int
    dice: float
    worst_class: str
    worst_dice: float


@dataclass(frozen=True, slots=True)
class Detection:
    """Lesions of a class at one site, of one size.

    Attributes:
        size: "all", or a third by volume.
        from_ml, to_ml: Volumes of the lesions of this size.
        lesions, found: Counts.
        half_covered: Lesions of which at least half of the voxels were marked.
        false_an_image: Marked parts that touch no lesion, an examination; NaN for one size alone.
    """

    site: str
    class_name: str
    size: str
    from_ml: float
    to_ml: float
    lesions: int
    found: int
    half_covered: int
    false_an_image: float

    @property
    def sensitivity(self) -> float:
        """Share of the lesions that were found; NaN where there are none."""
        return self.found / self.lesions if self.lesions else math.nan


def marked_tests(masks: Mapping[Key, Masks]) -> dict[str, Masks]:
    """Return how well the federated model marked each site's test cases."""
    return {
        site: found
        for (name, site, split), found in masks.items()
        if (name, split) == (FEDERATED, "test") and len(found.cases)
    }


def case_dice(found: Masks) -> NDArray[np.float64]:
    """Return ``(N,)``: the mean Dice over the classes that each truth holds; NaN where none."""
    held = ~np.isnan(found.dice)
    counts = held.sum(axis=1)
    totals = np.where(held, found.dice, 0.0).sum(axis=1)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def volume_agreement(
    sites: Mapping[str, Masks], classes: Sequence[str], all_sites: str
) -> list[Volumes]:
    """Return found less true volume of each class, over all sites and at each."""
    found = []
    numbered = {site: place for place, site in enumerate(sites)}
    for k, name in enumerate(classes):
        parts = {site: (one.truth_ml[:, k], one.found_ml[:, k]) for site, one in sites.items()}
        patients = np.concatenate(
            [one.patients * len(numbered) + numbered[site] for site, one in sites.items()]
        )
        truth, marked = (np.concatenate([part[i] for part in parts.values()]) for i in (0, 1))
        agreement = bland_altman(marked - truth, patients)
        found.append(Volumes(all_sites, name, truth, marked, agreement))
        if len(sites) > 1:
            found += [
                Volumes(site, name, t, f, bland_altman(f - t, sites[site].patients))
                for site, (t, f) in parts.items()
            ]
    return found


def worst_cases(sites: Mapping[str, Masks], classes: Sequence[str]) -> list[Failure]:
    """Return the cases with the lowest Dice of each site, the worst first."""
    failures = []
    for site, found in sites.items():
        dice = case_dice(found)
        order = [int(i) for i in np.argsort(dice, kind="stable") if not np.isnan(dice[i])]
        for index in order[:WORST]:
            k = int(np.nanargmin(found.dice[index]))
            failures.append(
                Failure(
                    site,
                    int(found.cases[index]),
                    float(dice[index]),
                    classes[k],
                    float(found.dice[index, k]),
                )
            )
    return failures


def detection(
    sites: Mapping[str, Masks], lesions: Sequence[LesionRow], classes: Sequence[str]
) -> list[Detection]:
    """Return how many lesions were found, of each class where they were counted.

    A class is left out where an examination has so many parts that it is a tissue.

    Args:
        sites: Of one model.
        lesions: The true ones of that model's cases.
    """
    found = []
    for k, name in enumerate(classes):
        if any(np.isnan(one.lesions_true[:, k]).any() for one in sites.values()):
            continue
        for site, one in sites.items():
            here = [row for row in lesions if (row.site, row.class_name) == (site, name)]
            false = float(one.lesions_false[:, k].mean())
            found.append(_of_size(site, name, "all", here, false))
        every = sorted((row for row in lesions if row.class_name == name), key=lambda row: row.ml)
        if len(every) >= _FEWEST_TO_PART:
            cuts = np.array_split(np.arange(len(every)), len(_SIZES))
            found += [
                _of_size("all sites", name, size, [every[i] for i in part], math.nan)
                for size, part in zip(_SIZES, cuts, strict=True)
            ]
    return found


def is_organ(lesions: Sequence[LesionRow]) -> bool:
    """Whether the parts of one class are an organ with stray parts rather than lesions.

    So it is where, of most examinations with several parts, one holds nearly all of the volume.
    """
    volumes: dict[tuple[str, int], list[float]] = {}
    for row in lesions:
        volumes.setdefault((row.site, row.case), []).append(row.ml)
    several = [parts for parts in volumes.values() if len(parts) > 1]
    ruled = [parts for parts in several if max(parts) > _NEARLY_ALL * sum(parts)]
    return 2 * len(ruled) > len(several)


def _of_size(site: str, name: str, size: str, rows: Sequence[LesionRow], false: float) -> Detection:
    volumes = [row.ml for row in rows]
    return Detection(
        site,
        name,
        size,
        min(volumes, default=math.nan),
        max(volumes, default=math.nan),
        len(rows),
        sum(row.covered > 0 for row in rows),
        sum(row.covered >= 0.5 for row in rows),
        false,
    )
