"""How good a model is: what the sites measured, together, and the number that picks the best."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TypeAlias

from flwr.serverapp import Grid

from wardround.common.errors import RunError
from wardround.common.messages.instructions import EVALUATE, Instruction, pack_instruction
from wardround.common.messages.replies import unpack_evaluation
from wardround.common.metrics.noised.decoding import merge_noised, summarise_noised
from wardround.common.metrics.noised.encoding import NoisedSums
from wardround.common.metrics.sums import (
    MetricSums,
    SiteValues,
    mean_of_sites,
    merge,
    summarise,
    values_of,
)
from wardround.common.metrics.task_sums import MetricValue
from wardround.common.study.plans.patient_privacy import plan_evaluation
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import Measurement, RefusalRecord
from wardround.server.sites.deadlines import Deadlines
from wardround.server.sites.exchange import Addressed, Exchange, Node, Reply, to_all
from wardround.server.sites.intake import RefusedReplyError, taking_in

logger = logging.getLogger(__name__)
Metrics: TypeAlias = MetricSums | SiteValues | NoisedSums
ALL_SITES = "all sites"  # the sites' tables, merged: the metric of all patients
MEAN_OF_SITES = "mean of sites"  # where a site sends numbers, which do not merge
# Of a site whose answer came: a server is not told which of these it is.
UNSAID = (
    "withheld: its policy does not let the metric out, or it has too few such patients, or none of "
    "a class"
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One model's values at the sites that evaluated it, and the sites that did not.

    Attributes:
        missing: The sites that did not answer at all, and whether each is stuck.
    """

    values: tuple[Measurement, ...] = ()
    refusals: tuple[RefusalRecord, ...] = ()
    missing: Mapping[str, bool] = field(default_factory=dict)


def measure_model(
    grid: Grid,
    study: Study,
    nodes: Sequence[Node],
    instruction: Instruction,
    addressed: Addressed = to_all,
    deadlines: Deadlines | None = None,
) -> Measured:
    """Have every site evaluate the instruction's model on its own patients of one split.

    A site that has not answered by the deadline is left out, as it is of a round.

    Args:
        addressed: Adds to the instruction what one site alone is told.
        deadlines: How long a reply is waited for; by default as the study says.
    """
    sums: dict[str, Metrics] = {}
    refusals: list[RefusalRecord] = []
    missing: dict[str, bool] = {}
    deadlines = deadlines or Deadlines(study.federation.deadline_seconds)
    deadline = deadlines.deadline_seconds
    for reply in Exchange(grid, deadlines.absence_seconds).ask(
        nodes,
        EVALUATE,
        lambda: pack_instruction(instruction),
        instruction.split,
        deadline,
        addressed,
    ):
        site = reply.node.site
        if reply.is_missing:
            missing[site] = reply.is_stuck
        try:
            with taking_in(site):
                metrics = _evaluated(reply, instruction, study)
                if metrics is not None:
                    _values(metrics, study)  # what cannot become metrics is refused here
        except RefusedReplyError as error:
            logger.warning(
                "evaluation without site=%s split=%s: %s", site, instruction.split, error
            )
            refusals.append(RefusalRecord(site, str(error), instruction.split))
            continue
        if metrics is not None:
            sums[site] = metrics
        refusals += unsaid(site, metrics, instruction.split, study)
    return Measured(as_measurements(sums, instruction.split, study), tuple(refusals), missing)


def unsaid(
    site: str, metrics: Metrics | None, split: str, study: Study
) -> tuple[RefusalRecord, ...]:
    """Return why a site that answered says nothing of the study's metric; nothing where it does.

    A study that sets no patients of a split aside asks nobody for them.
    """
    evaluation = study.evaluation
    share = evaluation.test_fraction if split == "test" else evaluation.validation_fraction
    if isinstance(metrics, SiteValues):
        says = study.metric in metrics.values
    else:
        says = metrics is not None or share == 0
    return () if says else (RefusalRecord(site, UNSAID, split),)


def _evaluated(reply: Reply, instruction: Instruction, study: Study) -> Metrics | None:
    """Return what a site measured, None if it has no such patients.

    Raises:
        WardroundError: It refused, or its reply is not one to this instruction.
    """
    if reply.content is None:
        raise RunError(reply.reason)
    evaluation = unpack_evaluation(reply.content, study)
    about = (evaluation.digest, evaluation.run, evaluation.round)
    if about != (instruction.digest, instruction.run, instruction.round):
        msg = f"its evaluation is not of the model of round {instruction.round} of this run."
        raise RunError(msg)
    metrics = evaluation.metrics
    if isinstance(metrics, NoisedSums):
        return replace(metrics, deviation=_noise(instruction.split, study))
    return metrics


def _noise(split: str, study: Study) -> float:
    """Return the standard deviation of the noise on each number that a site sends of a split.

    Raises:
        RunError: The study has no noised measurements.
    """
    private = what_leaves(study).noised_metrics
    plan = plan_evaluation(study, "test" if split == "test" else "validation") if private else None
    if plan is None:
        msg = f"a measurement with noise came, and the study asks for none on {split} patients."
        raise RunError(msg)
    return plan.noise_multiplier


def as_measurements(
    sums: Mapping[str, Metrics], split: str, study: Study
) -> tuple[Measurement, ...]:
    """Return each site's values, then those of all sites merged, or their mean.

    What has noise is merged with its like alone.
    """
    parts = [Measurement(site, split, _values(part, study)) for site, part in sums.items()]
    noised = [part for part in sums.values() if isinstance(part, NoisedSums)]
    exact = [part for part in sums.values() if not isinstance(part, NoisedSums)]
    tables = [part for part in exact if isinstance(part, MetricSums)]
    if not sums:
        return ()
    if noised:
        together = Measurement(ALL_SITES, split, summarise_noised(merge_noised(noised), study))
    elif len(tables) == len(sums):
        together = Measurement(ALL_SITES, split, summarise(reduce(merge, tables), study))
    else:
        together = Measurement(MEAN_OF_SITES, split, mean_of_sites(exact, study))
    return (*parts, together)


def _values(part: Metrics, study: Study) -> tuple[MetricValue, ...]:
    return summarise_noised(part, study) if isinstance(part, NoisedSums) else values_of(part, study)


def overall(measurements: Sequence[Measurement], metric: str) -> float:
    """Return a metric over all sites and classes, NaN if it was not measured.

    Where a site sends numbers and no tables it is the mean of the sites.
    """
    found = _overall(measurements, metric)
    return math.nan if found is None else found.value


def noise_error(measurements: Sequence[Measurement], metric: str, study: Study) -> float:
    """Return the standard error that noise gives the difference of two :func:`overall`, or 0."""
    found = _overall(measurements, metric)
    if found is None or not what_leaves(study).noised_metrics:
        return 0.0
    return math.sqrt(2) * found.standard_error


def _overall(measurements: Sequence[Measurement], metric: str) -> MetricValue | None:
    for measurement in measurements:
        if measurement.site not in (ALL_SITES, MEAN_OF_SITES):
            continue
        for value in measurement.values:
            if value.metric == metric and not value.class_name:
                return value
    return None


def is_better(value: float, than: float, metric: str, error: float = 0.0) -> bool:
    """Return whether a value beats another; anything beats NaN, NaN beats nothing.

    Args:
        error: By how much it may fall short and still win. The largest of many numbers with noise
            is mostly the one with the luckiest noise: among models that noise cannot tell apart the
            last one, which was trained longest, is the better guess.
    """
    if math.isnan(value):
        return False
    if math.isnan(than):
        return True
    return value > than - error if METRICS[metric].higher_is_better else value < than + error
