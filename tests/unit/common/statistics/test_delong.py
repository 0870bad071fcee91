"""AUROC and its variance, held against scikit-learn and an independent DeLong (MLstatkit)."""

import math

import numpy as np
import pytest
from MLstatkit import Delong_test
from sklearn.metrics import average_precision_score, roc_auc_score

from wardround.common.statistics.bootstrap import average_precision_interval
from wardround.common.statistics.clustered_auroc import (
    auroc_covariance,
    auroc_interval,
    placement_sums,
    placement_sums_of_scores,
)
from wardround.common.statistics.delong import (
    auroc_from_scores,
    delong_covariance,
    delong_from_histograms,
    delong_from_scores,
    hanley_mcneil_error,
    placements_in_histograms,
)
from wardround.common.statistics.precision_recall import (
    average_precision,
    average_precision_from_histograms,
)

BINS = 100


def drawn(
    seed: int, count: int = 2000, gap: float = 1.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels and the scores of two models, with ties."""
    generator = np.random.default_rng(seed)
    labels = generator.random(count) < 0.4
    shared = generator.normal(size=count)
    raw = [gap * labels + shared + generator.normal(size=count) for _ in range(2)]
    first, second = (np.round(1 / (1 + np.exp(-one)), 3) for one in raw)
    return labels, first, second


def histograms(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    return tuple(np.bincount(bins[side], minlength=BINS) for side in (labels, ~labels))


def reference(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    z, _, interval, _, area, other, info = Delong_test(labels.astype(int), first, second)
    return {
        "area": area,
        "other": other,
        "error": (interval[1] - interval[0]) / (2 * 1.959964),
        "difference": info["var_diff"],
        "z": z,
    }


@pytest.mark.parametrize("seed", range(5))
def test_auroc_and_variance_of_scores_are_those_of_others(seed: int) -> None:
    labels, first, second = drawn(seed)
    known = reference(labels, first, second)
    area, variance = delong_from_scores(first, labels)
    assert area == pytest.approx(roc_auc_score(labels, first), abs=1e-12)
    assert area == pytest.approx(known["area"], abs=1e-12)
    assert math.sqrt(variance) == pytest.approx(known["error"], rel=1e-5)
    areas, covariance = delong_covariance(np.stack([first, second], axis=1), labels)
    assert areas[1] == pytest.approx(known["other"], abs=1e-12)
    contrast = np.array([1.0, -1.0])
    assert contrast @ covariance @ contrast == pytest.approx(known["difference"], rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_histograms_of_100_bins_say_nearly_the_same(seed: int) -> None:
    labels, first, second = drawn(seed)
    area, variance = delong_from_histograms(*histograms(labels, first))
    known = reference(labels, first, second)
    assert area == pytest.approx(known["area"], abs=1e-3)
    assert math.sqrt(variance) == pytest.approx(known["error"], abs=1e-3)


def test_two_hospitals_histograms_added_up_are_those_of_all_patients() -> None:
    labels, scores, _ = drawn(0)
    half = len(labels) // 2
    parts = [histograms(labels[part], scores[part]) for part in (slice(half), slice(half, None))]
    merged = delong_from_histograms(parts[0][0] + parts[1][0], parts[0][1] + parts[1][1])
    assert merged == delong_from_histograms(*histograms(labels, scores))


def test_one_image_a_patient_gives_delong_exactly() -> None:
    labels, first, second = drawn(1, 300)
    scores, both = np.stack([first, second], axis=1), np.stack([labels, labels], axis=1)
    sums = placement_sums_of_scores(scores, both, np.arange(len(labels)))
    areas, covariance = delong_covariance(scores, labels)
    np.testing.assert_allclose(sums.areas, areas, rtol=1e-12)
    np.testing.assert_allclose(auroc_covariance(sums), covariance, rtol=1e-9)


def obuchowski(labels: np.ndarray, scores: np.ndarray, patients: np.ndarray) -> float:
    """Return the variance as the paper writes it, patient by patient."""
    ahead, behind = scores[labels], scores[~labels]
    kernel = (ahead[:, None] > behind) + 0.5 * (ahead[:, None] == behind)
    m, n, area = len(ahead), len(behind), kernel.mean()
    first, second = kernel.mean(axis=1), kernel.mean(axis=0)
    s10 = s01 = s11 = 0.0
    numbers = np.unique(patients)
    for one in numbers:
        of_ahead, of_behind = patients[labels] == one, patients[~labels] == one
        a = first[of_ahead].sum() - of_ahead.sum() * area
        b = second[of_behind].sum() - of_behind.sum() * area
        s10, s01, s11 = s10 + a * a, s01 + b * b, s11 + a * b
    with_ahead, with_behind = len(np.unique(patients[labels])), len(np.unique(patients[~labels]))
    s10 *= with_ahead / ((with_ahead - 1) * m)
    s01 *= with_behind / ((with_behind - 1) * n)
    s11 *= len(numbers) / (len(numbers) - 1)
    return float(s10 / m + s01 / n + 2 * s11 / (m * n))


def test_several_images_a_patient_give_obuchowskis_variance() -> None:
    labels, scores, _ = drawn(2, 400)
    patients = np.random.default_rng(0).integers(0, 60, 400)
    sums = placement_sums_of_scores(scores[:, None], labels[:, None], patients)
    variance = float(auroc_covariance(sums)[0, 0])
    assert variance == pytest.approx(obuchowski(labels, scores, patients), rel=1e-9)


def test_two_hospitals_placement_sums_against_merged_histograms_add_up() -> None:
    labels, scores, _ = drawn(3)
    patients = np.arange(len(labels)) // 4
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    merged = histograms(labels, scores)
    half = len(labels) // 2
    parts = [
        placement_sums(
            placements_in_histograms(bins[part], labels[part], *merged)[:, None],
            labels[part, None],
            patients[part],
        )
        for part in (slice(half), slice(half, None))
    ]
    together = parts[0].plus(parts[1])
    raw = placement_sums_of_scores(scores[:, None], labels[:, None], patients)
    assert together.areas[0] == pytest.approx(raw.areas[0], abs=1e-3)
    found, wanted = (math.sqrt(auroc_covariance(one)[0, 0]) for one in (together, raw))
    assert found == pytest.approx(wanted, abs=1e-3)


def test_an_area_of_one_and_a_class_of_one_patient_are_not_certain() -> None:
    scores = np.linspace(0, 1, 12)
    for positives in (6, 1):
        labels = np.arange(12) >= 12 - positives
        sums = placement_sums_of_scores(scores[:, None], labels[:, None], np.arange(12))
        interval = auroc_interval(sums, np.ones(1))
        assert interval.value == 1
        assert interval.high == 1
        assert interval.low < 0.9
        assert interval.standard_error == pytest.approx(
            hanley_mcneil_error(1.0, positives, 12 - positives)
        )


def test_one_patient_and_one_class_have_no_interval() -> None:
    scores, labels = np.array([[0.2], [0.9]]), np.array([[False], [True]])
    assert not auroc_interval(
        placement_sums_of_scores(scores, labels, np.zeros(2, int)), np.ones(1)
    ).is_known
    alone = placement_sums_of_scores(scores, np.ones((2, 1), bool), np.arange(2))
    assert math.isnan(alone.areas[0])
    assert math.isnan(auroc_from_scores(scores[:, 0], np.ones(2, bool)))
    assert math.isnan(delong_from_histograms(np.ones(3), np.zeros(3))[0])


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_scikit_learn(seed: int) -> None:
    labels, scores, _ = drawn(seed, 20_000)
    wanted = average_precision_score(labels, scores)
    assert average_precision(scores, labels) == pytest.approx(wanted, abs=1e-12)
    merged = average_precision_from_histograms(*histograms(labels, scores))
    assert merged == pytest.approx(wanted, abs=1e-3)


def test_an_average_precision_has_an_interval_of_patients() -> None:
    labels, scores, _ = drawn(0, 600)
    of_images = average_precision_interval(scores, labels, np.arange(600))
    doubled = (np.tile(part, 2) for part in (scores, labels, np.arange(600)))
    of_patients = average_precision_interval(*doubled)
    assert of_images.low < of_images.value < of_images.high
    # The same images twice say no more of how patients differ.
    width = of_images.high - of_images.low
    assert of_patients.high - of_patients.low == pytest.approx(width, rel=0.02)
    assert not average_precision_interval(scores, labels, np.zeros(600, int)).is_known
    assert math.isnan(average_precision(scores, np.zeros(600, bool)))
    assert math.isnan(average_precision_from_histograms(np.zeros(3), np.ones(3)))
