"""Was this patient in the training data? Likelihood-ratio attack, offline (Carlini et al. 2022).

Shadow models are trained on random halves of a pool of patients. What the models that never saw a
patient make of her is a normal distribution of confidences; a target model that is much surer of
her than that has seen her. The attack is judged where a false alarm is rare: by the share of
members it finds at 1 % false alarms.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

FALSE_ALARMS = 0.01  # Carlini et al. 2022 judge an attack where it is rarely wrong
_LEAST_DEVIATION = 1e-6  # shadow models that agree entirely must not divide by 0

# From indices of the pool to the logits of all the pool by a model trained on those indices.
TrainAndPredict = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Rate:
    """A share that was counted, with its interval (Clopper and Pearson 1934)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Membership:
    """How well an attack told members from others.

    Attributes:
        found: Share of the members it found.
        false_alarms: Share of the others that it took for members, at most :data:`FALSE_ALARMS`.
        members: How many members were tested.
        others: How many others.
    """

    found: Rate
    false_alarms: Rate
    members: int
    others: int

    def exceeds(self, epsilon: float, delta: float) -> bool:
        """Tell whether (epsilon, delta)-DP is refuted: more was found than it allows.

        Under it ``TPR <= e^epsilon FPR + delta`` (Kairouz et al. 2015); both intervals are given
        the benefit of the doubt.
        """
        return self.found.low > largest_share(epsilon, delta, self.false_alarms.high)


def largest_share(epsilon: float, delta: float, false_alarms: float = FALSE_ALARMS) -> float:
    """Return the largest share of members that any attack finds at a rate of false alarms."""
    if false_alarms <= 0:
        return min(1.0, delta)
    exponent = min(epsilon + math.log(false_alarms), 0.0)
    return min(1.0, math.exp(exponent) + delta)


def confidences(logits: Tensor, targets: Tensor) -> Tensor:
    """Return ``log(p / (1 - p))`` of the true class, ``(N,)`` float64 (Carlini et al. 2022, eq. 3).

    Args:
        logits: ``(N, K)``, K at least 2.
        targets: ``(N,)`` class indices.
    """
    scores = logits.double()
    own = scores.gather(1, targets[:, None])
    others = scores.scatter(1, targets[:, None], -math.inf)
    return own[:, 0] - others.logsumexp(1)


def offline_scores(target: Tensor, shadows: Tensor, trained_on: Tensor) -> Tensor:
    """Return how much surer of each patient the target is than models that never saw her, ``(N,)``.

    ``(phi - mean) / deviation`` of the models without her: the larger, the likelier a member
    (Carlini et al. 2022, section VI-A, offline; with one deviation for all, as for few models).

    Args:
        target: ``(N,)`` confidences of the attacked model.
        shadows: ``(S, N)`` confidences of the shadow models.
        trained_on: ``(S, N)`` bool; each patient must be left out by at least one.

    Raises:
        ValueError: A patient is in the training set of every shadow model.
    """
    left_out = ~trained_on
    count = left_out.sum(0)
    if int(count.min()) < 1:
        msg = "every patient must be left out by at least one shadow model: train more"
        raise ValueError(msg)
    mean = torch.where(left_out, shadows, 0.0).sum(0) / count
    spread = torch.where(left_out, (shadows - mean) ** 2, 0.0).sum() / left_out.sum()
    return (target - mean) / spread.sqrt().clamp_min(_LEAST_DEVIATION)


def judge_scores(scores: Tensor, members: Tensor, level: float = 0.95) -> Membership:
    """Return how many members lie above the threshold that 1 % of the others reach.

    Args:
        scores: ``(N,)``, larger for members.
        members: ``(N,)`` bool, both kinds present.
        level: Confidence of the intervals.
    """
    own, others = scores[members], scores[~members].sort(descending=True).values
    allowed = int(FALSE_ALARMS * len(others))
    threshold = others[allowed]  # strictly above it lie at most so many of the others
    found, alarms = int((own > threshold).sum()), int((others > threshold).sum())
    return Membership(
        rate(found, len(own), level), rate(alarms, len(others), level), len(own), len(others)
    )


def rate(found: int, total: int, level: float = 0.95) -> Rate:
    """Return a share and its exact two-sided interval."""
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = float(beta.ppf(tail, found, total - found + 1)) if found else 0.0
    high = float(beta.ppf(1 - tail, found + 1, total - found)) if found < total else 1.0
    return Rate(found / total, low, high)


def attack_membership(
    train: TrainAndPredict,
    target_logits: Tensor,
    targets: Tensor,
    members: Tensor,
    shadows: int,
    generator: Generator,
) -> Membership:
    """Train shadow models on halves of the pool and judge the attack on all of it.

    Every patient is left out by half of the shadow models: they are trained in pairs, one on each
    half.

    Args:
        train: How the attacker trains: as the attacked model was, as far as is known.
        target_logits: ``(N, K)`` of the attacked model on the pool.
        targets: ``(N,)`` class indices of the pool.
        members: ``(N,)`` bool: who was in the attacked model's training data.
        shadows: How many models, an even number.
    """
    count, kept, seen = len(targets), [], []
    for _ in range(max(1, shadows // 2)):
        order = torch.randperm(count, generator=generator)
        for half in (order[: count // 2], order[count // 2 :]):
            kept.append(confidences(train(half), targets))
            seen.append(torch.zeros(count, dtype=torch.bool).index_fill(0, half, True))
    scores = offline_scores(
        confidences(target_logits, targets), torch.stack(kept), torch.stack(seen)
    )
    return judge_scores(scores, members)
