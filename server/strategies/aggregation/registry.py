"""How updates combine, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from wardround.common.errors import StudyError, known_names
from wardround.common.parameters.schema import Model
from wardround.common.study.plans.strategy import FEWEST_SITES, ROBUST
from wardround.server.strategies.aggregation.base import Aggregation, WeightedMean
from wardround.server.strategies.aggregation.bulyan import bulyan
from wardround.server.strategies.aggregation.coordinate_median import coordinate_median
from wardround.server.strategies.aggregation.geometric_median import geometric_median
from wardround.server.strategies.aggregation.krum import krum, multi_krum
from wardround.server.strategies.aggregation.neighbour_mixing import mixed_trimmed_mean
from wardround.server.strategies.aggregation.norm_clipping import (
    NormBoundedMean,
    centred_clipping,
    clipped_mean,
)
from wardround.server.strategies.aggregation.stacked import Minimum, StackedAggregation
from wardround.server.strategies.aggregation.trimmed_mean import trimmed_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregationOptions:
    """What a rule may be told; each takes what it needs.

    Attributes:
        assumed_hostile: ``f``: how many sites may be hostile in one round.
        norm_bound: Largest length of an update, for norm-bounded-mean and centred-clipping; None
            takes the median of the round's own.
        weight_cap: No site counts for more than this many times the median site; None believes
            what the sites claim. The plain weighted mean always does.
    """

    assumed_hostile: int = 1
    norm_bound: float | None = None
    weight_cap: float | None = 2.0

    def __post_init__(self) -> None:
        if self.assumed_hostile < 0:
            msg = f"federation.assumed_hostile is {self.assumed_hostile}: give 0 or more."
            raise StudyError(msg)
        if self.norm_bound is not None and not 0 < self.norm_bound < float("inf"):
            msg = f"federation.norm_bound is {self.norm_bound}: give a length above 0."
            raise StudyError(msg)
        if self.weight_cap is not None and not self.weight_cap >= 1:
            msg = f"federation.weight_cap is {self.weight_cap}: give 1 or more."
            raise StudyError(msg)


Maker = Callable[[AggregationOptions, Model], Aggregation]

MINIMUMS = {name: Minimum(name, *FEWEST_SITES[name]) for name in ROBUST}


def _weighted_mean(options: AggregationOptions, previous: Model) -> Aggregation:
    return WeightedMean()


def _counting(name: str, rule: Callable[[Tensor, Tensor, int], Tensor]) -> Maker:
    """Return a maker of a rule that is told how many sites may be hostile."""

    def make(options: AggregationOptions, previous: Model) -> Aggregation:
        def told(matrix: Tensor, weights: Tensor) -> Tensor:
            return rule(matrix, weights, options.assumed_hostile)

        return _stacked(name, told, options, previous)

    return make


def _clipping(options: AggregationOptions, previous: Model) -> Aggregation:
    told = partial(centred_clipping, radius=options.norm_bound)
    return _stacked("centred-clipping", told, options, previous)


def _norm_bounded(options: AggregationOptions, previous: Model) -> Aggregation:
    if options.norm_bound is not None:
        return NormBoundedMean(previous, options.norm_bound)
    return _stacked("norm-bounded-mean", partial(clipped_mean, radius=None), options, previous)


def _stacked(
    name: str,
    rule: Callable[[Tensor, Tensor], Tensor],
    options: AggregationOptions,
    previous: Model,
) -> Aggregation:
    return StackedAggregation(
        rule, previous, MINIMUMS[name], options.assumed_hostile, options.weight_cap
    )


# name -> (options, the model that the round starts from) -> a fresh combination for one round
AGGREGATION_RULES: dict[str, Maker] = {
    "weighted-mean": _weighted_mean,
    "coordinate-median": _counting("coordinate-median", coordinate_median),
    "trimmed-mean": _counting("trimmed-mean", trimmed_mean),
    "krum": _counting("krum", krum),
    "multi-krum": _counting("multi-krum", multi_krum),
    "bulyan": _counting("bulyan", bulyan),
    "geometric-median": _counting("geometric-median", geometric_median),
    "centred-clipping": _clipping,
    "norm-bounded-mean": _norm_bounded,
    "nnm-trimmed-mean": _counting("nnm-trimmed-mean", mixed_trimmed_mean),
}


def make_aggregation(name: str, options: AggregationOptions, previous: Model) -> Aggregation:
    """Return a fresh combination for one round.

    Raises:
        StudyError: No rule has this name.
    """
    if name not in AGGREGATION_RULES:
        raise StudyError(known_names("aggregation", name, AGGREGATION_RULES))
    return AGGREGATION_RULES[name](options, previous)
