"""The objectives, by name."""

from collections.abc import Callable

from wardround.client.training.objectives.aligned_features import AlignedFeatures
from wardround.client.training.objectives.base import LocalStart, Objective
from wardround.client.training.objectives.contrastive import Contrastive
from wardround.client.training.objectives.coral import Coral
from wardround.client.training.objectives.corrections import ControlVariates, Dynamic, Proximal
from wardround.client.training.objectives.distillation import Distillation
from wardround.client.training.objectives.elastic_weights import ElasticWeights
from wardround.client.training.objectives.head_then_body import HeadThenBody
from wardround.client.training.objectives.personal_models import (
    PERSONAL_MODEL,
    Mixture,
    PersonalModel,
    mix,
)
from wardround.client.training.objectives.small_features import SmallFeatures
from wardround.common.parameters.schema import Parameters, under
from wardround.common.study.plans.strategy import StrategyPlan

# None: the study's loss is all there is.
OBJECTIVES: dict[str, Callable[[LocalStart], Objective] | None] = {
    "plain": None,
    "proximal": Proximal,
    "control-variates": ControlVariates,
    "dynamic": Dynamic,
    "contrastive": Contrastive,
    "small-features": SmallFeatures,
    "aligned-features": AlignedFeatures,
    "coral": Coral,
    "head-then-body": HeadThenBody,
    "personal-model": PersonalModel,
    "mixture": Mixture,
    "fine-tune": None,
    "elastic-weights": ElasticWeights,
    "distillation": Distillation,
}


def build_objective(start: LocalStart) -> Objective | None:
    """Return the plan's objective for one round, None where the study's loss is all."""
    build = OBJECTIVES[start.plan.objective]
    return None if build is None else build(start)


def personal_model(received: Parameters, memory: Parameters, plan: StrategyPlan) -> Parameters:
    """Return the model that a site uses for its own patients.

    Args:
        received: The whole model: what all share, with the site's own part.
        memory: What the site kept from its last round.
    """
    own = under(PERSONAL_MODEL, memory)
    if not own:
        return received
    if plan.objective == "mixture":
        own = mix(own, received, plan.options.mixture)
    return {**received, **own}
