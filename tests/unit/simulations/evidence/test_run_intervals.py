"""Intervals and paired gains from a run's predictions."""

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from wardround.simulations.evidence.intervals.paired_gains import mask_gains, score_gains
from wardround.simulations.evidence.intervals.run_intervals import (
    Labels,
    mask_intervals,
    score_intervals,
)
from wardround.simulations.run_files.predictions import Masks, Scores

CLASSES = ("a", "b", "c")
LABELS = Labels(CLASSES, multi_label=False)


def scored(seed: int, skill: float, patients: int = 30, each: int = 3) -> Scores:
    """Return the scores of a model; with one seed the patients are the same."""
    generator = np.random.default_rng(seed)
    count = patients * each
    truth = np.repeat(np.arange(patients) % 3, each)
    noise = generator.normal(size=(count, 3))
    logits = noise + skill * np.eye(3)[truth]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    numbers = np.repeat(np.arange(patients), each)
    return Scores(np.arange(count), numbers, shares, np.eye(3)[truth] > 0)


def marked(values: np.ndarray, hd95: np.ndarray | None = None) -> Masks:
    dice = values.reshape(len(values), 1)
    distance = np.full_like(dice, math.nan) if hd95 is None else hd95.reshape(len(values), 1)
    unmeasured, volume = np.full_like(dice, math.nan), np.ones_like(dice)
    numbers = np.arange(len(values))
    return Masks(numbers, numbers, dice, distance, unmeasured, volume, volume, *[unmeasured] * 3)


def test_every_test_value_has_an_interval_and_all_sites_together_too() -> None:
    sites = {"x": scored(0, 1.5), "y": scored(1, 1.5)}
    given = {("federated", name, "test"): one for name, one in sites.items()}
    given["federated", "x", "validation"] = scored(2, 1.5)
    found = score_intervals(given, LABELS)
    truth = np.concatenate([one.labels for one in sites.values()])
    scores = np.concatenate([one.scores for one in sites.values()])
    whole = found["federated", "all sites", "auroc", ""]
    assert whole.patients == 60
    assert whole.value == pytest.approx(roc_auc_score(truth, scores, average="macro"))
    one = found["federated", "x", "f1", "b"]
    called = sites["x"].scores.argmax(axis=1)
    wanted = f1_score(sites["x"].labels.argmax(axis=1), called, average=None)[1]
    assert one.value == pytest.approx(wanted)
    assert one.low < one.value < one.high
    narrow, wide = whole, found["federated", "x", "auroc", ""]
    assert narrow.high - narrow.low < wide.high - wide.low


def test_a_model_that_only_one_hospital_has_is_not_of_all_sites() -> None:
    given = {("federated", name, "test"): scored(0, 1.0) for name in ("x", "y")}
    given["local-x", "x", "test"] = scored(0, 1.0)
    found = score_intervals(given, LABELS)
    assert ("local-x", "all sites", "auroc", "") not in found


def test_several_labels_and_masks_have_intervals() -> None:
    found = score_intervals({("m", "x", "test"): scored(0, 1.0)}, Labels(CLASSES, True))
    assert found["m", "x", "balanced-accuracy", ""].is_known
    assert found["m", "x", "f1", "c"].is_known
    dice = np.random.default_rng(0).beta(9, 1, 20)
    marks = mask_intervals({("m", "x", "test"): marked(dice)}, ("lesion",))
    assert marks["m", "x", "dice", ""].value == pytest.approx(dice.mean())
    assert ("m", "x", "hd95", "") not in marks


def test_a_gain_is_that_of_the_values_and_narrower_than_two_intervals() -> None:
    better, worse = scored(3, 3.0), scored(3, 1.0)
    gains = dict(score_gains(better, worse, LABELS))
    assert set(gains) == {"accuracy", "balanced-accuracy", "f1", "auroc"}
    alone = score_intervals({("m", "x", "test"): better, ("n", "x", "test"): worse}, LABELS)
    for metric, gain in gains.items():
        values = [alone[model, "x", metric, ""] for model in ("m", "n")]
        assert gain.value == pytest.approx(values[0].value - values[1].value)
        assert gain.low > 0
        assert gain.patients == 30


def test_two_equal_classifiers_are_not_told_apart_by_their_auroc() -> None:
    told = 0
    for seed in range(40):
        first, second = scored(seed, 1.0, 12), scored(seed + 1000, 1.0, 12)
        gain = dict(score_gains(first, second, LABELS))["auroc"]
        told += gain.low > 0 or gain.high < 0
    assert told <= 5


def test_a_gain_of_masks_is_of_the_cases_that_both_have_and_less_distance_is_better() -> None:
    dice = np.linspace(0.5, 0.9, 12)
    first = marked(dice + 0.05, np.append(np.full(11, 2.0), math.nan))
    second = marked(np.append(dice[:11], math.nan), np.full(12, 5.0))
    gains = dict(mask_gains(first, second))
    assert gains["dice"].value == pytest.approx(0.05)
    assert gains["hd95"].value == pytest.approx(3.0)
    assert gains["hd95"].low > 0
    assert "surface-dice" not in gains


def test_a_hospital_with_one_test_patient_has_no_interval_of_its_gain() -> None:
    gains = dict(mask_gains(marked(np.array([0.9])), marked(np.array([0.1]))))
    assert not gains["dice"].is_known
