"""How much a site counts in the means of the choices that remember something."""

from wardround.common.study.plans.strategy import StrategyPlan


def site_weight(examinations: int, plan: StrategyPlan) -> int:
    """Return a site's weight: its training examinations, or 1 where all count the same."""
    return 1 if plan.aggregation == "mean" else examinations
