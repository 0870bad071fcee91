"""What a site says of itself, reduced to what its policy lets out: rounded, or left out.

Rounding is not differential privacy. Three decimals of an accuracy, with a count to the next ten,
may tell the exact count; several models evaluated on the same few patients tell more of them than
one. A hospital that wants none of that sets ``metrics = "none"``.
"""

import math
from dataclasses import replace

import numpy as np

from wardround.client.egress.message_schema import (
    DECIMALS,
    LARGEST_VALUE,
    LONGEST_SECONDS,
    rounded_down,
)
from wardround.client.policy.policy import Policy
from wardround.client.training.schedule import steps_a_round
from wardround.common.messages.replies import SiteEvaluation, SiteInfo, SiteUpdate
from wardround.common.metrics.noised.encoding import NoisedSums
from wardround.common.metrics.sums import MetricSums, SiteValues, summarise
from wardround.common.metrics.task_sums import Counts
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

_SECONDS = 10  # a time is rounded up to so many, or to multiples that reach the policy's step


def reduce_site_info(site_info: SiteInfo, study: Study, policy: Policy) -> SiteInfo:
    """Return the site info that may leave: a rounded count, and notes in a simulation only."""
    leaves = what_leaves(study)
    count = rounded_down(site_info.examinations, policy.smallest_cell) if leaves.counts else 1
    notes = site_info.notes if leaves.notes and policy.simulated else ()
    return replace(site_info, examinations=count, notes=notes)


def reduce_update(update: SiteUpdate, study: Study, policy: Policy) -> SiteUpdate:
    """Return the update that may leave; its arrays are as they are.

    Where counts do not leave, every site weighs the same, since its weight would tell its size, and
    its steps are those of the study.
    """
    leaves, count, steps = what_leaves(study), 1, update.updates
    if leaves.counts:
        count = rounded_down(update.examinations, policy.smallest_cell)
        steps = _updates(update, count, study, policy)
    return replace(
        update,
        examinations=count,
        updates=steps,
        seconds=_seconds(update.seconds, policy) if leaves.times else 0.0,
        training_loss=_loss(update, study, policy) if leaves.losses else math.nan,
        metrics=None if leaves.noised_metrics else _metrics(update.metrics, study, policy),
    )


def reduce_evaluation(evaluation: SiteEvaluation, study: Study, policy: Policy) -> SiteEvaluation:
    """Return the evaluation that may leave."""
    seconds = _seconds(evaluation.seconds, policy) if what_leaves(study).times else 0.0
    if isinstance(evaluation.metrics, NoisedSums):
        return replace(evaluation, seconds=0.0)
    metrics = _metrics(evaluation.metrics, study, policy)
    return replace(evaluation, metrics=metrics, seconds=seconds)


def reduce_metrics(sums: MetricSums, study: Study, smallest_cell: int) -> SiteValues | None:
    """Return tables as a few numbers, None where there are too few examinations.

    A metric is left out where it is not defined, or where a class that it is about has cases, but
    fewer than the smallest cell. The loss is about all examinations.
    """
    examinations = rounded_down(sums.examinations, smallest_cell)
    if not examinations:
        return None
    numbers = {
        value.metric: round(value.value, DECIMALS)
        for value in summarise(sums, study)
        if not value.class_name
        and abs(value.value) <= LARGEST_VALUE  # False for NaN
        and _cells_are_large(value.metric, sums, smallest_cell)
    }
    return SiteValues(examinations, numbers)


def _cells_are_large(metric: str, sums: MetricSums, smallest_cell: int) -> bool:
    counts = _cells_behind(metric, sums)
    return not bool(((counts > 0) & (counts < smallest_cell)).any())


def _cells_behind(metric: str, sums: MetricSums) -> Counts:
    """Return how many cases each class has, of those that a metric is about."""
    if metric == "loss" or metric in sums.registered:
        return np.array([sums.examinations])
    return sums.measured.cells_behind(metric)


def _metrics(
    metrics: MetricSums | SiteValues | None, study: Study, policy: Policy
) -> MetricSums | SiteValues | None:
    if policy.metrics == "sums" or not isinstance(metrics, MetricSums):
        return metrics
    if policy.metrics == "none":
        return None
    return reduce_metrics(metrics, study, policy.smallest_cell)


def _updates(update: SiteUpdate, count: int, study: Study, policy: Policy) -> int:
    """Return the steps made: where they follow from the count, those of the rounded count."""
    exact = policy.smallest_cell == 1 or study.training.local_steps is not None
    return update.updates if exact else steps_a_round(count, study.training)


def _loss(update: SiteUpdate, study: Study, policy: Policy) -> float:
    """Return the mean training loss, NaN where it is about too few examinations."""
    if policy.simulated:
        return update.training_loss
    seen = min(update.examinations, update.updates * study.training.batch_size)
    too_few = policy.metrics == "none" or seen < policy.smallest_cell
    too_large = not abs(update.training_loss) <= LARGEST_VALUE
    return math.nan if too_few or too_large else round(update.training_loss, DECIMALS)


def _seconds(seconds: float, policy: Policy) -> float:
    if policy.simulated:
        return seconds
    # Not finer than the time of the answer itself is.
    grain = _SECONDS * max(math.ceil(policy.answer_step_seconds / _SECONDS), 1)
    return float(min(math.ceil(seconds / grain) * grain, LONGEST_SECONDS))
