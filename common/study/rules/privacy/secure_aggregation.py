"""What a study whose updates are masked may ask for: only what a sum of all sites can give."""

from collections.abc import Iterator

from wardround.common.study.plans.strategy import (
    FLOWER,
    MEANS,
    ROBUST,
    StrategyPlan,
    fewest_sites,
    plan_from,
)
from wardround.common.study.sections.federation import FederationSection, MaskingOptions
from wardround.common.study.study import Study

LARGEST_OF_16_BITS = 1.0  # of a change
SUMS = (*MEANS, "normalised-mean", "fair-mean")
_MASKED = "federation.secure_aggregation = true"


def masking_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, reason, remedy) for every rule of masked updates that is broken.

    That a sum could overflow is no rule: the range of each key keeps it below the modulus.
    """
    federation = study.federation
    if not federation.secure_aggregation:
        if federation.masks != MaskingOptions():
            yield (
                f"federation.masks has no effect without masks: set {_MASKED}, or remove the table."
            )
        return
    try:
        plan = plan_from(federation, adapted=study.model.adapted)
    except KeyError:
        return  # an unknown strategy, said elsewhere
    yield from _is_a_sum(federation, plan)
    yield from _groups_fit(study, plan)
    yield from _fits_into_words(federation, plan)
    yield from _is_one_sum(study)
    yield from _privacy_fits(study)
    yield from _measures(study)


def _is_a_sum(federation: FederationSection, plan: StrategyPlan) -> Iterator[str]:
    rule = plan.aggregation
    if rule in ROBUST and federation.masks.groups > 1:
        return
    if rule in ROBUST:
        yield (
            f"federation.aggregation = {rule!r} looks at single updates, which {_MASKED} hides "
            "from the server: choose 'weighted-mean' or 'mean', or have it look at the means of "
            "groups of hospitals by federation.masks.groups = 3 or more."
        )
    elif rule.startswith(FLOWER):
        yield (
            f"federation.aggregation = {rule!r} looks at single updates, which {_MASKED} hides "
            "from the server: choose 'weighted-mean' or 'mean'."
        )
    elif rule == "in-turn":
        yield (
            "federation.aggregation = 'in-turn' hands each site's model on as it is, and "
            f"{_MASKED} lets out sums alone: choose 'weighted-mean' or 'mean'."
        )
    elif rule not in SUMS:
        yield (
            f"federation.aggregation = {rule!r} is not written as a sum of masked numbers: "
            f"with {_MASKED} choose one of {', '.join(SUMS)}."
        )


def _groups_fit(study: Study, plan: StrategyPlan) -> Iterator[str]:
    federation = study.federation
    masks, count = federation.masks, federation.masks.groups
    if count == 1:
        if masks.smallest_group != MaskingOptions().smallest_group:
            yield (
                f"federation.masks.smallest_group = {masks.smallest_group} has no effect without "
                "groups: set federation.masks.groups, or remove it."
            )
        return
    asked = f"federation.masks.groups = {count}"
    if plan.aggregation not in ROBUST:
        yield (
            f"{asked} shows the server the mean of each group, and federation.aggregation = "
            f"{plan.aggregation!r} takes the mean of all: choose a rule that looks at the groups, "
            "e.g. 'trimmed-mean' or 'geometric-median', or remove it."
        )
        return
    needed = max(3, fewest_sites(plan))
    if count < needed:
        yield (
            f"{asked} is too few for federation.aggregation = {plan.aggregation!r}, which looks at "
            f"the means of groups and needs {needed} of them to withstand "
            f"{plan.options.assumed_hostile} hostile ones: raise it, or lower "
            "federation.options.assumed_hostile."
        )
    yield from _groups_are_large(federation)
    if plan.objective == "control-variates" or plan.server_optimiser == "dynamic":
        yield (
            f"{asked} decides over the means of groups, and the strategy needs the sum of all "
            "hospitals beside it: choose another objective or server_optimiser."
        )
    if study.privacy.noise == "distributed":
        yield (
            f"{asked} adds up the noise of one group alone, and privacy.noise = 'distributed' "
            "promises that of all hospitals: remove one of the two."
        )


def _groups_are_large(federation: FederationSection) -> Iterator[str]:
    masks, asked = federation.masks, f"federation.masks.groups = {federation.masks.groups}"
    smallest = masks.groups * masks.smallest_group
    if federation.minimum_sites < smallest:
        yield (
            f"{asked} of {masks.smallest_group} hospitals at least are {smallest} hospitals, and "
            f"federation.minimum_sites = {federation.minimum_sites} would make smaller groups, in "
            f"which a hospital hides less: set it to {smallest}, or ask for fewer groups."
        )
    if smallest > masks.most_sites:
        yield (
            f"{asked} of {masks.smallest_group} hospitals are more than "
            f"federation.masks.most_sites = {masks.most_sites}: raise the latter."
        )


def _fits_into_words(federation: FederationSection, plan: StrategyPlan) -> Iterator[str]:
    masks = federation.masks
    if masks.word_bits == 64:
        return
    asked = f"federation.masks.word_bits = {masks.word_bits}"
    if plan.aggregation != "mean":
        yield (
            f"{asked} leaves too few bits for weights beside the change: "
            "set federation.aggregation = 'mean', or take 64."
        )
    if plan.objective == "control-variates":
        yield f"{asked} leaves too few bits for control variates: take 64."
    if masks.word_bits == 16 and masks.largest_change > LARGEST_OF_16_BITS:
        yield (
            f"{asked} leaves {16 - masks.most_sites.bit_length()} bits a hospital, and "
            f"federation.masks.largest_change = {masks.largest_change:g} would make the steps of "
            "the grid larger than what a number changes by: set it to the most that one changes by "
            f"in a round, at most {LARGEST_OF_16_BITS:g}, and federation.masks.most_sites to what "
            "you expect."
        )


def _is_one_sum(study: Study) -> Iterator[str]:
    federation = study.federation
    if federation.compression == "top-k":
        yield (
            "federation.compression = 'top-k' lets a number that only one site changes stand in "
            f"the sum as it is, and {_MASKED} hides nothing of it: remove it."
        )
    elif federation.compression != "none":
        yield (
            f"federation.compression = {federation.compression!r} gives each site a scale of its "
            f"own, and {_MASKED} adds whole numbers of one scale: remove it. "
            "federation.masks.word_bits = 32 halves the bytes instead, 16 quarters them."
        )
    if federation.buffer_size is not None:
        yield (
            f"federation.buffer_size = {federation.buffer_size} takes updates one at a time, and "
            f"{_MASKED} needs all of a round at once: remove it."
        )
    if federation.norm_limit is not None:
        yield (
            f"federation.norm_limit = {federation.norm_limit:g} has the server look at the length "
            f"of single updates, which {_MASKED} hides: remove it."
        )
    if federation.fraction != 1:
        yield (
            f"federation.fraction = {federation.fraction:g} asks other sites each round, so that "
            f"the difference of two sums is of few sites, and {_MASKED} hides less: remove it."
        )


def _privacy_fits(study: Study) -> Iterator[str]:
    if study.privacy.mode == "site" and study.privacy.noise == "local":
        yield (
            "privacy.mode = 'site' has the server clip single updates, which "
            f"{_MASKED} hides: set privacy.noise = 'distributed', and each site clips and adds its "
            "share of the noise itself."
        )


def _measures(study: Study) -> Iterator[str]:
    if study.evaluation.pack:
        yield (
            f"evaluation.pack asks single sites for sums in the clear, which {_MASKED} hides: "
            "remove it."
        )
    if study.package_metrics:
        yield (
            f"evaluation.metrics names {study.package_metrics[0]}, whose sums are not masked yet, "
            f"and {_MASKED} lets nothing out in the clear: remove it."
        )
    if study.statistics.ask:
        yield (
            f"statistics.ask has each site tell histograms in the clear, and {_MASKED} is about "
            "updates: remove one of the two."
        )
