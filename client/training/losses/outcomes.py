"""Losses of tasks that predict a number or a time: one number a sample, from ``(B, ...)`` outputs.

Targets are on the scale that ``[data.outcome]`` gives, on which a number is about 1 in size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from wardround.common.study.study import Study

_TINY = 1e-7  # keeps a logarithm finite


def squared_error(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return ``(p - y)^2``.

    Args:
        outputs: ``(B, 1)`` float32.
        targets: ``(B, 1)`` float32.
        class_weights: Not used: there are no classes.

    Returns:
        ``(B,)``, each in [0, inf).
    """
    return F.mse_loss(outputs, targets, reduction="none").mean(1)


def absolute_error(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return ``|p - y|``, which few wrong labels move less; as :func:`squared_error` otherwise."""
    return F.l1_loss(outputs, targets, reduction="none").mean(1)


def huber(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return ``e^2 / 2`` up to ``|e|`` of 1, and ``|e| - 1 / 2`` beyond (Huber 1964).

    1 is one ``data.outcome.scale``. As :func:`squared_error` otherwise.
    """
    return F.huber_loss(outputs, targets, reduction="none").mean(1)


@dataclass(frozen=True, slots=True)
class PiecewiseHazard:
    """The likelihood of a time to event whose hazard is constant within each interval.

    A patient adds ``sum_k r_k h_k - log h_j`` where h_k is the hazard of interval k times its
    length, r_k the share of the interval that the patient was followed, and j the interval of its
    event, if it had one (Kvamme and Borgan 2019, arXiv 1910.06724, PC-Hazard). It is a sum over
    patients: sites' losses add up to that of all patients together, and one patient's loss depends
    on nobody else.

    Attributes:
        times: Upper ends of the intervals; what is beyond the last is not looked at.
    """

    times: tuple[float, ...]

    def __call__(
        self, outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None
    ) -> Tensor:
        """Return the negative log-likelihood of each patient.

        Args:
            outputs: ``(B, K)`` float32; their softplus is h.
            targets: ``(B, 2)`` float32: time and event.
            class_weights: Not used: there are no classes.

        Returns:
            ``(B,)``, each in (-inf, inf).
        """
        low, high = _intervals(self.times, outputs.device, outputs.dtype)
        time, event = targets[:, :1], targets[:, 1:]
        shares = ((time - low) / (high - low)).clamp(0, 1)
        begun = (time > low) | (low == 0)  # an event at time 0 is one of the first interval
        happened = event * (begun & (time <= high)).to(outputs.dtype)
        hazards = F.softplus(outputs)
        return (shares * hazards - happened * (hazards + _TINY).log()).sum(1)


@lru_cache(maxsize=8)
def _intervals(
    times: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return where intervals begin and end, ``(K,)`` each; brought to a device once, not each step.

    What is made under inference could not be used in training.
    """
    with torch.inference_mode(mode=False):
        begins, ends = (
            torch.tensor(edges, dtype=dtype).to(device) for edges in ((0.0, *times[:-1]), times)
        )
    return begins, ends


def cox(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return what each patient adds to Cox's negative log partial likelihood (Cox 1972).

    The risk set of an event is who of the batch has neither event nor end of follow-up before it,
    so a batch of all patients of a site gives the likelihood that is stratified by site. Ties as
    Efron 1977: the l-th of d tied events counts all of them but l / d out of the risk set.

    Args:
        outputs: ``(B, 1)`` float32 log hazard ratios.
        targets: ``(B, 2)`` float32: time and event.
        class_weights: Not used: there are no classes.

    Returns:
        ``(B,)``, 0 for patients without event; their mean over a batch is the sum by its size.
    """
    ratios, (time, event) = outputs[:, 0], targets.unbind(1)
    same = (time[:, None] == time) & (event[:, None] > 0) & (event > 0)
    at_risk = time >= time[:, None]
    tied = same.sum(1).clamp(min=1)
    before = torch.tril(same, diagonal=-1).sum(1)
    # Not below 0 by rounding: 1 / d of the tied events is always left in the risk set.
    highest = ratios.detach().max()
    sizes = (ratios - highest).exp()
    left = (before / tied)[:, None] * same.to(sizes.dtype)
    total = ((at_risk.to(sizes.dtype) - left) * sizes).sum(1)
    return event * (total.clamp(min=_TINY).log() + highest - ratios)


def outcome_loss(study: Study) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """Return the loss of a study whose task has no classes."""
    if study.loss == "piecewise-hazard":
        return PiecewiseHazard(study.outcome.times)
    return OUTCOME_LOSSES[study.loss]


OUTCOME_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "mse": squared_error,
    "l1": absolute_error,
    "huber": huber,
    "piecewise-hazard": PiecewiseHazard((1.0,)),
    "cox": cox,
}
