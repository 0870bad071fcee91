"""How the sites' models become one."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from wardround.common.errors import RunError
from wardround.common.messages.replies import SiteUpdate
from wardround.common.parameters.schema import Parameters


class Aggregation(Protocol):
    """A rule that takes updates one at a time and gives one model."""

    @property
    def streams(self) -> bool:
        """Whether memory stays the same however many updates are taken in."""

    def accumulate(self, update: SiteUpdate) -> None:
        """Take one update in."""

    def finish(self) -> Parameters:
        """Return the combined model, with the dtypes of the updates."""


class WeightedMean:
    """The mean weighted by training examinations (FedAvg: McMahan et al. 2017, algorithm 1).

    Streams: holds one sum, whatever the number of sites. Integers (such as BatchNorm's count of
    batches) are averaged too and rounded back to their dtype.
    """

    streams = True

    def __init__(self) -> None:
        self._sum: Parameters = {}
        self._dtypes: dict[str, torch.dtype] = {}
        self._weight = 0

    def accumulate(self, update: SiteUpdate) -> None:
        """Add one site's model, times its examinations, to the sum."""
        self.accumulate_tensors(update.parameters.items(), update.examinations)

    def accumulate_tensors(self, tensors: Iterable[tuple[str, Tensor]], weight: int) -> None:
        """Add named tensors, one at a time, times a weight to the sum.

        Args:
            tensors: Of any shape, each name with the same shape every time.
            weight: Examinations that the site trained on, above 0.

        Raises:
            RunError: The weight is 0; nothing was added.
        """
        if weight < 1:
            msg = "the site trained on no examinations: its update has no weight."
            raise RunError(msg)
        for name, tensor in tensors:
            if name not in self._sum:
                self._dtypes[name] = tensor.dtype
                self._sum[name] = tensor.to(_accumulator(tensor.dtype)) * weight
            else:
                total = self._sum[name]
                total.add_(tensor.to(total.dtype), alpha=weight)
        self._weight += weight

    def finish(self) -> Parameters:
        """Return the mean and forget the sum.

        Raises:
            RunError: No update was taken in.
        """
        if self._weight == 0:
            msg = "no update to combine: every site refused or is empty."
            raise RunError(msg)
        mean: Parameters = {}
        for name in list(self._sum):
            total = self._sum.pop(name).div_(self._weight)
            dtype = self._dtypes[name]
            mean[name] = (
                total.round_().to(dtype) if not dtype.is_floating_point else total.to(dtype)
            )
        self._weight = 0
        return mean


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype sums are kept in: wide for integers and half precision."""
    return (
        torch.float32 if dtype in (torch.float32, torch.float16, torch.bfloat16) else torch.float64
    )
