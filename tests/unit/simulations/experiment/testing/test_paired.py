"""Two models on the same patients: how often equal ones are told apart, and different ones."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from wardround.common.metrics.classification import ClassificationSums
from wardround.common.statistics.case_metrics import answer_columns
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.evidence.intervals.paired_gains import answer_gains
from wardround.simulations.report.verdict import judge
from wardround.simulations.run_files.folder import FEDERATED, MetricRow, local_model

MIXES = [(96, 4), (190, 10), (60, 25, 10, 3, 2)]


def draw(
    counts: Sequence[int], recall: float, alike: float, generator: np.random.Generator
) -> np.ndarray:
    """Return what a model says of patients in the order of their classes: ``(P,)`` classes.

    Args:
        alike: The share of patients whose difficulty ``generator`` draws first; a second model with
            another generator of the same seed finds the same ones difficult.
    """
    truth = np.repeat(np.arange(len(counts)), counts)
    own = np.random.default_rng(generator.integers(2**63) + round(recall * 1e6))
    shared, alone = generator.random(len(truth)), own.random(len(truth))
    luck = np.where(generator.random(len(truth)) < alike, shared, alone)
    wrong = (truth + 1 + own.integers(0, len(counts) - 1, len(truth))) % len(counts)
    return np.where(luck < recall, truth, wrong)


def answers(found: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    called, right = np.eye(classes, dtype=bool)[found], np.eye(classes, dtype=bool)[truth]
    return answer_columns(called, right, multi_label=False)


def compare(
    first: np.ndarray, second: np.ndarray, multi_label: bool
) -> dict[str, tuple[float, float]]:
    """Return each metric's gain and half of its interval."""
    gains = answer_gains(first, second, multi_label)
    return {name: (gain.value, gain.high - gain.value) for name, gain in gains}


def two_models(
    counts: Sequence[int], recalls: tuple[float, float], seed: int, alike: float
) -> tuple[np.ndarray, np.ndarray]:
    first, second = (np.random.default_rng(seed) for _ in range(2))
    # Another draw of its own luck, also where the recalls are equal.
    return draw(counts, recalls[0], alike, first), draw(counts, recalls[1] + 1e-6, alike, second)


def told_apart(counts: Sequence[int], models: Sequence[np.ndarray]) -> list[str]:
    """Return the metrics in which two models differ beyond chance."""
    truth = np.repeat(np.arange(len(counts)), counts)
    first, second = (answers(found, truth, len(counts)) for found in models)
    found = compare(first, second, multi_label=False)
    return [name for name, (gain, margin) in found.items() if abs(gain) > margin + 1e-12]


@pytest.mark.long
@pytest.mark.parametrize("counts", MIXES)
def test_two_equal_models_are_seldom_told_apart(counts: tuple[int, ...]) -> None:
    told = Counter(
        name
        for seed in range(2000)
        for name in told_apart(counts, two_models(counts, (0.7, 0.7), seed, 0.3))
    )
    assert all(told[name] <= 0.07 * 2000 for name in ("accuracy", "balanced-accuracy", "f1"))


@pytest.mark.parametrize(
    ("recalls", "alike"), [((0.95, 0.8), 0.0), ((0.9, 0.75), 0.5), ((0.85, 0.7), 0.0)]
)
def test_a_true_difference_is_told_as_often_as_an_exact_paired_test_does(
    recalls: tuple[float, float], alike: float
) -> None:
    counts, runs = (190, 10), 400
    pairs = [two_models(counts, recalls, seed, alike) for seed in range(runs)]
    ours = np.mean(["balanced-accuracy" in told_apart(counts, pair) for pair in pairs])
    exact = np.mean([exact_p_value(counts, pair) <= 0.05 for pair in pairs])
    assert abs(ours - exact) <= 0.1
    assert ours > 0.25


def exact_p_value(counts: tuple[int, int], models: Sequence[np.ndarray]) -> float:
    """Enumerate all swaps: of each class's discordant patients, how many favour the first."""
    truth = np.repeat(np.arange(2), counts)
    right = [(found == truth).astype(int) for found in models]
    differences = [(right[0] - right[1])[truth == k] for k in range(2)]
    observed = abs(sum(d.sum() / n for d, n in zip(differences, counts, strict=True)))
    totals: list[list[tuple[float, float]]] = []
    for difference, count in zip(differences, counts, strict=True):
        discordant = int(np.abs(difference).sum())
        totals.append(
            [
                ((2 * k - discordant) / count, math.comb(discordant, k) / 2**discordant)
                for k in range(discordant + 1)
            ]
        )
    return sum(p * q for a, p in totals[0] for b, q in totals[1] if abs(a + b) >= observed - 1e-12)


def test_one_patient_never_tells_two_models_apart() -> None:
    truth, right = [5.0, 0.0], [5.0, 0.0, 5.0, 0.0]
    wrong = [0.0, 0.0, 0.0, 5.0]
    gains = answer_gains(np.array([right + truth]), np.array([wrong + truth]), multi_label=False)
    found = dict(gains)["accuracy"]
    assert found.value == 1.0
    assert not found.is_known


def test_several_labels_are_compared_by_the_metrics_of_their_sums() -> None:
    generator = np.random.default_rng(0)
    labels, called = generator.integers(0, 2, (2, 40, 3))
    nothing = np.zeros((40, 3), dtype=bool)
    first, second = (answer_columns(one > 0, labels > 0, True) for one in (called, nothing))
    found = compare(first, second, multi_label=True)
    accuracy = (called == labels).mean() - (labels == 0).mean()
    sensitivity = [called[labels[:, k] == 1, k].mean() for k in range(3)]
    specificity = [1 - called[labels[:, k] == 0, k].mean() for k in range(3)]
    assert found["accuracy"][0] == pytest.approx(accuracy)
    balanced = np.mean([sensitivity, specificity]) - 0.5
    assert found["balanced-accuracy"][0] == pytest.approx(balanced)


# --- From sums alone, as real sites send them -----------------------------------------------------


def study_of(classes: int) -> Study:
    names = [f"class {k}" for k in range(classes)]
    return parse_study(
        {
            "study": {"name": "told apart", "task": "classification"},
            "data": {"kind": "table", "classes": names, "covariates": [{"name": "age"}]},
            "model": {"network": "mlp"},
        }
    )


@pytest.mark.parametrize("metric", ["balanced-accuracy", "f1"])
@pytest.mark.parametrize("counts", MIXES)
def test_sums_alone_seldom_tell_equal_models_apart(counts: tuple[int, ...], metric: str) -> None:
    study, truth = study_of(len(counts)), np.repeat(np.arange(len(counts)), counts)
    told = 0
    for seed in range(2000):
        models = two_models(counts, (0.6, 0.6), seed, alike=0.0)
        rows = [
            row_of(name, found, truth, study, metric)
            for name, found in zip((FEDERATED, local_model("a")), models, strict=True)
        ]
        told += judge(rows, (), metric).sites[0].outcome in ("gained", "lost")
    assert told / 2000 <= 0.07


def row_of(name: str, found: np.ndarray, truth: np.ndarray, study: Study, metric: str) -> MetricRow:
    classes = study.class_count
    confusion = np.bincount(truth * classes + found, minlength=classes**2)
    none = np.zeros((classes, 10), dtype=np.int64)
    sums = ClassificationSums(confusion.reshape(classes, classes), none, none, None)
    value = next(iter(sums.summarise(metric, len(truth), study)))
    error = value.standard_error
    assert error > 0
    return MetricRow(name, -1, "a", "test", metric, "", value.value, len(truth), 0.0, error)
