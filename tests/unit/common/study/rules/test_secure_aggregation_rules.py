"""What a study whose updates are masked may not ask for, each said with its reason."""

import pytest
from tests.support.hospitals.table_sites import study_for

from wardround.common.errors import StudyError
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import require_simulation
from wardround.common.study.plans.contributions import why_no_contributions
from wardround.common.study.plans.masking import plan_masking
from wardround.common.study.study import Study
from wardround.common.study.variants import plain

MASKED = {"federation.secure_aggregation": True, "evaluation.keep": "last"}


def masked(strategy: str = "fedavg", **changes: object) -> Study:
    return study_for(strategy, **{**MASKED, **changes})


MEANS = (
    "fedavg fedprox fedavgm fedadam fedyogi fedadagrad fedbn fedper fedrep ditto apfl moon "
    "fednova scaffold feddyn qfedavg"
)


@pytest.mark.parametrize("strategy", [*MEANS.split(), "fedavg-finetune"])
def test_whatever_is_a_mean_of_the_sites_can_be_masked(strategy: str) -> None:
    assert plan_masking(masked(strategy)) is not None


@pytest.mark.parametrize("strategy", ["krum", "trimmed-mean", "geometric-median", "flower:Krum"])
def test_rules_that_look_at_single_updates_are_refused(strategy: str) -> None:
    with pytest.raises(StudyError, match="looks at single updates"):
        masked(strategy, **{"federation.options.assumed_hostile": 0})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"federation.masks.word_bits": 32}, "too few bits for weights"),
        ({"federation.masks.word_bits": 16}, "at most 1"),
        ({"federation.masks.word_bits": 8}, "word_bits"),
        ({"federation.masks.clip_norm": 0.0}, "clip_norm"),
        ({"federation.strategy": "cyclic"}, "hands each site's model on"),
        ({"federation.compression": "top-k"}, "only one site changes"),
        ({"federation.compression": "int8"}, "a scale of its own"),
        ({"federation.buffer_size": 2}, "one at a time"),
        ({"federation.norm_limit": 5.0}, "length of single updates"),
        ({"federation.fraction": 0.5}, "difference of two sums"),
        ({"evaluation.pack": ("intervals",)}, "sums in the clear"),
        ({"privacy.mode": "site", "privacy.noise_multiplier": 1.0}, "clip single updates"),
    ],
)
def test_what_a_sum_cannot_give_is_refused_with_the_reason(
    changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(StudyError, match=reason):
        masked(**changes)


def test_numbers_of_masks_without_masks_are_refused() -> None:
    with pytest.raises(StudyError, match="no effect without masks"):
        study_for("fedavg", **{"federation.masks.most_sites": 5})


def test_a_study_that_says_nothing_of_masks_keeps_its_digest() -> None:
    study = study_for("fedavg")
    said = study_for("fedavg", **{"federation.secure_aggregation": False, "federation.masks": {}})
    assert study.digest == said.digest
    assert masked().digest != study_for("fedavg", **{"evaluation.keep": "last"}).digest


def test_no_key_of_a_study_lets_a_sum_overflow() -> None:
    plan = plan_masking(masked(**{"federation.masks.most_sites": 1024}))
    assert plan is not None
    assert plan.grid.most_sites * plan.grid.top < 2**63
    with pytest.raises(StudyError, match="most_sites"):
        masked(**{"federation.masks.most_sites": 1025})


def test_the_quorum_is_a_floor_of_the_roster_and_three_at_least() -> None:
    for asked, floor in ((1, 3), (3, 3), (5, 5)):
        plan = plan_masking(masked(**{"federation.minimum_sites": asked}))
        assert plan is not None
        assert plan.smallest_roster == floor


def test_explain_says_what_leaves_and_who_may_drop_out() -> None:
    page = explain_study(masked())
    leaving, _, staying = page.partition("These never leave")
    assert "under a mask" in leaving
    assert "Of 3 hospitals no hospital may drop out" in leaving
    assert "Of 10 hospitals 3 may drop out" in leaving
    assert "how many training examinations it holds" not in leaving
    assert "Masks are not differential privacy" in staying


def test_a_simulation_needs_three_sites_and_no_adversary() -> None:
    with pytest.raises(StudyError, match=r"simulation\.sites = 2 is too few"):
        require_simulation(masked(**{"simulation.sites": 2, "simulation.split": "iid"}))
    hostile = {"kind": "label-flip", "sites": 1}
    with pytest.raises(StudyError, match=r"simulation\.adversary"):
        require_simulation(masked(**{"simulation.adversary": [hostile]}))


def test_a_baseline_masks_nothing_and_no_contribution_is_told() -> None:
    assert plan_masking(plain(masked())) is None
    assert "no single update" in why_no_contributions(masked())
