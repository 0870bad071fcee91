"""Whether a simulation can tell each site's contribution from the rounds' updates, or why not."""

from wardround.common.study.plans.strategy import FLOWER, fewest_sites, plan_of
from wardround.common.study.study import Study

MOST_SITES = 64  # with more, a hospital's share drowns in the error of what can be drawn in minutes


def has_contributions(study: Study) -> bool:
    """Return whether a simulation of the study keeps updates and tells contributions from them."""
    return not why_no_contributions(study)


def why_no_contributions(study: Study) -> str:
    """Return a sentence why contributions cannot be told; "" where they can."""
    plan = plan_of(study)
    needed = fewest_sites(plan)
    reasons = (
        (
            study.privacy.mode != "none",
            f"with privacy.mode = {study.privacy.mode!r} the server must not learn what a single "
            "hospital's update does",
        ),
        (
            study.federation.secure_aggregation,
            "with federation.secure_aggregation = true the server learns no single update",
        ),
        (plan.personalised, "each hospital ends with a model of its own"),
        (plan.aggregation == "in-turn", "the model visits the hospitals in turn"),
        (
            plan.aggregation.startswith(FLOWER),
            f"{plan.aggregation} cannot be repeated with fewer hospitals",
        ),
        (
            needed > 1,
            f"{plan.aggregation} needs {needed} hospitals, so it does not say what fewer would do",
        ),
        (
            study.federation.buffer_size is not None,
            "in asynchronous rounds an update starts from an older model than its round",
        ),
        (
            study.federation.ema is not None,
            "federation.ema releases a mean over rounds, and updates make the rounds' models",
        ),
        (study.simulation.keep_updates_mb == 0, "simulation.keep_updates_mb = 0 keeps no updates"),
    )
    return next((reason for holds, reason in reasons if holds), "")
