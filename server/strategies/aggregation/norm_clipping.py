"""Bounding how far one site can move the model: centred clipping and the norm-bounded mean."""

from collections.abc import Iterator
from math import isfinite

import torch
from torch import Tensor

from wardround.common.errors import RunError
from wardround.common.messages.replies import SiteUpdate
from wardround.common.parameters.arithmetic import distance
from wardround.common.parameters.schema import Model, Parameters
from wardround.server.strategies.aggregation.base import WeightedMean
from wardround.server.strategies.aggregation.site_weights import weighted_mean

# Karimireddy et al. 2021 find one enough from a good centre; ours starts at zero.
CLIPPING_STEPS = 3


def centred_clipping(matrix: Tensor, weights: Tensor, radius: float | None) -> Tensor:
    """Return the mean of the updates clipped around a centre that moves to it.

    Karimireddy et al. 2021, algorithm 2 and equation 7: ``v + sum_i w_i (x_i - v) min(1, r / |x_i -
    v|)``, from the round's start, three times.

    Weight: by share. A site moves each step by at most its share times the radius, so a claim is
    worth no more than the cap on weights; steady pushes in one direction (a backdoor) add up over
    the rounds.

    Args:
        matrix: ``(n, d)``.
        weights: ``(n,)`` shares.
        radius: Above 0; None takes the median of the distances to the centre, which stays an
            honest one while more than half of the sites are.

    Returns:
        ``(d,)``, in the updates' dtype.
    """
    centre = torch.zeros_like(matrix[0])
    for _ in range(CLIPPING_STEPS):
        centre = centre + clipped_mean(matrix - centre, weights, radius)
    return centre


def clipped_mean(matrix: Tensor, weights: Tensor, radius: float | None) -> Tensor:
    """Return the weighted mean of updates of bounded norm (Sun et al. 2019, section 4).

    Weight: by share; see :func:`centred_clipping`.

    Args:
        matrix: ``(n, d)``.
        weights: ``(n,)`` shares.
        radius: Above 0; None takes the median norm.

    Returns:
        ``(d,)``, in the updates' dtype.
    """
    norms = torch.linalg.vector_norm(matrix, dim=1, dtype=torch.float64)
    limit = float(norms.quantile(0.5)) if radius is None else radius
    factors = (limit / norms.clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=1.0)
    clipped = matrix * factors.to(matrix.dtype).unsqueeze(1)
    return weighted_mean(clipped, weights)


class NormBoundedMean:
    """The mean of updates clipped to a fixed norm, weighted by training examinations.

    Sun et al. 2019, section 4. It streams, so the claims cannot be compared and are not capped: a
    site that claims to be very large moves the model by up to the bound a round, alone. Without a
    fixed bound the stacked form with a cap is used.
    """

    streams = True

    def __init__(self, previous: Model, norm_bound: float) -> None:
        self._previous = previous
        self._bound = norm_bound
        self._mean = WeightedMean()

    def accumulate(self, update: SiteUpdate) -> None:
        """Clip one site's update and add it to the sum; integers are averaged as they are.

        Raises:
            RunError: It holds a value that is not finite, which no clipping mends.
        """
        norm = distance(update.parameters, self._previous)
        if not isfinite(norm):
            msg = "the update holds values that are not finite: lower training.learning_rate."
            raise RunError(msg)
        if norm <= self._bound:
            self._mean.accumulate(update)
            return
        clipped = self._clipped(update.parameters, self._bound / norm)
        self._mean.accumulate_tensors(clipped, update.examinations)

    def finish(self) -> Parameters:
        """Return the mean and forget the sum."""
        return self._mean.finish()

    def _clipped(self, parameters: Parameters, factor: float) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in parameters.items():
            if tensor.is_floating_point():
                start = self._previous[name]
                yield name, (tensor - start).mul_(factor).add_(start)
            else:
                yield name, tensor
