"""ComBat fitted from the sites' sums, as the section of the planned study."""

import numpy as np

from wardround.common.statistics.combat import fit_combat
from wardround.common.study.plans.statistics import MOMENTS, combat_inputs
from wardround.common.study.sections.combat import CombatSection, CombatSite
from wardround.common.study.study import Study
from wardround.server.planning.collection import Collected
from wardround.server.planning.planned_value import PlannedValue


def plan_combat(collected: Collected, asked: Study) -> PlannedValue:
    """Return ``data.combat``, its numbers in the covariates' own units.

    Raises:
        RunError: There are too few sites or patients, or a feature does not vary.
    """
    inputs = combat_inputs(asked)
    kept = [one for one in inputs if one.preserve]
    features = [one for one in inputs if not one.preserve]
    fit = fit_combat({n: said.cells[MOMENTS] for n, said in collected.sites.items()}, len(kept))
    half = np.array([one.half for one in features])
    kept_half = np.array([one.half for one in kept])
    kept_middle = np.array([one.middle for one in kept])
    effects = fit.effects * half[:, None] / kept_half
    means = np.array([one.middle for one in features]) + half * fit.means - effects @ kept_middle
    sites = tuple(
        CombatSite(
            name=name,
            shifts=tuple((half * shifts).tolist()),
            scales=tuple(scales.tolist()),
        )
        for name, shifts, scales in zip(fit.sites, fit.shifts, fit.scales, strict=True)
    )
    section = CombatSection(
        features=tuple(one.covariate for one in features),
        preserve=tuple(dict.fromkeys(one.covariate for one in kept)),
        means=tuple(means.tolist()),
        effects=tuple(tuple(row) for row in effects.tolist()),
        sites=sites,
    )
    patients = sum(said.patients for said in collected.sites.values())
    reason = (
        f"ComBat from the sums of {patients} training patients at {len(sites)} sites. A site that "
        "is not among them cannot be placed: plan anew with it."
    )
    return PlannedValue("data.combat", section, reason)
