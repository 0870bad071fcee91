"""One patient who gives most of a sum, or all of a sum of squares: neither he nor the rest is told.

What stays hidden must not follow from what is told beside it.
"""

import numpy as np
import pytest
from tests.support.pack_cases import table_study_with

from wardround.client.egress.packs.disclosure import reduce_packs
from wardround.client.session.packs import MeasuredPacks
from wardround.client.training.case_predictions import ClassifiedCases, SegmentedCases
from wardround.common.metrics.packs.intervals import IntervalPack
from wardround.common.metrics.packs.subgroups import SubgroupPack
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.packs import group_ratios_of, ratios_of

LEAST = 10
WOMEN, MEN = 60, 21


def cases_of(images: list[int], ill: list[bool]) -> ClassifiedCases:
    whose = np.repeat(np.arange(len(images)), images)
    truth = np.array(ill)[whose]
    scores = np.random.default_rng(0).random(len(whose))
    both = np.stack([1 - scores, scores], axis=1)
    return ClassifiedCases(np.arange(len(whose)) + 2, whose, both, np.stack([~truth, truth], 1))


def one_man_with_two_images() -> list[int]:
    """Return images a patient: of the men's squares he gives 4 of 24, which is not of ten men."""
    return [1] * WOMEN + [2] + [1] * (MEN - 1)


def test_a_group_whose_squares_are_one_patients_does_not_follow_from_the_other() -> None:
    """On 3cda7f4 the women were told: the men's were the sums of all without these."""
    study = table_study_with(["subgroups"])
    images = one_man_with_two_images()
    cases = cases_of(images, [n % 2 == 0 for n in range(WOMEN + MEN)])
    women = (np.arange(WOMEN + MEN) < WOMEN)[cases.patients]
    groups = np.stack([women, ~women, np.zeros_like(women)], axis=1)
    measured = MeasuredPacks(cases, None, groups, None)
    pack = reduce_packs(measured, study, LEAST, ["subgroups"])["subgroups"]
    assert isinstance(pack, SubgroupPack)
    told = {
        one.group
        for one, count in zip(group_ratios_of(study), pack.ratios.patients, strict=True)
        if count
    }
    assert not told


def test_a_class_whose_squares_are_one_patients_does_not_follow_from_the_accuracy() -> None:
    """On 3cda7f4 the other class's recall was told beside the accuracy of both."""
    study = table_study_with(["intervals"])
    cases = cases_of(one_man_with_two_images(), [n >= WOMEN for n in range(WOMEN + MEN)])
    measured = MeasuredPacks(cases, None, np.zeros((len(cases.patients), 0), dtype=bool), None)
    pack = reduce_packs(measured, study, LEAST, ["intervals"])["intervals"]
    assert isinstance(pack, IntervalPack)
    told = {
        (one.metric, one.class_name)
        for one, count in zip(ratios_of(study), pack.ratios.patients, strict=True)
        if count
    }
    assert told == {("accuracy", ""), ("brier", "")}
    assert pack.counts is not None
    assert not pack.counts.positives.any()


@pytest.mark.parametrize("worst_mm", [3.0, 90.0])
def test_a_distance_that_is_one_patients_is_not_told(worst_mm: float) -> None:
    """On 3cda7f4 the mean square of 30 patients was that of the one at 90 mm, to three decimals."""
    content = {
        "study": {"name": "masks", "task": "segmentation"},
        "data": {"classes": ["background", "organ"], "size": [16, 16]},
        "model": {"network": "unet"},
        "evaluation": {"pack": ["intervals"]},
    }
    study = parse_study(content)
    count = 30
    distances = np.full((count, 2), 2.0)
    distances[0, 1] = worst_mm
    ones = np.full((count, 2), 0.9)
    voxels = np.full((count, 2), 10, dtype=np.int64)
    cases = SegmentedCases(
        np.arange(count),
        np.arange(count),
        ones,
        distances,
        ones,
        voxels,
        voxels,
        np.ones(count),
        tuple({} for _ in range(count)),
    )
    measured = MeasuredPacks(cases, None, np.zeros((count, 0), dtype=bool), None)
    pack = reduce_packs(measured, study, LEAST, ["intervals"])["intervals"]
    assert isinstance(pack, IntervalPack)
    told = {
        one.metric
        for one, people in zip(ratios_of(study), pack.ratios.patients, strict=True)
        if people
    }
    assert ("hd95" in told) is (worst_mm < 10)
    assert {"dice", "surface-dice"} <= told
