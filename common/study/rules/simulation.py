"""What ``[simulation]`` asks for that no data could give: said before a file of patients is read.

Hospitals and the digest ignore the section, so these are no rules of the study itself. How many
sites there are of a natural split, or of a federation, no study says.
"""

import math
from collections.abc import Iterator

from wardround.common.study.plans.masking import plan_masking
from wardround.common.study.plans.strategy import FEWEST_SITES, StrategyPlan, fewest_sites, plan_of
from wardround.common.study.study import Study


def simulation_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, value, remedy) for every rule that the simulation breaks.

    Args:
        study: It breaks no rule of its own.
    """
    yield from _sites_suffice(study, plan_of(study))
    yield from _classes_have_a_place(study)
    yield from _lacking_is_optional(study)
    yield from _masks_hide(study)
    if study.data.combat is not None and study.simulation.compare:
        yield (
            "the pooled model has the patients of all sites together, and data.combat has to know "
            "whose each is: set simulation.compare = false."
        )


def _sites_suffice(study: Study, plan: StrategyPlan) -> Iterator[str]:
    federation, simulation = study.federation, study.simulation
    if federation.masks.groups > 1:
        return  # the rule looks at groups, and how many there are is the study's
    needed = fewest_sites(plan)
    asked = max(math.ceil(federation.fraction * simulation.sites), federation.minimum_sites)
    in_a_round = min(asked, simulation.sites)
    if simulation.split == "natural" or in_a_round >= needed:
        return
    hostile = plan.options.assumed_hostile
    factor, extra = FEWEST_SITES[plan.aggregation]
    safe = (in_a_round - extra) // factor
    fewer = f"lower federation.options.assumed_hostile to {safe}, " if safe >= 0 else ""
    partly = f" with federation.fraction = {federation.fraction:g}" if asked < needed else ""
    yield (
        f"federation.aggregation = {plan.aggregation!r} needs {needed} sites in a round to "
        f"withstand {hostile} hostile ones, and simulation.sites = {simulation.sites}"
        f"{partly if federation.fraction < 1 else ''}: raise it, {fewer}or choose another "
        "strategy."
    )


def _classes_have_a_place(study: Study) -> Iterator[str]:
    simulation, count = study.simulation, len(study.data.classes)
    sites, each = simulation.sites, simulation.classes_per_site
    one_class_a_patient = study.task.classifies and not study.data.multi_label
    if simulation.split == "classes" and one_class_a_patient and sites * each < count:
        yield (
            f"simulation.split = 'classes' gives each of simulation.sites = {sites} no more than "
            f"simulation.classes_per_site = {each} of the {count} classes: raise one of them."
        )


def _lacking_is_optional(study: Study) -> Iterator[str]:
    names = dict.fromkeys(name for one in study.simulation.lacking for name in one.names)
    for name in names:
        if name not in study.data.optional:
            yield (
                f"simulation.lacking names {name!r}, which every examination must have: list it "
                "in data.optional."
            )


def _masks_hide(study: Study) -> Iterator[str]:
    masks, simulation = plan_masking(study), study.simulation
    if masks is None:
        return
    if simulation.split != "natural" and simulation.sites < masks.smallest_roster:
        yield (
            f"simulation.sites = {simulation.sites} is too few for federation.secure_aggregation = "
            f"true, whose sums are of {masks.smallest_roster} sites at least: raise it."
        )
    if simulation.adversary:
        yield (
            "simulation.adversary changes updates as the server sees them, and with "
            "federation.secure_aggregation = true it sees none: remove one of the two."
        )
