"""How unsure models are of a case: one number a case, larger is less sure.

Every score is of probabilities. A model that says the same of every case ranks none, and one that
says no numbers is broken: both are refused, for a queue of them would be an order of names.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import InputError

Floats = NDArray[np.float64]
Score = Callable[[Floats, bool], Floats]
"""From ``(M, N, K)`` probabilities, and whether classes are independent, to ``(N,)``."""
_SUM_TOLERANCE = 1e-3
_SAME = 1e-9  # scores that differ by less are equal: rounding ranks nobody


def entropy(members: Floats, multi_label: bool = False) -> Floats:
    """Return the entropy of the members' mean, 0 (certain) to 1 (nothing is known).

    Args:
        members: ``(M, N, K)`` probabilities.
        multi_label: Whether each class is a question of its own; the mean over classes then.
    """
    return _entropy(members.mean(axis=0), multi_label)


def mutual_information(members: Floats, multi_label: bool = False) -> Floats:
    """Return how far the members disagree, 0 (all say the same) to 1.

    It is the entropy of the mean less the mean of the entropies: BALD where the members are passes
    with dropout (Houlsby et al. 2011, equation 2; Gal et al. 2017), the Jensen-Shannon divergence
    of a committee where they are models.

    Args:
        members: ``(M, N, K)`` probabilities, M at least 2.
        multi_label: As for :func:`entropy`.
    """
    apart = np.mean([_entropy(one, multi_label) for one in members], axis=0)
    return np.asarray(np.maximum(entropy(members, multi_label) - apart, 0.0))


SCORES: Mapping[str, Score] = {
    "entropy": entropy,
    "disagreement": mutual_information,
    "bald": mutual_information,
}


def disjointness(masks: list[NDArray[Any]]) -> float:
    """Return how far masks of one case lie apart: 1 less the mean Dice of all pairs.

    Dice is taken over the foreground, class by class, and averaged over the classes that any of
    the two holds. Two empty masks agree.

    Args:
        masks: At least two, ``(*spatial)`` class indices each.
    """
    pairs = [(a, b) for at, a in enumerate(masks) for b in masks[at + 1 :]]
    return float(np.mean([1.0 - mean_dice(a, b) for a, b in pairs]))


def mean_dice(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the mean Dice coefficient over the foreground classes that one of two masks holds.

    Args:
        one: ``(*spatial)`` class indices; 0 is no class.
        other: Of the same shape.
    """
    classes = [label for label in np.union1d(one, other).tolist() if label > 0]
    if not classes:
        return 1.0
    values = []
    for label in classes:
        a, b = one == label, other == label
        values.append(2.0 * float((a & b).sum()) / float(a.sum() + b.sum()))
    return float(np.mean(values))


def check_probabilities(members: Floats, multi_label: bool = False) -> None:
    """Refuse probabilities that are none.

    Args:
        members: ``(M, N, K)``.
        multi_label: Whether those of a case need not add up to 1.

    Raises:
        InputError: One is no number, or not between 0 and 1, or those of a case do not add up.
    """
    wrong = ~np.isfinite(members)
    if wrong.any():
        cases = int(wrong.any(axis=(0, 2)).sum())
        msg = (
            f"the model says no number for {cases} of {members.shape[1]} cases (NaN or infinite): "
            "its weights are damaged, or the images are not those it was trained on."
        )
        raise InputError(msg)
    low, high = float(members.min(initial=0.0)), float(members.max(initial=0.0))
    sums = members.sum(axis=2)
    adds_up = multi_label or not sums.size or float(np.abs(sums - 1).max()) < _SUM_TOLERANCE
    if low < 0 or high > 1 or not adds_up:
        msg = (
            f"what the model says is no probability: values from {low:g} to {high:g}, which must "
            "lie between 0 and 1 and add up to 1. Give the probabilities, not the logits."
        )
        raise InputError(msg)


def check_scores(scores: Floats) -> None:
    """Refuse scores ``(N,)`` that rank nothing.

    Raises:
        InputError: One is no number, or all are equal.
    """
    if not np.isfinite(scores).all():
        count = int((~np.isfinite(scores)).sum())
        msg = f"{count} of {len(scores)} scores are no numbers: the model cannot rank these cases."
        raise InputError(msg)
    if len(scores) > 1 and float(scores.max() - scores.min()) < _SAME:
        msg = (
            f"the model is as unsure of each of the {len(scores)} cases (score {scores[0]:.4g}): "
            "it ranks none. Train it further, or read a random sample (--by random)."
        )
        raise InputError(msg)


def _entropy(probabilities: Floats, multi_label: bool) -> Floats:
    if multi_label:
        both = np.stack([probabilities, 1 - probabilities])
        return np.asarray(-_times_log(both).sum(axis=0).mean(axis=1) / math.log(2))
    bits = -_times_log(probabilities).sum(axis=1)
    return np.asarray(bits / math.log(probabilities.shape[1]))


def _times_log(p: Floats) -> Floats:
    return p * np.log(np.maximum(p, 1e-300))
