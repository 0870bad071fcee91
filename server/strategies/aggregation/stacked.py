"""The frame of every rule that needs all updates at once: one matrix, a row a site."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from wardround.common.errors import RunError
from wardround.common.messages.replies import SiteUpdate
from wardround.common.parameters.schema import Model, Parameters
from wardround.server.strategies.aggregation.site_weights import capped_weights, outvoted_weights

# (updates (n, d), shares (n,) float64) -> combined update (d,)
Rule = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Minimum:
    """How many sites a rule needs to withstand ``f`` hostile ones: ``factor * f + extra``."""

    rule: str
    factor: int
    extra: int

    def sites(self, hostile: int) -> int:
        """Return the least number of sites."""
        return self.factor * hostile + self.extra

    def check(self, sites: int, hostile: int) -> None:
        """Refuse fewer sites.

        Raises:
            RunError: There are fewer.
        """
        needed = self.sites(hostile)
        if sites >= needed:
            return
        safe = (sites - self.extra) // self.factor
        fewer = f"lower federation.options.assumed_hostile to {safe}, " if safe >= 0 else ""
        plural = "update" if sites == 1 else "updates"
        msg = (
            f"{self.rule} needs {needed} sites to withstand {hostile} hostile ones, got {sites} "
            f"{plural}: add sites, {fewer}or choose another federation.aggregation."
        )
        raise RunError(msg)


class StackedAggregation:
    """Collects updates (site model minus the round's start) and applies a rule to their matrix.

    Memory is one float32 copy of the model a site, two while the matrix is made. Floating
    parameters and buffers form the rows. Integer buffers take the weighted median: a mean would let
    one site set them at will.

    A hostile site may claim any number of examinations. ``weight_cap`` bounds what that gains: no
    site counts for more than this many times the median site.
    """

    streams = False

    def __init__(
        self,
        rule: Rule,
        previous: Model,
        minimum: Minimum,
        assumed_hostile: int,
        weight_cap: float | None,
    ) -> None:
        self._rule = rule
        self._previous = dict(previous)  # read through again and again
        self._minimum = minimum
        self._hostile = assumed_hostile
        self._cap = weight_cap
        self._names: tuple[str, ...] = ()
        self._rows: list[Tensor] = []
        self._integers: list[Parameters] = []
        self._examinations: list[int] = []

    def accumulate(self, update: SiteUpdate) -> None:
        """Keep one site's update.

        Raises:
            RunError: It counts no examinations, or holds a value that is not finite: one such
                value would spoil every distance.
        """
        if update.examinations <= 0:
            msg = f"the update counts {update.examinations} examinations: a site needs at least 1."
            raise RunError(msg)
        row = self._flatten(update.parameters)
        if not bool(torch.isfinite(row).all()):
            msg = "the update holds values that are not finite: lower training.learning_rate."
            raise RunError(msg)
        self._rows.append(row)
        self._integers.append(
            {n: t.clone() for n, t in update.parameters.items() if not t.is_floating_point()}
        )
        self._examinations.append(update.examinations)

    def finish(self) -> Parameters:
        """Return the combined model and forget the updates.

        Raises:
            RunError: There are fewer updates than the rule needs.
        """
        self._minimum.check(len(self._rows), self._hostile)
        weights = capped_weights(torch.tensor(self._examinations), self._cap)
        matrix = torch.stack(self._rows)
        self._rows.clear()
        combined = self._unflatten(self._rule(matrix, weights))
        fair = outvoted_weights(weights, self._hostile)
        for name in self._integers[0]:
            votes = torch.stack([integers[name] for integers in self._integers])
            combined[name] = _weighted_vote(votes, fair)
        self._integers.clear()
        self._examinations.clear()
        return {name: combined[name] for name in self._previous if name in combined}

    def _flatten(self, parameters: Parameters) -> Tensor:
        """Return a site's update as one vector, as wide as the widest type of the model."""
        floating = (n for n, t in self._previous.items() if t.is_floating_point())
        self._names = names = tuple(name for name in floating if name in parameters)
        wide = any(self._previous[name].dtype == torch.float64 for name in names)
        dtype = torch.float64 if wide else torch.float32
        parts = [
            parameters[name].to(dtype).sub(self._previous[name].to(dtype)).reshape(-1)
            for name in names
        ]
        return torch.cat(parts) if parts else torch.zeros(0)

    def _unflatten(self, update: Tensor) -> Parameters:
        model: Parameters = {}
        offset = 0
        for name in self._names:
            start = self._previous[name]
            part = update[offset : offset + start.numel()].reshape(start.shape)
            model[name] = start.to(update.dtype).add(part).to(start.dtype)
            offset += start.numel()
        return model


def by_columns(matrix: Tensor, rule: Callable[[Tensor], Tensor], columns: int = 2**18) -> Tensor:
    """Apply a rule that treats columns alike, some at a time: sorting takes much memory.

    Args:
        rule: ``(n, c)`` to ``(c,)``.

    Returns:
        ``(d,)`` of the ``(n, d)`` matrix.
    """
    count = matrix.shape[1]
    parts = [
        rule(matrix[:, place * columns : (place + 1) * columns])
        for place in range(ceil(count / columns))
    ]
    return torch.cat(parts) if parts else matrix.new_zeros(0)


def _weighted_vote(votes: Tensor, weights: Tensor) -> Tensor:
    """Return the lower weighted median of integers, which is always one of them."""
    ordered, order = votes.reshape(len(votes), -1).to(torch.int64).sort(dim=0)
    reached = weights[order].cumsum(0) >= 0.5 - 1e-12
    places = reached.int().argmax(0, keepdim=True)
    return ordered.gather(0, places).reshape(votes.shape[1:]).to(votes.dtype)
