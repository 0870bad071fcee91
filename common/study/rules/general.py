"""Rules between the keys of a study, checked when it is read and not in the middle of a run."""

from collections.abc import Callable, Iterator

from wardround.common.errors import known_names
from wardround.common.study.registry import (
    LOSSES,
    METRICS,
    NETWORKS,
)
from wardround.common.study.rules.continual import continual_rules
from wardround.common.study.rules.decisions import decision_rules
from wardround.common.study.rules.labels import label_rules
from wardround.common.study.rules.modalities import modality_rules
from wardround.common.study.rules.packages import package_rules
from wardround.common.study.rules.packs import pack_rules
from wardround.common.study.rules.privacy.patient_privacy import privacy_rules
from wardround.common.study.rules.privacy.secure_aggregation import masking_rules
from wardround.common.study.rules.sections.data import data_rules
from wardround.common.study.rules.sections.network import network_rules
from wardround.common.study.rules.sections.training import training_rules
from wardround.common.study.rules.statistics import statistics_rules
from wardround.common.study.rules.strategy import strategy_rules
from wardround.common.study.rules.subgroups import subgroup_rules
from wardround.common.study.rules.tasks.detection import detection_rules
from wardround.common.study.rules.tasks.outcomes import outcome_rules
from wardround.common.study.rules.tasks.pretraining import pretraining_rules
from wardround.common.study.study import Study


def broken_rules(study: Study) -> list[str]:
    """Return a sentence (fact, value, remedy) for every rule that the study breaks."""
    return [sentence for rule in _RULES for sentence in rule(study)]


def _known_choices(study: Study) -> Iterator[str]:
    if study.model.network not in NETWORKS:
        yield known_names("network", study.model.network, NETWORKS)
    metric = study.evaluation.metric
    if metric is not None and metric not in METRICS:
        yield known_names("metric", metric, METRICS)


def _task_fits(study: Study) -> Iterator[str]:
    task = study.study.task
    network = NETWORKS.get(study.model.network)
    if network is not None and task not in network.tasks:
        fitting = [name for name, entry in NETWORKS.items() if task in entry.tasks]
        yield (
            f"model.network = {study.model.network!r} does not do {task}: "
            f"choose one of {', '.join(fitting)}."
        )
    loss = study.training.loss
    if loss is not None and task not in LOSSES[loss]:
        fitting = [name for name, tasks in LOSSES.items() if task in tasks]
        yield f"training.loss = {loss!r} is not for {task}: choose one of {', '.join(fitting)}."
    metric = METRICS.get(study.evaluation.metric or "")
    if metric is not None and (task not in metric.tasks or metric.surface):
        fitting = [n for n, m in METRICS.items() if task in m.tasks and not m.surface]
        yield (
            f"evaluation.metric = {study.evaluation.metric!r} cannot steer {task}: "
            f"choose one of {', '.join(fitting)}."
        )


def _repeat_fits(study: Study) -> Iterator[str]:
    repeats, rounds = study.study.repeats, study.federation.rounds
    if repeats is not None and repeats.after_round >= rounds:
        yield (
            f"study.repeats.after_round = {repeats.after_round} leaves nothing to train of "
            f"{rounds} rounds: give at most {rounds - 1}."
        )


def _margin_fits(study: Study) -> Iterator[str]:
    metric, margin = METRICS.get(study.metric), study.evaluation.margin
    # What lies in [0, 1] is better when it is higher; a loss or a distance has units of its own.
    if metric is not None and metric.in_unit_interval and margin >= 1:
        yield (
            f"evaluation.margin = {margin:g} is no difference of {study.metric}, which lies "
            "between 0 and 1: give the smallest one that matters, as 0.02."
        )


_RULES: tuple[Callable[[Study], Iterator[str]], ...] = (
    _known_choices,
    _task_fits,
    network_rules,
    data_rules,
    training_rules,
    _margin_fits,
    _repeat_fits,
    strategy_rules,
    modality_rules,
    package_rules,
    pack_rules,
    privacy_rules,
    masking_rules,
    statistics_rules,
    label_rules,
    outcome_rules,
    subgroup_rules,
    decision_rules,
    detection_rules,
    pretraining_rules,
    continual_rules,
)
