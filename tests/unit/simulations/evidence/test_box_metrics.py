"""mAP of two detectors on the same patients: its interval, and the gain's."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.hospitals.every_task import study_of

from wardround.common.metrics.detection import DetectionSums, count_image
from wardround.common.study.study import Study
from wardround.simulations.evidence.intervals.box_metrics import (
    Boxes,
    boxes_together,
    draw_metrics,
)

PATIENTS = 40
MAP50 = ("map50",)


@pytest.fixture(scope="module")
def study() -> Study:
    return study_of("detection", Path())


def found_by(study: Study, moved: float, patients: int = PATIENTS, seed: int = 0) -> Boxes:
    """Return what a detector found whose boxes lie off by so much: the same images for each."""
    images = []
    for patient in range(patients):
        rng = np.random.default_rng((seed, patient))
        low = rng.uniform(0, 50, (4, 2))
        truth = np.column_stack([[0, 0, 1, 1], low, low + 8])
        found = np.column_stack([rng.random(4), truth])
        found[:, 2:] += moved * rng.normal(size=(4, 4))
        sums = DetectionSums.empty(study, surfaces=False)
        count_image(found, truth, sums)
        images.append(sums)
    return Boxes(np.arange(patients), tuple(images))


def test_a_detector_that_is_clearly_better_gained_and_the_same_one_did_not(study: Study) -> None:
    good, poor = (draw_metrics(found_by(study, moved), study, MAP50) for moved in (0.3, 3.0))

    gain = good.gains_over(poor)["map50"]
    none = good.gains_over(good)["map50"]

    assert gain.value == pytest.approx(good.values["map50"] - poor.values["map50"])
    assert 0 < gain.low < gain.value < gain.high
    assert (none.value, none.low, none.high) == (0, 0, 0)


def test_an_interval_of_a_gain_is_narrower_than_without_knowing_that_patients_are_the_same(
    study: Study,
) -> None:
    one, other = (draw_metrics(found_by(study, moved), study, MAP50) for moved in (1.5, 1.6))

    gain = one.gains_over(other)["map50"].standard_error
    apart = [metrics.intervals()["map50"].standard_error for metrics in (one, other)]

    assert 0 < gain < 0.8 * np.hypot(*apart)


def test_one_patient_says_nothing_and_other_patients_are_not_compared(study: Study) -> None:
    lone, some = (draw_metrics(found_by(study, 1.0, count), study, MAP50) for count in (1, 5))

    assert not lone.intervals()["map50"].is_known
    assert lone.gains_over(lone) == {}
    assert some.gains_over(draw_metrics(found_by(study, 1.0, 6), study, MAP50)) == {}


def test_sites_patients_stay_apart_when_they_are_added_up(study: Study) -> None:
    both = boxes_together([found_by(study, 1.0, 3), found_by(study, 1.0, 4, seed=1)])

    assert both.patients.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert len(both.images) == 7


def test_three_patients_who_all_agree_say_nothing_of_how_patients_differ(study: Study) -> None:
    right, wrong = (draw_metrics(found_by(study, by, 3), study, MAP50) for by in (0.0, 100.0))

    assert (right.values["map50"], wrong.values["map50"]) == (1, 0)
    assert not right.gains_over(wrong)["map50"].is_known
