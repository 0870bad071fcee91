"""A sum of masked updates as one update that a strategy takes in: the mean of its sites.

What the combination asks for is worked out where the sum is decoded, so that every server step
after it works as it does in the clear. The mean of one update is that update, to the last bit.
"""

from dataclasses import dataclass, replace

from wardround.common.messages.masked_vector import Counted, VectorLayout
from wardround.common.messages.replies import SiteUpdate
from wardround.common.parameters.schema import Model
from wardround.common.privacy.secure_aggregation.masks import Words
from wardround.common.study.plans.learning_rate import learning_rate_at

MASKED_SITES = "all sites"


@dataclass(frozen=True, slots=True)
class MaskedSum:
    """What the sites of a round, or of a group of it, have come to together.

    Attributes:
        update: The mean of the sites' models, as an update of weight 1; of a group it weighs what
            its sites weigh together.
        counted: What they counted together.
    """

    update: SiteUpdate
    counted: Counted


def decode_sum(
    words: Words, layout: VectorLayout, start: Model, run: str, number: int, sites: int
) -> MaskedSum:
    """Return what the ``(d,)`` words of a sum say.

    Args:
        start: The model that the sites were sent.
        sites: How many are in the sum.

    Raises:
        RunError: The sites have no training examinations.
    """
    found = layout.decode(words, start, _rate(layout, number))
    counted = found.counted
    is_told = counted.examinations and layout.study.privacy.mode == "none"
    mean_loss = counted.loss / counted.examinations if is_told else float("nan")
    update = SiteUpdate(
        site=MASKED_SITES,
        digest=layout.study.digest,
        round=number,
        attempt=0,
        parameters=found.model,
        examinations=1,
        updates=counted.steps,
        seconds=0.0,
        training_loss=mean_loss,
        auxiliary=found.auxiliary,
        run=run,
        sites=sites,
    )
    return MaskedSum(update, counted)


def of_group(found: MaskedSum, group: int) -> MaskedSum:
    """Return a sum as that of a group: one update among some, with the weight of its sites."""
    weight = found.counted.weight
    update = replace(found.update, site=f"group {group}", examinations=weight, sites=1)
    return replace(found, update=update)


def _rate(layout: VectorLayout, number: int) -> float:
    """Return the learning rate where the sites send a gradient, and 1 where they send a change."""
    shares, study = layout.plan.shares, layout.study
    if shares is None or shares.unit == "site":
        return 1.0
    return learning_rate_at(study.training, (number - 1) / study.federation.rounds)
