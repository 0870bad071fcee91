"""Scores made to mean what they say: temperature and Platt scaling, fitted from sums.

Each exchange asks every site, at the same numbers, for the sums of its loss, gradient and Hessian;
their total over sites is that of all examinations in one place, and so is the fit, to the last
digits. Nothing of a single examination is asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from wardround.common.errors import InputError
from wardround.common.statistics.decisions.curves import Floats, Mask

MOST_EXCHANGES = 40
_CLOSE_ENOUGH = 1e-7  # of a step, against the size of what is fitted
_EXTREME = 100.0  # a temperature above it, or below its inverse, is no temperature
_NO_LOSS = 1e-6  # a mean loss below it is none
_SMALLEST_SCORE = 1e-300  # its logarithm is finite
_HAIR = 1e-15  # from 0 and 1, where log-odds are not
_SUFFICIENT = 1e-4  # share of the expected fall of the loss that a step must bring (Armijo 1966)


@dataclass(frozen=True, slots=True, eq=False)
class NewtonSums:
    """What a site says in one exchange, over its validation examinations; P numbers are fitted.

    Attributes:
        terms: How many examinations (multi-label: examinations times labels) are summed.
        loss: Sum of the negative log-likelihood.
        gradient: ``(P,)`` sum of its first derivatives.
        hessian: ``(P, P)`` sum of its second derivatives.
    """

    terms: float
    loss: float
    gradient: Floats
    hessian: Floats

    def plus(self, other: "NewtonSums") -> "NewtonSums":
        """Return the sums over the examinations of both.

        Raises:
            InputError: They fit other numbers.
        """
        if self.gradient.shape != other.gradient.shape:
            msg = f"sums of {len(self.gradient)} and of {len(other.gradient)} numbers do not add: "
            msg += "ask all sites for the same fit."
            raise InputError(msg)
        return NewtonSums(
            self.terms + other.terms,
            self.loss + other.loss,
            self.gradient + other.gradient,
            self.hessian + other.hessian,
        )


# Asks every site for its sums at the given numbers, and adds them up.
Ask = Callable[[Floats], NewtonSums]


@dataclass(frozen=True, slots=True)
class Fit:
    """What was fitted.

    Attributes:
        values: The numbers: (temperature,), or Platt's (slope, intercept).
        exchanges: How often the sites were asked.
        loss_before: Mean loss of the scores as they are; NaN without examinations.
        loss_after: Mean loss with the numbers.
        trouble: Why the numbers must not be used; "" where they may.
    """

    values: tuple[float, ...]
    exchanges: int
    loss_before: float
    loss_after: float
    trouble: str = ""

    @property
    def is_usable(self) -> bool:
        """Whether the fit converged and every class had cases."""
        return not self.trouble


def fit_temperature(ask: Ask, cases: Floats) -> Fit:
    """Return the temperature T whose softmax(z / T) has the least loss (Guo et al. 2017).

    Args:
        ask: Sums of :func:`temperature_sums` over all sites; asked at 1 / T, in which the loss is
            convex.
        cases: ``(K,)`` validation examinations of each class, over all sites; for multi-label
            ``(K, 2)``, absent first.
    """
    if np.count_nonzero(cases.reshape(-1)) < 2:
        fact = "no" if not cases.any() else "only one class of"
        return _refused((1.0,), f"there are {fact} validation examinations to fit it to")
    found = _minimise(ask, np.array([1.0]), _temperature_step)
    inverse = float(found.numbers[0])
    trouble = found.trouble
    if inverse >= _EXTREME * 0.99 or found.after < _NO_LOSS:
        trouble = "the scores separate the validation examinations wholly, which no one number fits"
    elif inverse <= 1.01 / _EXTREME:
        trouble = "on the validation examinations the scores say less than chance"
    return Fit((1 / inverse,), found.exchanges, found.before, found.after, trouble)


def fit_platt(ask: Ask, cases: Floats) -> Fit:
    """Return slope a and intercept b of sigmoid(a m + b), m the log-odds of a score (Platt 1999).

    Args:
        ask: Sums of :func:`platt_sums` over all sites.
        cases: ``(2,)`` negatives and positives among all sites' validation examinations.
    """
    if not cases.all():
        lacking = "positive" if cases[0] else "negative"
        fact = lacking if cases.any() else "positive or negative"
        return _refused((1.0, 0.0), f"there are no {fact} validation examinations to fit it to")
    found = _minimise(ask, np.array([1.0, 0.0]), lambda numbers, step: numbers + step)
    values = tuple(float(number) for number in found.numbers)
    trouble = found.trouble
    if not trouble and values[0] <= 0:
        trouble = "on the validation examinations a higher score means the class is less likely"
    return Fit(values, found.exchanges, found.before, found.after, trouble)


def temperature_sums(
    logits: Floats, labels: Mask, inverse_temperature: float, multi_label: bool = False
) -> NewtonSums:
    """Return a site's sums at a temperature.

    Args:
        logits: ``(N, K)``, up to a constant an examination: logarithms of scores will do. For
            multi-label log-odds of each label.
        labels: ``(N, K)`` the true classes.
        inverse_temperature: 1 / T, above 0.
        multi_label: Whether each label is a question of its own.
    """
    scaled = logits * inverse_temperature
    if multi_label:
        chance = _sigmoid(scaled)
        loss = (np.logaddexp(0.0, scaled) - labels * scaled).sum()
        slope, bend = ((chance - labels) * logits).sum(), (chance * (1 - chance) * logits**2).sum()
        return _sums_of_one(logits.size, loss, slope, bend)
    if not len(logits):
        return _sums_of_one(0, 0.0, 0.0, 0.0)
    shifted = scaled - scaled.max(axis=1, keepdims=True)
    chance = np.exp(shifted)
    total = chance.sum(axis=1, keepdims=True)
    chance /= total
    loss = (np.log(total[:, 0]) - shifted[labels]).sum()
    centre = (chance * logits).sum(axis=1)
    slope = (centre - logits[labels]).sum()
    bend = (chance * (logits - centre[:, None]) ** 2).sum()
    return _sums_of_one(len(logits), loss, slope, bend)


def platt_sums(margins: Floats, labels: Mask, numbers: Floats, cases: Floats) -> NewtonSums:
    """Return a site's sums at a slope and an intercept, for one class against the rest.

    Platt's targets, (P + 1) / (P + 2) and 1 / (N + 2), keep the numbers finite where the scores
    separate the classes wholly.

    Args:
        margins: ``(N,)`` log-odds of the class's score.
        labels: ``(N,)``.
        numbers: ``(2,)`` slope and intercept.
        cases: ``(2,)`` negatives and positives over *all* sites.
    """
    target = np.where(labels, (cases[1] + 1) / (cases[1] + 2), 1 / (cases[0] + 2))
    inputs = np.stack([margins, np.ones_like(margins)], axis=1)
    line = inputs @ numbers
    chance = _sigmoid(line)
    weighted = inputs * (chance * (1 - chance))[:, None]
    return NewtonSums(
        float(len(margins)),
        float((np.logaddexp(0.0, line) - target * line).sum()),
        inputs.T @ (chance - target),
        inputs.T @ weighted,
    )


def pooled(sites: Sequence[NewtonSums]) -> NewtonSums:
    """Return the sums over all sites, of which there is at least one."""
    return reduce(NewtonSums.plus, sites)


def logits_of_scores(scores: Floats, multi_label: bool = False) -> Floats:
    """Return logits of scores ``(N, K)``: their logarithms, for multi-label their log-odds."""
    return log_odds(scores) if multi_label else np.log(np.maximum(scores, _SMALLEST_SCORE))


def log_odds(scores: Floats) -> Floats:
    """Return the log-odds of scores of any shape, which are kept a hair from 0 and 1."""
    inside = np.clip(scores, _HAIR, 1 - _HAIR)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def with_temperature(scores: Floats, temperature: float, multi_label: bool = False) -> Floats:
    """Return ``(N, K)`` scores after their logits were divided by a temperature."""
    scaled = logits_of_scores(scores, multi_label) / temperature
    if multi_label:
        return _sigmoid(scaled)
    shares = np.exp(scaled - scaled.max(axis=1, keepdims=True)) if len(scaled) else scaled
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def with_platt(scores: Floats, slope: float, intercept: float) -> Floats:
    """Return ``(N,)`` scores of one class after Platt scaling."""
    return _sigmoid(slope * log_odds(scores) + intercept)


@dataclass(frozen=True, slots=True, eq=False)
class _Minimum:
    numbers: Floats
    exchanges: int
    before: float
    after: float
    trouble: str


def _minimise(ask: Ask, start: Floats, move: Callable[[Floats, Floats], Floats]) -> _Minimum:
    """Return where a convex loss is least: Newton's steps, halved until the loss falls enough."""
    here, numbers = ask(start), start
    before, exchanges, share = here.loss / max(here.terms, 1.0), 1, 1.0
    step = _newton_step(here)
    trouble = f"the fit did not converge in {MOST_EXCHANGES} exchanges"
    while exchanges < MOST_EXCHANGES:
        tried = move(numbers, share * step)
        there = ask(tried)
        exchanges += 1
        moved = tried - numbers
        expected = _SUFFICIENT * float(here.gradient @ moved)
        # A step of rounding errors cannot bring the loss down: it is taken, and is the last.
        noise = 1e-12 * (1 + abs(here.loss))
        if not there.loss <= here.loss + expected + noise:
            share /= 2
            continue
        numbers, here, share = tried, there, 1.0
        step = _newton_step(here)
        if np.abs(moved).max() <= _CLOSE_ENOUGH * (1 + np.abs(numbers).max()):
            trouble = ""
            break
    return _Minimum(numbers, exchanges, before, here.loss / max(here.terms, 1.0), trouble)


def _newton_step(sums: NewtonSums) -> Floats:
    # A ridge of no weight: where all margins are equal the Hessian cannot be inverted.
    ridge = 1e-10 * (np.trace(sums.hessian) / len(sums.gradient)) + 1e-300
    hessian = sums.hessian + ridge * np.eye(len(sums.gradient))
    return np.asarray(np.linalg.solve(hessian, -sums.gradient))


def _temperature_step(numbers: Floats, step: Floats) -> Floats:
    """Return the next 1 / T: at most four times more or less at once, and never extreme."""
    nearby = np.clip(numbers + step, numbers / 4, numbers * 4)
    return np.asarray(np.clip(nearby, 1 / _EXTREME, _EXTREME))


def _refused(values: tuple[float, ...], trouble: str) -> Fit:
    return Fit(values, 0, float("nan"), float("nan"), trouble)


def _sums_of_one(terms: float, loss: float, slope: float, bend: float) -> NewtonSums:
    return NewtonSums(float(terms), float(loss), np.array([slope]), np.array([[bend]]))


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(values / 2)))
