"""Volumes, lesions by size, and the worst cases, from what a run keeps of each case."""

import numpy as np
import pytest

from wardround.simulations.evidence.explanations import mean_over_patients
from wardround.simulations.evidence.segmentation import (
    case_dice,
    detection,
    is_organ,
    volume_agreement,
    worst_cases,
)
from wardround.simulations.run_files.predictions import LesionRow, Masks


def masks(dice: list[float], patients: list[int], counted: float = 2.0) -> Masks:
    column = np.array(dice)[:, None]
    ones = np.full_like(column, counted)
    return Masks(
        np.arange(2, 2 + len(dice)),
        np.array(patients),
        column,
        column,
        column,
        np.ones_like(column),
        1 + column,
        ones,
        np.ones_like(ones),
        np.zeros_like(ones) + 0.5,
    )


SITES = {"north": masks([0.9, 0.2, 0.5, 0.7], [0, 0, 1, 2]), "south": masks([0.8, np.nan], [0, 1])}


def lesion(ml: float, covered: float, site: str = "north") -> LesionRow:
    return LesionRow("federated", site, 2, 0, "lesion", ml, covered)


def test_the_worst_cases_of_each_site_are_named_by_their_rows() -> None:
    found = worst_cases(SITES, ("lesion",))
    assert [(one.site, one.case, one.dice) for one in found] == [
        ("north", 3, 0.2),
        ("north", 4, 0.5),
        ("north", 5, 0.7),
        ("south", 2, 0.8),
    ]
    assert np.isnan(case_dice(SITES["south"])[1])


def test_volumes_over_all_sites_keep_patients_of_one_number_apart() -> None:
    sites = {"a": masks([0.1, 0.3], [0, 1]), "b": masks([0.5, 0.7], [0, 1])}
    whole, first, second = volume_agreement(sites, ("lesion",), "all sites")
    assert (whole.site, whole.agreement.patients) == ("all sites", 4)
    assert whole.agreement.bias.value == pytest.approx(0.4)
    assert (first.site, second.agreement.bias.value) == ("a", pytest.approx(0.6))


def test_sensitivity_by_thirds_of_size() -> None:
    rows = [lesion(size, float(size > 3)) for size in range(1, 10)]
    here, *_, small, middle, large = detection(SITES, rows, ("lesion",))
    assert (here.site, here.lesions, here.found, here.false_an_image) == ("north", 9, 6, 0.5)
    assert (small.sensitivity, middle.sensitivity, large.sensitivity) == (0.0, 1.0, 1.0)
    assert (small.from_ml, small.to_ml) == (1, 3)


def test_an_organ_with_stray_parts_is_told_from_lesions() -> None:
    assert is_organ([lesion(9.0, 1.0), lesion(0.1, 0.0)])
    assert not is_organ([lesion(1.0, 1.0), lesion(0.9, 0.0)])
    assert not is_organ([lesion(1.0, 1.0)])  # one lesion an image


def test_a_tissue_whose_parts_were_not_counted_is_left_out() -> None:
    assert detection({"north": masks([0.9], [0], np.nan)}, [], ("lesion",)) == []


def test_an_interval_over_patients_does_not_count_their_images() -> None:
    once = mean_over_patients([0.1, 0.3], [0, 1])
    often = mean_over_patients([0.1] * 9 + [0.3], [0] * 9 + [1])
    assert (often.value, often.low, often.patients) == (once.value, once.low, 2)
    assert np.isnan(mean_over_patients([0.1], [0]).low)
    assert np.isnan(mean_over_patients([], []).value)
