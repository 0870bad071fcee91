"""The temperature of a finished model, fitted on validation patients, and whether to use it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wardround.common.statistics.decisions.recalibration import (
    Fit,
    fit_platt,
    fit_temperature,
    log_odds,
    logits_of_scores,
    platt_sums,
    pooled,
    temperature_sums,
)
from wardround.simulations.evidence.answers import joined
from wardround.simulations.run_files.predictions import Scores

FEWEST_PATIENTS = 50
"""The error of a temperature is about a third of it with so many patients, less with more."""
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Temperature:
    """What a model's logits are divided by before they become probabilities.

    Attributes:
        fitted: NaN where none could be fitted.
        reason: Why it must not be used; "" where it may.
        patients: Validation patients that it was fitted on.
        examinations: Theirs.
        fall: By how much it lowers the mean loss of patients who took no part in fitting it.
    """

    fitted: float
    reason: str
    patients: int
    examinations: int
    fall: float = math.nan

    @property
    def used(self) -> float | None:
        """The temperature where it is to be used."""
        return None if self.reason else self.fitted

    @property
    def note(self) -> str:
        """How it was found, or why there is none; a sentence without its full stop."""
        if self.reason:
            return self.reason
        return (
            f"a temperature of {self.fitted:.3f} was fitted on {self.patients} validation patients"
        )


def find_temperature(sites: Sequence[Scores], multi_label: bool) -> Temperature:
    """Return the temperature of a model from the hospitals' sums over their validation patients.

    It is used where there are enough patients, it could be fitted, and it lowers the loss of
    patients who were left out of fitting it: a fifth at a time.

    Args:
        sites: The model's scores of each hospital's validation examinations.
        multi_label: Whether each label is a question of its own.
    """
    held = [site for site in sites if len(site.scores)]
    if not held:
        return Temperature(math.nan, "there are no validation patients to fit it on", 0, 0)
    everybody = joined(held, multi_label)
    patients, examinations = everybody.people, len(everybody)
    fit = _fit(held, multi_label)
    if not fit.is_usable:
        return Temperature(math.nan, fit.trouble, patients, examinations)
    fall = _fall_of_those_left_out(held, multi_label)
    reason = ""
    if patients < FEWEST_PATIENTS:
        reason = (
            f"{patients} validation patients are too few to fit it on: it takes {FEWEST_PATIENTS}"
        )
    elif not fall > 0:
        reason = (
            "a fitted temperature does not help validation patients who were left out of fitting "
            "it: the probabilities stay as the network gives them"
        )
    return Temperature(fit.values[0], reason, patients, examinations, fall)


def find_platt(sites: Sequence[Scores], index: int) -> Fit:
    """Return Platt's two numbers of one class from the hospitals' sums over validation patients."""
    margins = [log_odds(site.scores[:, index]) for site in sites]
    labels = [site.labels[:, index] for site in sites]
    positives = float(sum(label.sum() for label in labels))
    total = float(sum(len(label) for label in labels))
    cases = np.array([total - positives, positives])
    return fit_platt(
        lambda numbers: pooled(
            [platt_sums(m, y, numbers, cases) for m, y in zip(margins, labels, strict=True)]
        ),
        cases,
    )


def _fit(sites: Sequence[Scores], multi_label: bool) -> Fit:
    logits = [logits_of_scores(site.scores, multi_label) for site in sites]
    cases = np.sum([_cases(site, multi_label) for site in sites], axis=0)
    return fit_temperature(
        lambda numbers: pooled(
            [
                temperature_sums(z, site.labels, float(numbers[0]), multi_label)
                for z, site in zip(logits, sites, strict=True)
            ]
        ),
        cases,
    )


def _cases(site: Scores, multi_label: bool) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    there = site.labels.sum(axis=0).astype(np.float64)
    return np.stack([len(site.labels) - there, there], axis=1) if multi_label else there


def _fall_of_those_left_out(sites: Sequence[Scores], multi_label: bool) -> float:
    """Return the fall of the mean loss where every patient is left out of one fit of five."""
    before, after, terms = 0.0, 0.0, 0.0
    for fold in range(_FOLDS):
        fit = _fit([_some(site, site.patients % _FOLDS != fold) for site in sites], multi_label)
        inverse = 1 / fit.values[0] if fit.is_usable else 1.0
        for site in sites:
            out = _some(site, site.patients % _FOLDS == fold)
            logits = logits_of_scores(out.scores, multi_label)
            plain = temperature_sums(logits, out.labels, 1.0, multi_label)
            before, terms = before + plain.loss, terms + plain.terms
            after += temperature_sums(logits, out.labels, inverse, multi_label).loss
    return (before - after) / terms if terms else math.nan


def _some(site: Scores, which: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Scores:
    return Scores(site.cases[which], site.patients[which], site.scores[which], site.labels[which])
