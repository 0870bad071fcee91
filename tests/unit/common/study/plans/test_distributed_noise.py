"""What distributed noise promises whom, as it follows from a study."""

import math

import pytest
from tests.support.hospitals.table_sites import study_for

from wardround.common.errors import StudyError
from wardround.common.privacy.accounting import Spend, epsilon_of
from wardround.common.study.explain.distributed_noise import comparison_words
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import require_promise
from wardround.common.study.plans.distributed_noise import NoiseShares, plan_shares
from wardround.common.study.plans.masking import plan_masking
from wardround.common.study.plans.observers import compare_noise
from wardround.common.study.plans.patient_privacy import (
    evaluation_plans,
    plan_charges,
    plan_privacy,
)
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

BASE = {
    "federation.secure_aggregation": True,
    "evaluation.keep": "last",
    "model.normalisation": "none",
    "model.features": [],
}
PATIENTS = {
    **BASE,
    "privacy.mode": "patient",
    "privacy.noise": "distributed",
    "privacy.noise_multiplier": 1.5,
    "training.local_steps": 1,
    "federation.minimum_sites": 10,
}
SITES = {
    **BASE,
    "privacy.mode": "site",
    "privacy.noise": "distributed",
    "privacy.noise_multiplier": 3.0,
}


def distributed(**changes: object) -> Study:
    return study_for("fedavg", **{**PATIENTS, **changes})


def shares_of(study: Study) -> NoiseShares:
    shares = plan_shares(study)
    assert shares is not None
    return shares


@pytest.mark.parametrize(
    ("sites", "colluding", "honest"), [(3, None, 3), (5, None, 3), (10, None, 4), (10, 0, 7)]
)
def test_the_noise_is_for_those_who_surely_stay_and_do_not_collude(
    sites: int, colluding: int | None, honest: int
) -> None:
    shares = shares_of(
        distributed(**{"federation.minimum_sites": sites, "privacy.colluding_sites": colluding})
    )
    assert shares.honest == honest
    assert shares.multiplier(honest) == shares.noise_multiplier == 1.5
    assert shares.multiplier(4 * honest) == 3.0


def test_the_grid_follows_from_the_noise_and_no_sum_overflows() -> None:
    masks = plan_masking(distributed(**{"federation.masks.most_sites": 1024}))
    assert masks is not None
    assert masks.shares is not None
    assert masks.most_examinations == 1
    assert masks.grid.step == pytest.approx(masks.shares.step, rel=1e-12)
    assert masks.grid.most_sites * masks.grid.top < 2**63


def test_a_solved_noise_has_few_digits_so_that_all_sites_have_the_same_grid() -> None:
    study = distributed(**{"privacy.noise_multiplier": None, "privacy.epsilon": 8.0})
    noise = plan_privacy(study).noise_multiplier
    assert noise == float(f"{noise:.4g}")
    assert plan_privacy(study).epsilon <= 8.0


def test_more_than_one_table_of_who_learns_what() -> None:
    study = distributed()
    rows = {row.name: (row.local, row.distributed) for row in compare_noise(study).observers}
    plan = plan_privacy(study)

    def of(sites: float) -> float:
        return epsilon_of([Spend(plan.sampling_rate, 1.5 * math.sqrt(sites), 4)], plan.delta)

    assert rows == {
        "the server, helped by 3 hospitals": (of(1), of(1)),
        "the server alone": (of(1), of(7 / 4)),
        "one other hospital": (of(9), of(6 / 4)),
        "the public, which sees the models": (of(10), of(7 / 4)),
    }
    compared = compare_noise(study)
    assert compared.noise_of_local is not None
    assert compared.noise_of_distributed is not None
    assert compared.noise_of_local / compared.noise_of_distributed == pytest.approx(2, rel=1e-3)
    assert "2 times as much" in " ".join(comparison_words(compared).split())


def test_a_local_study_of_one_step_is_shown_what_distributed_noise_would_be() -> None:
    study = distributed(**{"privacy.noise": "local", "federation.secure_aggregation": False})
    assert compare_noise(study).noise_of_distributed is not None
    several = compare_noise(
        study_for(
            "fedavg",
            **{**PATIENTS, "privacy.noise": "local", "training.local_steps": 3},
        )
    )
    assert several.noise_of_distributed is None
    first = several.observers[0].local
    assert all(row.local == first and row.distributed is None for row in several.observers)


def test_a_site_as_unit_charges_its_patients_for_a_change_of_twice_the_length() -> None:
    plan = plan_charges(study_for("fedavg", **SITES))
    assert (plan.sampling_rate, plan.noise_multiplier, plan.planned.steps) == (1.0, 1.5, 4)


def test_nothing_without_noise_stands_in_the_sum_or_beside_it() -> None:
    for study in (distributed(), study_for("fedavg", **SITES)):
        leaves = what_leaves(study)
        assert leaves.masked
        assert leaves.noise_added_by == "site"
        said = (leaves.counts, leaves.losses, leaves.round_metrics, leaves.times)
        assert said == (False,) * 4
        assert evaluation_plans(study) == ()


def test_the_discreteness_costs_next_to_nothing() -> None:
    assert shares_of(distributed()).gap < 1e-8


def test_noise_that_swallows_the_grid_is_refused() -> None:
    with pytest.raises(StudyError, match="lost in the rounding"):
        require_promise(distributed(**{"privacy.noise_multiplier": 1e5}))


def test_explain_says_who_learns_how_much() -> None:
    page = explain_study(distributed())
    assert "the server, helped by 3 hospitals" in page
    assert "no count, no loss" in page
    assert "Masks are not differential privacy" not in page
    sites = explain_study(study_for("fedavg", **SITES))
    assert "the unit is the hospital" in sites


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"federation.secure_aggregation": False}, "must not see one alone"),
        ({"training.local_steps": 2}, "effect on the update is not bounded"),
        ({"training.optimiser": "adam"}, "before the noise is whole"),
        ({"training.momentum": 0.9}, "the server's momentum|The server's momentum"),
        ({"training.weight_decay": 0.1}, "has no effect where a site sends one gradient"),
        ({"training.ema": 0.9}, "mean over the steps"),
        ({"federation.strategy": "fedper"}, "stay at a site"),
        ({"federation.strategy": "fedrep"}, "no sum of the patients' gradients"),
        ({"privacy.colluding_sites": 4}, "allow at most 3"),
        ({"federation.masks.most_sites": 9}, "most_sites = 9"),
        ({"privacy.mode": "none", "privacy.noise_multiplier": None}, "has no effect"),
        ({"privacy.noise": "local", "privacy.colluding_sites": 1}, "has no effect"),
    ],
)
def test_what_the_noise_of_a_sum_does_not_cover_is_refused(
    changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(StudyError, match=reason):
        distributed(**changes)


def test_a_site_as_unit_clips_by_a_fixed_length() -> None:
    with pytest.raises(StudyError, match="hides them in a sum"):
        study_for("fedavg", **{**SITES, "privacy.adaptive_clipping": True})
