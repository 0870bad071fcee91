"""How the network at hand does on a site's patients: sums over them, no single patient's number."""

import torch

from wardround.client.data.cohort import Cohort
from wardround.client.privacy.evaluation import measure_privately
from wardround.client.session.model_context import ModelContext
from wardround.client.training.evaluation import evaluate, without_tta
from wardround.client.training.objectives.base import Loss
from wardround.common.messages.instructions import Instruction
from wardround.common.metrics.noised.encoding import NoisedSums
from wardround.common.metrics.sums import MetricSums
from wardround.common.models.sharing import RECEIVED_LOSS
from wardround.common.parameters.schema import Parameters
from wardround.common.study.plans.patient_privacy import EvaluationPlan
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study


def measured_sums(context: ModelContext, cohort: Cohort, loss: Loss, surfaces: bool) -> MetricSums:
    """Return the sums of a cohort's metrics, of the network as it stands.

    Args:
        surfaces: Whether distances of surfaces are measured too.
    """
    seen = _seen(context.study, cohort)
    return evaluate(context.network, cohort, seen, context.device, loss, surfaces)


def noised_sums(
    context: ModelContext, cohort: Cohort, loss: Loss, plan: EvaluationPlan
) -> NoisedSums:
    """Return the same sums with noise; every call is another draw of it."""
    seen = _seen(context.study, cohort)
    return measure_privately(context.network, cohort, seen, context.device, loss, plan)


def received_loss(context: ModelContext, cohort: Cohort, loss: Loss) -> Parameters:
    """Return the network's mean loss on training patients, where the strategy asks for it."""
    if context.plan.aggregation != "fair-mean":
        return {}
    sums = measured_sums(context, cohort, loss, surfaces=False)
    mean = sums.loss / max(sums.examinations, 1)
    return {RECEIVED_LOSS: torch.tensor(mean, dtype=torch.float64)}


def says_metrics(study: Study, instruction: Instruction) -> bool:
    """Return whether an update says how the received model does on validation patients."""
    leaves = what_leaves(study)
    return instruction.validate and leaves.round_metrics and not leaves.noised_metrics


def _seen(study: Study, cohort: Cohort) -> Study:
    """Return the study by which a cohort is measured: only test images are mirrored."""
    return study if cohort.split == "test" else without_tta(study)
