"""How good a model is: the sites' sums, merged, and the number that picks the best model."""

import logging
import math
from collections.abc import Mapping, Sequence

from flwr.serverapp import Grid

from wardround.common.catalogue import METRICS
from wardround.common.metrics import MetricSums, merge, summarise
from wardround.common.orders import EVALUATE, Order, pack_order
from wardround.common.study import Study
from wardround.common.update import unpack_evaluation
from wardround.server.collection import Mailbox, Node
from wardround.server.history import Measurement

logger = logging.getLogger(__name__)
ALL_SITES = "all sites"


def measure_model(
    grid: Grid, study: Study, nodes: Sequence[Node], order: Order
) -> tuple[Measurement, ...]:
    """Have every site evaluate the order's model on its own patients of the order's split."""
    sums = {}
    for answer in Mailbox(grid).ask(nodes, EVALUATE, lambda: pack_order(order), order.split):
        if answer.content is None:
            reason = answer.refusal.code if answer.refusal else "no content"
            logger.warning(
                "evaluation without site=%s split=%s: %s", answer.node.site, order.split, reason
            )
            continue
        evaluation = unpack_evaluation(answer.content, study)
        if evaluation.metrics is not None:
            sums[answer.node.site] = evaluation.metrics
    return as_measurements(sums, order.split, study)


def as_measurements(
    sums: Mapping[str, MetricSums], split: str, study: Study
) -> tuple[Measurement, ...]:
    """Return each site's values, then those of all sites merged."""
    parts = [Measurement(site, split, summarise(part, study)) for site, part in sums.items()]
    merged = None
    for part in sums.values():
        merged = part if merged is None else merge(merged, part)
    if merged is not None:
        parts.append(Measurement(ALL_SITES, split, summarise(merged, study)))
    return tuple(parts)


def overall(measurements: Sequence[Measurement], metric: str) -> float:
    """Return a metric over all sites and classes, NaN if it was not measured."""
    for measurement in measurements:
        if measurement.site != ALL_SITES:
            continue
        for value in measurement.values:
            if value.metric == metric and not value.class_name:
                return value.value
    return math.nan


def is_better(value: float, than: float, metric: str) -> bool:
    """Return whether a value beats another; anything beats NaN, NaN beats nothing."""
    if math.isnan(value):
        return False
    if math.isnan(than):
        return True
    return value > than if METRICS[metric].higher_is_better else value < than
