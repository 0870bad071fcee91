"""What must hold before a private step: nothing but the noised sum tells of the patients.

The study rules refuse the same when a study is read; this is the second lock.
"""

from collections.abc import Callable

from torch import nn

from wardround.client.training.losses.mean_loss import MeanLoss
from wardround.client.training.objectives.base import LocalStart
from wardround.common.errors import RunError
from wardround.common.study.plans.patient_privacy import PrivacyPlan

# Those that change a gradient after its noise, from numbers that were noised themselves. The others
# look at the examples once more, past the clipping.
PRIVATE_OBJECTIVES = frozenset(
    {"plain", "proximal", "control-variates", "dynamic", "head-then-body"}
)


def checked_loss(start: LocalStart, plan: PrivacyPlan) -> MeanLoss:
    """Return the start's loss if a private step may be made from it.

    Raises:
        RunError: It may not; says why.
    """
    for holds, refusal in _RULES:
        if not holds(start, plan):
            raise RunError(refusal.format(start=start, plan=plan))
    if not isinstance(start.loss, MeanLoss):
        msg = "the loss has no value for each example: use one of training.loss."
        raise RunError(msg)
    return start.loss


def _keeps_no_statistics(start: LocalStart, plan: PrivacyPlan) -> bool:
    return not any(
        isinstance(layer, nn.modules.batchnorm._BatchNorm)
        or getattr(layer, "track_running_stats", False)
        for layer in start.network.modules()
    )


_Rule = tuple[Callable[[LocalStart, PrivacyPlan], bool], str]
_RULES: tuple[_Rule, ...] = (
    (
        lambda start, plan: start.position.steps == plan.steps,
        "a round has {start.position.steps} steps here and {plan.steps} in the privacy plan: "
        "take the steps from the plan.",
    ),
    (
        lambda start, plan: start.plan.objective in PRIVATE_OBJECTIVES,
        "the objective {start.plan.objective!r} looks at patients past the clipping: choose one of "
        + ", ".join(sorted(PRIVATE_OBJECTIVES))
        + ".",
    ),
    (
        lambda start, plan: start.training.precision == "float32",
        "training.precision = {start.training.precision!r} is too coarse to clip patients: "
        "set it to 'float32'.",
    ),
    (
        lambda start, plan: start.training.class_weights != "balanced",
        "training.class_weights = 'balanced' counts the site's patients: "
        "give the weights as numbers.",
    ),
    (
        _keeps_no_statistics,
        "a normalisation over the batch mixes patients: set model.normalisation = 'group'.",
    ),
)
