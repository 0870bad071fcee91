"""What a study with privacy of whole sites may ask for; whatever would pass the noise by not."""

from collections.abc import Iterator

from wardround.common.study.plans.gradients import mixes_batch
from wardround.common.study.plans.strategy import MEANS, StrategyPlan, plan_from
from wardround.common.study.study import Study


def site_privacy_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, value, remedy) for every rule of mode "site" that a study breaks.

    Compression is no rule: what a site sends is unpacked before it is clipped. Server steps and
    parts that stay at a site see the noised mean alone, or never leave.
    """
    yield from _noise_is_given(study)
    try:
        plan = plan_from(study.federation, adapted=study.model.adapted)
    except KeyError:
        return  # an unknown strategy, said elsewhere
    yield from _sum_is_all(study, plan)
    yield from _all_take_part(study)
    yield from _nothing_is_chosen(study)


def _noise_is_given(study: Study) -> Iterator[str]:
    privacy = study.privacy
    if privacy.noise_multiplier is None:
        yield (
            "privacy.mode = 'site' needs privacy.noise_multiplier: set it, e.g. to 1, and see with "
            "'wardround study privacy' what that promises."
        )
        return
    if not privacy.adaptive_clipping:
        for key in ("clip_quantile", "count_noise"):
            if getattr(privacy, key) != type(privacy).model_fields[key].default:
                yield (
                    f"privacy.{key} = {getattr(privacy, key):g} has no effect with a fixed clip "
                    "norm: set privacy.adaptive_clipping = true, or remove it."
                )
    elif privacy.count_noise is not None and 2 * privacy.count_noise <= privacy.noise_multiplier:
        yield (
            f"privacy.count_noise = {privacy.count_noise:g} lets out more through the count than "
            f"privacy.noise_multiplier = {privacy.noise_multiplier:g} allows in all: set it above "
            f"{privacy.noise_multiplier / 2:g}, or remove it."
        )


def _sum_is_all(study: Study, plan: StrategyPlan) -> Iterator[str]:
    if plan.aggregation not in MEANS:
        yield (
            f"federation.aggregation = {plan.aggregation!r} is no sum of clipped changes, which "
            "privacy.mode = 'site' adds its noise to: choose 'mean'."
        )
    if plan.objective == "control-variates":
        yield (
            "the objective 'control-variates' sends the sites each other's control variates "
            "without noise: choose another strategy, e.g. fedavg or fedprox."
        )
    if plan.server_optimiser == "dynamic":
        yield (
            "federation.server_optimiser = 'dynamic' needs the share of the patients that "
            "answered, which privacy.mode = 'site' does not use: "
            "choose another strategy, e.g. fedprox."
        )
    if plan.objective == "coral":
        yield (
            "the objective 'coral' sends second moments of features, which noise can make those of "
            "no features at all: choose 'small-features'."
        )
    chosen = study.model.normalisation
    if mixes_batch(study.model) and plan.share != "all-but-normalisation":
        yield (
            f"model.normalisation = {chosen!r} of {study.model.network} averages running "
            "variances, which noise can make negative: set it to 'group', or federation.share = "
            "'all-but-normalisation'."
        )


def _all_take_part(study: Study) -> Iterator[str]:
    federation = study.federation
    if federation.fraction != 1:
        yield (
            f"federation.fraction = {federation.fraction:g} leaves sites out, and privacy.mode = "
            "'site' is accounted with all of them in every round: remove it."
        )
    if federation.buffer_size is not None:
        yield (
            f"federation.buffer_size = {federation.buffer_size} lets a fast site count more often "
            "than others, which privacy.mode = 'site' does not cover: remove it."
        )
    if federation.norm_limit is not None:
        yield (
            f"federation.norm_limit = {federation.norm_limit:g} refuses a site because of the "
            "others, so that one site could move more than its own change: remove it; "
            "privacy.clip_norm bounds each."
        )


def _nothing_is_chosen(study: Study) -> Iterator[str]:
    deadlines = study.federation.patience_rounds
    if deadlines is not None:
        yield (
            f"federation.patience_rounds = {deadlines} ends the training by a measurement without "
            "noise: remove it."
        )
    if study.evaluation.keep != "last":
        yield (
            f"evaluation.keep = {study.evaluation.keep!r} chooses the model by a measurement "
            "without noise: set it to 'last'."
        )
