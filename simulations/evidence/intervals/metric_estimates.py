"""A study's metric from what a model said of each examination, with every patient's part in it."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from wardround.common.statistics.joining.patient_gain import (
    Booleans,
    Estimate,
    Floats,
    Integers,
    auroc_of,
    f1_of,
    mean_of,
    mean_of_estimates,
    recall_of,
)
from wardround.common.study.study import Study
from wardround.simulations.evidence.intervals.outcome_metrics import (
    left_out,
    metrics_of,
)
from wardround.simulations.run_files.outcomes import Outcomes
from wardround.simulations.run_files.predictions import Masks, Scores

Cases = Scores | Masks | Outcomes
_OF_CLASSES = ("auroc", "balanced-accuracy", "f1")
_LEAST_SCORE = 1e-12  # a score of 0 for what is true is an infinite loss
_UNDEFINED = float("nan")


def estimate(metric: str, cases: Cases, study: Study) -> Estimate:
    """Return a metric over all classes, as the catalogue defines it.

    Its value is NaN where the cases do not tell: a loss that weighs classes or pixels, say.
    """
    if metric == "loss" and isinstance(cases, Scores):
        return _loss(cases, study)
    return estimate_of(metric, cases, study.data.multi_label)


def estimate_of(metric: str, cases: Cases, multi_label: bool) -> Estimate:
    """Return a metric over all classes; NaN where the cases do not tell.

    Args:
        multi_label: Whether an examination may be of several classes.
    """
    if isinstance(cases, Outcomes):
        if metric not in metrics_of(cases):
            return _unknown(cases)
        found = left_out(metric, cases)
        return Estimate(found.value, found.influence)
    if isinstance(cases, Masks):
        each = _dense_values(metric, cases)
        classes = range(0 if each is None else each.shape[1])
        parts = [] if each is None else [mean_of(each[:, k], cases.patients) for k in classes]
        return mean_of_estimates(parts) if parts else _unknown(cases)
    maker = _WHOLE.get(metric)
    return maker(cases, multi_label) if maker is not None else _unknown(cases)


def estimates_by_class(metric: str, cases: Cases, study: Study) -> Mapping[str, Estimate]:
    """Return the metric of each class; empty where it says the same of all, as of two classes.

    For accuracy and balanced accuracy it is the class's F1, which a mere shift of answers from one
    class to another hardly changes.
    """
    names = study.data.classes
    if isinstance(cases, Outcomes):
        return {}
    if isinstance(cases, Masks):
        each, names = _dense_values(metric, cases), names[1:]
        if each is None or len(names) < 2:
            return {}
        return {name: mean_of(each[:, k], cases.patients) for k, name in enumerate(names)}
    if metric == "loss" or (len(names) < 3 and not study.data.multi_label):
        return {}
    parts = _aurocs(cases) if metric == "auroc" else _f1s(cases, study.data.multi_label)
    return dict(zip(names, parts, strict=True))


def strata_of(metric: str, cases: Cases, study: Study) -> Integers | None:
    """Return a class a patient, where the metric weighs classes and each patient has one."""
    if not isinstance(cases, Scores) or study.data.multi_label or not len(cases.patients):
        return None
    if metric not in _OF_CLASSES:
        return None
    _, first = np.unique(cases.patients, return_index=True)
    return np.asarray(cases.labels[first].argmax(axis=1), dtype=np.int64)


def patient_count(cases: Cases) -> int:
    """Return how many patients there are."""
    return len(np.unique(cases.patients))


def patients_of_class(cases: Cases, name: str, study: Study) -> int:
    """Return how many patients have a class, in the truth."""
    if isinstance(cases, Outcomes):
        return 0
    place = study.data.classes.index(name)
    if isinstance(cases, Masks):
        held = np.isfinite(cases.dice[:, place - 1])
    else:
        held = cases.labels[:, place]
    return len(np.unique(cases.patients[held]))


def _unknown(cases: Cases) -> Estimate:
    return Estimate(_UNDEFINED, np.zeros(patient_count(cases)))


def _dense_values(metric: str, cases: Masks) -> Floats | None:
    values = {"dice": cases.dice, "hd95": cases.hd95, "surface-dice": cases.surface_dice}
    return values.get(metric)


def _called(cases: Scores, multi_label: bool) -> Booleans:
    if multi_label:
        return np.asarray(cases.scores >= 0.5)
    best = cases.scores.argmax(axis=1)
    return np.asarray(best[:, None] == np.arange(cases.scores.shape[1]))


def _accuracy(cases: Scores, multi_label: bool) -> Estimate:
    right = _called(cases, multi_label) == cases.labels
    if multi_label:
        return mean_of(right.mean(axis=1), cases.patients, counts=True)
    return mean_of(right.all(axis=1).astype(float), cases.patients, counts=True)


def _balanced_accuracy(cases: Scores, multi_label: bool) -> Estimate:
    right, labels = (_called(cases, multi_label) == cases.labels).astype(float), cases.labels
    sides = [(right[:, k], labels[:, k]) for k in range(labels.shape[1])]
    if multi_label:  # each label's absence is a class too, where it has both
        sides = [(one, held) for one, held in sides if held.any() and not held.all()]
        sides += [(one, ~held) for one, held in sides]
    parts = [recall_of(one, held, cases.patients) for one, held in sides]
    return mean_of_estimates(parts) if parts else _unknown(cases)


def _f1s(cases: Scores, multi_label: bool) -> list[Estimate]:
    called = _called(cases, multi_label)
    classes = range(cases.labels.shape[1])
    return [f1_of(called[:, k], cases.labels[:, k], cases.patients) for k in classes]


def _aurocs(cases: Scores) -> list[Estimate]:
    classes = range(cases.labels.shape[1])
    return [auroc_of(cases.scores[:, k], cases.labels[:, k], cases.patients) for k in classes]


def _loss(cases: Scores, study: Study) -> Estimate:
    plain = {"cross-entropy": False, "bce": True}.get(study.loss)
    if plain is not study.data.multi_label or study.training.class_weights != "none":
        return _unknown(cases)
    scores: NDArray[np.float64] = np.where(cases.labels, cases.scores, 1 - cases.scores)
    each = -np.log(np.maximum(scores, _LEAST_SCORE))
    if study.data.multi_label:
        return mean_of(each.mean(axis=1), cases.patients)
    return mean_of(np.where(cases.labels, each, 0.0).sum(axis=1), cases.patients)


_WHOLE: Mapping[str, Callable[[Scores, bool], Estimate]] = {
    "accuracy": _accuracy,
    "balanced-accuracy": _balanced_accuracy,
    "f1": lambda cases, multi_label: mean_of_estimates(_f1s(cases, multi_label)),
    "auroc": lambda cases, _: mean_of_estimates(_aurocs(cases)),
}
