"""Errors of worse images: balanced, over patients, and equal to scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from tests.support.hospitals.blobs import blob_study

from wardround.common.metrics.detection import DetectionSums, count_image
from wardround.common.study.loading import parse_study
from wardround.simulations.experiment.testing.stress.outcomes import (
    Outcomes,
    auroc,
    detected_outcomes,
    of_all_sites,
    success,
)


def drawn(count: int, classes: int, seed: int = 0, each: int = 1) -> Outcomes:
    generator = np.random.default_rng(seed)
    truth = np.eye(classes, dtype=bool)[generator.integers(0, classes, count)]
    scores = generator.random((count, classes)) + truth * 0.4
    said = np.eye(classes, dtype=bool)[scores.argmax(1)]
    hits, counts = (truth & said).astype(float), truth.astype(float)
    return Outcomes(hits, counts, np.arange(count) // each, scores, truth)


@pytest.mark.parametrize("classes", [2, 4])
def test_success_is_balanced_accuracy_and_the_area_is_that_of_scikit_learn(classes: int) -> None:
    found = drawn(200, classes)
    assert found.scores is not None
    assert found.truth is not None
    truth, said = found.truth.argmax(1), found.scores.argmax(1)
    assert success(found).value == pytest.approx(balanced_accuracy_score(truth, said))
    chosen = [1] if classes == 2 else range(classes)
    areas = [roc_auc_score(found.truth[:, k], found.scores[:, k]) for k in chosen]
    area = auroc(found, exclusive=True)
    assert area.value == pytest.approx(np.mean(areas))
    assert area.low < area.value < area.high


def test_success_of_boxes_is_the_f1_of_those_that_are_said_to_be_there() -> None:
    study = parse_study(blob_study())
    images, truths = [], [[(0, 0, 0, 10, 10), (1, 20, 20, 30, 30)], [(0, 5, 5, 15, 15)]]
    said = [
        [(0.9, 0, 0, 0, 10, 9), (0.4, 1, 20, 20, 30, 30)],  # a hit, and one below the threshold
        [(0.8, 0, 30, 30, 40, 40), (0.7, 1, 0, 0, 5, 5)],  # beside, and a thing that is not there
    ]
    for found, truth in zip(said, truths, strict=True):
        sums = DetectionSums.empty(study, surfaces=False)
        count_image(np.array(found), np.array(truth, dtype=float), sums)
        images.append(sums)

    outcomes = detected_outcomes(images, np.array([0, 1]))

    # Of class 0: one hit, two told, two true; of class 1: no hit, one told, one true.
    assert success(outcomes).value == pytest.approx((2 * 1 / (2 + 2) + 0 / (1 + 1)) / 2)


def test_images_of_one_patient_are_drawn_together() -> None:
    one = drawn(400, 2)
    many = Outcomes(one.hits[:100].repeat(4, 0), one.counts[:100].repeat(4, 0), np.arange(400) // 4)
    alone = Outcomes(many.hits, many.counts, np.arange(400))
    wide, narrow = success(many), success(alone)
    assert wide.value == narrow.value
    assert wide.high - wide.low > 1.7 * (narrow.high - narrow.low)


def test_patients_of_two_sites_are_not_mixed_up() -> None:
    together = of_all_sites([drawn(10, 2, each=2), drawn(6, 2, seed=1)])
    assert len(np.unique(together.patients)) == 5 + 6


def test_nothing_to_find_is_no_number() -> None:
    nothing = Outcomes(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, dtype=np.int64))
    assert np.isnan(success(nothing).value)
    lone = drawn(30, 2)
    ones = Outcomes(lone.hits, lone.counts, lone.patients, lone.scores, np.ones((30, 2), bool))
    assert np.isnan(auroc(ones, exclusive=True).value)
