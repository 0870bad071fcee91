"""A metric of a model on some patients: as the study's sums say, and how far each one moves it."""

import math

import numpy as np
import pytest

from wardround.simulations.evidence.intervals.estimates import (
    chosen,
    difference,
    expected_calibration_error,
    measure,
    together,
)
from wardround.simulations.run_files.predictions import Scores

METRICS = ("auroc", "accuracy", "balanced-accuracy", "f1")


def drawn(count: int, classes: int, seed: int = 0, multi_label: bool = False) -> Scores:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes)) + 1.2 * np.eye(classes)[truth]
    labels = np.eye(classes, dtype=bool)[truth]
    if multi_label:
        labels = generator.random((count, classes)) < 0.4
        logits = generator.normal(size=(count, classes)) + labels
        scores = 1 / (1 + np.exp(-logits))
    else:
        scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Scores(np.arange(count), np.arange(count) // 2, scores, labels)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("multi_label", [False, True])
def test_an_influence_is_what_the_metric_moves_by_without_the_patient(
    metric: str, classes: int, multi_label: bool
) -> None:
    answers = drawn(400, classes, multi_label=multi_label)
    found = measure(metric, answers, multi_label)
    assert found is not None
    assert found.influence.sum() == pytest.approx(0, abs=1e-9)
    moved = []
    for patient in range(0, 200, 10):
        without = measure(metric, chosen(answers, answers.patients != patient), multi_label)
        assert without is not None
        moved.append(found.value - without.value)
    assert np.corrcoef(moved, found.influence[::10])[0, 1] > 0.98
    assert np.abs(found.influence[::10]) == pytest.approx(np.abs(moved), abs=1.2e-3)


@pytest.mark.parametrize("metric", METRICS)
def test_the_spread_of_influences_is_that_of_the_interval(metric: str) -> None:
    found = measure(metric, drawn(1_000, 3))
    assert found is not None
    totals = found.influence
    assert math.sqrt((totals**2).sum()) == pytest.approx(found.interval.standard_error, rel=0.05)


def test_two_models_on_the_same_patients_are_compared_more_closely_than_on_others() -> None:
    first = drawn(600, 2)
    noise = np.random.default_rng(5).normal(scale=0.02, size=600)
    second = np.clip(first.scores[:, 1] + noise, 0, 1)
    nearly = Scores(
        first.cases, first.patients, np.stack([1 - second, second], axis=1), first.labels
    )
    a, b = measure("auroc", first), measure("auroc", nearly)
    other = measure("auroc", together([first, drawn(600, 2, seed=9)]))
    assert a is not None
    assert b is not None
    assert other is not None
    paired = difference(a, b)
    assert paired.low < 0 < paired.high
    assert paired.standard_error < 0.4 * a.interval.standard_error


def test_two_models_that_answer_alike_have_a_difference_of_none_but_not_for_certain() -> None:
    a = measure("accuracy", drawn(40, 2))
    assert a is not None
    found = difference(a, a)
    assert found.value == 0
    assert found.low < 0 < found.high


def test_calibration_error_is_the_gap_between_what_is_said_and_what_is() -> None:
    scores = np.full(100, 0.9)
    labels = np.arange(100) < 50
    one = Scores(
        np.arange(100),
        np.arange(100),
        np.stack([1 - scores, scores], axis=1),
        np.stack([~labels, labels], axis=1),
    )
    assert expected_calibration_error(one) == pytest.approx(0.4)
