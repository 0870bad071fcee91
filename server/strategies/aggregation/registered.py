"""The aggregation rule of an installed package: it combines changes, and sees nothing else."""

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor

from wardround.common.errors import RunError
from wardround.common.files.packages.importing import component
from wardround.common.files.packages.protocols import AggregationRule
from wardround.common.parameters.schema import Model
from wardround.common.runtime.printable import printable
from wardround.server.strategies.aggregation.stacked import Minimum, StackedAggregation


def registered_rule(name: str, packages: Mapping[str, str], previous: Model) -> StackedAggregation:
    """Return a fresh combination for one round.

    Raises:
        PackageError: The package is not installed as the study names it.
    """
    rule = cast(AggregationRule, component("strategies", name, packages))
    # What a site says of its own size is believed up to twice the median, as by our robust rules.
    return StackedAggregation(_checked(name, rule), previous, Minimum(name, 0, 1), 0, 2.0)


def _checked(name: str, rule: AggregationRule) -> Callable[[Tensor, Tensor], Tensor]:
    def combine(matrix: Tensor, weights: Tensor) -> Tensor:
        try:
            found = rule(matrix.clone(), weights.clone())
        except Exception as error:  # another's code fails in many ways
            msg = (
                f"{name} could not combine {len(matrix)} updates ({type(error).__name__}: "
                f"{printable(str(error), 200)}): choose another federation.strategy."
            )
            raise RunError(msg) from None
        is_change = isinstance(found, Tensor) and found.shape == matrix.shape[1:]
        if not is_change or found.is_complex() or not bool(torch.isfinite(found).all()):
            msg = (
                f"{name} gives no finite change of {matrix.shape[1]} numbers: choose another "
                "federation.strategy, and tell the author of the package."
            )
            raise RunError(msg)
        return found.to(matrix)

    return combine
