"""Privacy of whole sites: what one of them can move, how much noise there is, what it promises."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.common.errors import RunError, StudyError
from wardround.common.messages.replies import SiteUpdate
from wardround.common.parameters.schema import Parameters
from wardround.common.privacy.secure_random import KEY_BYTES, Randomness
from wardround.common.study.explain.site_privacy import site_promise_words, weakness
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.plans.site_privacy import (
    AdaptiveClipping,
    SitePrivacyPlan,
    plan_site_privacy,
    usual_count_noise,
)
from wardround.common.study.study import Study
from wardround.server.strategies.private_mean import PrivateMean

START: Parameters = {
    "w": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor([0.5, -0.5]),
    "count": torch.tensor(4),
}
LEARNT = frozenset({"w", "b"})


def plan_of(
    noise: float, clip_norm: float = 1.0, adaptive: AdaptiveClipping | None = None, rounds: int = 1
) -> SitePrivacyPlan:
    return SitePrivacyPlan(clip_norm, noise, adaptive, rounds, 1e-5)


def update_of(change: float | Parameters, examinations: int = 10) -> SiteUpdate:
    changes = dict.fromkeys(LEARNT, change) if isinstance(change, float) else change
    model = {n: t + changes[n] if n in LEARNT else t + 1 for n, t in START.items()}
    return SiteUpdate("site", "d", 1, 0, model, examinations, 1, 0.0, 0.0)


def mean_of(*updates: SiteUpdate, sites: int | None = None, clip_norm: float = 1.0) -> Parameters:
    """Return the mean without noise."""
    mean = PrivateMean(plan_of(0.0, clip_norm), sites or len(updates), LEARNT)
    mean.begin(START)
    for update in updates:
        mean.accumulate(update)
    return mean.finish()


def length(model: Parameters, other: Parameters) -> float:
    return math.hypot(*(float((model[n].double() - other[n].double()).norm()) for n in LEARNT))


# --- Clipping --------------------------------------------------------------------
def test_short_changes_are_averaged_and_every_site_counts_the_same() -> None:
    small, large = update_of(0.01, examinations=1), update_of(0.03, examinations=9000)
    mean = mean_of(small, large)
    for name in LEARNT:
        assert torch.allclose(mean[name], START[name] + 0.02, atol=1e-6)
    assert mean["count"] == 4, "an integer has no noise, so it stays what it was"


def test_a_long_change_keeps_its_direction_and_gets_the_clip_norm() -> None:
    mean = mean_of(update_of(100.0), clip_norm=0.5)
    assert length(mean, START) == pytest.approx(0.5, rel=1e-5)
    moved = torch.cat([(mean[n] - START[n]).flatten() for n in sorted(LEARNT)])
    assert torch.allclose(moved, moved[0].expand_as(moved), atol=1e-5)


def test_a_site_that_does_not_answer_leaves_the_divisor_as_it_is() -> None:
    mean = mean_of(update_of(0.03), sites=3)
    assert torch.allclose(mean["w"], START["w"] + 0.01, atol=1e-6)


changes = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(changes, changes), min_size=1, max_size=6),
    st.integers(0, 5),
    st.floats(0.01, 100.0),
)
def test_removing_one_site_moves_the_sum_by_no_more_than_the_clip_norm(
    drawn: list[tuple[float, float]], removed: int, clip_norm: float
) -> None:
    updates = [
        update_of({"w": torch.full((2, 3), w), "b": torch.tensor([b, -b])}) for w, b in drawn
    ]
    sums = []
    for kept in (
        updates,
        updates[: removed % len(updates)] + updates[removed % len(updates) + 1 :],
    ):
        mean = PrivateMean(plan_of(1.0, clip_norm), len(updates), LEARNT)
        mean.begin(START)
        for update in kept:
            mean.accumulate(update)
        sums.append(mean._sum)
    assert length(*sums) <= clip_norm * (1 + 1e-9)


def test_what_is_not_finite_is_refused_and_adds_nothing() -> None:
    mean = PrivateMean(plan_of(0.0), 2, LEARNT)
    mean.begin(START)
    mean.accumulate(update_of(0.02))
    for bad in (math.nan, math.inf):
        with pytest.raises(RunError, match="not finite"):
            mean.accumulate(update_of(bad))
    assert torch.allclose(mean.finish()["w"], START["w"] + 0.01, atol=1e-6)


def test_a_running_mean_cannot_be_noised() -> None:
    mean = PrivateMean(plan_of(1.0), 2, frozenset({"w"}))
    with pytest.raises(StudyError, match=r"'b' is shared and no gradient changes it"):
        mean.begin(START)


# --- Noise -----------------------------------------------------------------------
def test_the_noise_on_the_mean_has_the_planned_deviation() -> None:
    start = {"w": torch.zeros(200_000)}
    plan = plan_of(noise=3.0, clip_norm=0.5)
    mean = PrivateMean(plan, 6, frozenset({"w"}))
    mean.begin(start)
    for _ in range(6):
        mean.accumulate(SiteUpdate("s", "d", 1, 0, dict(start), 10, 1, 0.0, 0.0))
    noise = mean.finish()["w"]
    assert plan.mean_noise(6) == pytest.approx(0.25)
    assert float(noise.std()) == pytest.approx(0.25, rel=0.01)
    assert abs(float(noise.mean())) < 0.25 * 5 / math.sqrt(200_000)


def test_noise_does_not_follow_the_seed_and_is_never_drawn_twice() -> None:
    found = []
    for _ in range(3):
        torch.manual_seed(0)
        mean = PrivateMean(plan_of(1.0), 1, LEARNT)
        mean.begin(START)
        mean.accumulate(update_of(0.1))
        found.append(mean.finish()["w"])
        mean.begin(START)
        mean.accumulate(update_of(0.1))
        found.append(mean.finish()["w"])
    assert len({tuple(noise.flatten().tolist()) for noise in found}) == 6


# --- A clip norm that follows the changes ---------------------------------------------
@pytest.mark.parametrize("first", [0.05, 50.0])
@pytest.mark.parametrize("quantile", [0.25, 0.5, 0.9])
def test_an_adaptive_clip_norm_finds_the_quantile(first: float, quantile: float) -> None:
    # Forty sites whose changes are 1/8, 2/8, ... 5 long, and little noise on the count.
    lengths = [(1 + n) / 8 for n in range(40)]
    plan = plan_of(0.1, first, AdaptiveClipping(quantile, count_noise=1.0))
    mean = PrivateMean(plan, 40, frozenset({"w"}), Randomness(bytes(KEY_BYTES)))
    start = {"w": torch.zeros(4)}
    seen = []
    for number in range(160):
        mean.begin(start)
        for size in lengths:
            moved = {"w": torch.full((4,), size / 2)}
            mean.accumulate(SiteUpdate("s", "d", 1, 0, moved, 1, 1, 0.0, 0.0))
        mean.finish()
        if number >= 120:
            seen.append(mean.clip_norm)
    assert sum(seen) / len(seen) == pytest.approx(5 * quantile, rel=0.1)


def test_the_clip_norm_survives_a_restart() -> None:
    adaptive = AdaptiveClipping(0.5, 0.01)
    mean = PrivateMean(plan_of(0.01, 1.0, adaptive), 1, LEARNT)
    mean.begin(START)
    mean.accumulate(update_of(100.0))
    mean.finish()
    assert mean.clip_norm == pytest.approx(math.exp(0.1), rel=0.01)
    again = PrivateMean(plan_of(0.01, 1.0, adaptive), 1, LEARNT)
    again.restore(mean.state())
    assert again.clip_norm == mean.clip_norm


@given(st.floats(0.1, 20.0), st.floats(1.01, 100.0))
def test_sum_and_count_together_cost_what_the_study_says(noise: float, above: float) -> None:
    plan = plan_of(noise, adaptive=AdaptiveClipping(0.5, above * noise / 2))
    # Two Gaussian mechanisms of sensitivity 1 and 1/2 are one whose squared inverses add up.
    together = 1 / plan.sum_noise**2 + 0.25 / plan.adaptive.count_noise**2  # type: ignore[union-attr]
    assert together == pytest.approx(1 / noise**2, rel=1e-6)
    assert plan.sum_noise > noise


def test_the_usual_count_noise_costs_five_percent_of_noise() -> None:
    plan = plan_of(2.0, adaptive=AdaptiveClipping(0.5, usual_count_noise(2.0)))
    assert plan.sum_noise == pytest.approx(2.1)
    assert usual_count_noise(1.0) == pytest.approx(1.64, abs=0.001)


# --- The study ------------------------------------------------------------------------
def study_with(**changes: Any) -> Study:
    study = {
        "study": {"name": "sites", "task": "classification"},
        "data": {"kind": "table", "classes": ["a", "b"], "covariates": [{"name": "x"}]},
        "model": {"network": "mlp", "features": [4]},
        "federation": {"rounds": 100},
        "evaluation": {"keep": "last"},
        "privacy": {"mode": "site", "noise_multiplier": 1.0},
    }
    return with_changes(parse_study(study), changes)


def test_noise_of_one_clip_norm_over_a_hundred_rounds_promises_next_to_nothing() -> None:
    plan = plan_site_privacy(study_with())
    assert plan.epsilon == pytest.approx(91.8, abs=0.1)
    said = weakness(plan)
    assert said.startswith("this is weak")
    assert "over 100 rounds gives epsilon 91.9" in said, "rounded up"
    assert "with 4, " in said


def test_the_hospital_is_told_the_promise_and_its_limits() -> None:
    text = " ".join(explain_study(study_with()).split())
    assert "What is promised to each hospital" in text
    assert "this is weak" in text
    assert "The server sees every hospital's update without noise" in text
    assert "the same seed ends in another network" in text


def test_adaptive_clipping_is_said_with_its_noise() -> None:
    plan = plan_site_privacy(study_with(**{"privacy.adaptive_clipping": True}))
    said = " ".join(site_promise_words(plan))
    assert "adds noise of 1.05 times that length" in said
    assert "standard deviation 1.64" in said


REFUSED = [
    ({"privacy.noise_multiplier": None}, "needs privacy.noise_multiplier"),
    ({"privacy.epsilon": 8.0}, "privacy.epsilon = 8.0 has no effect"),
    ({"privacy.clip_quantile": 0.3}, "has no effect with a fixed clip norm"),
    ({"privacy.count_noise": 3.0}, "has no effect with a fixed clip norm"),
    ({"privacy.adaptive_clipping": True, "privacy.count_noise": 0.5}, "set it above 0.5"),
    ({"federation.strategy": "krum"}, "choose 'mean'"),
    ({"federation.strategy": "fednova"}, "choose 'mean'"),
    ({"federation.strategy": "flower:FedAvg"}, "choose 'mean'"),
    ({"federation.strategy": "scaffold", "training.optimiser": "sgd"}, "control variates"),
    ({"federation.strategy": "feddyn"}, "share of the patients"),
    ({"federation.fraction": 0.5}, "leaves sites out"),
    ({"federation.buffer_size": 2}, "fast site"),
    ({"federation.norm_limit": 3.0}, "privacy.clip_norm bounds each"),
    ({"federation.patience_rounds": 3}, "without noise"),
    ({"evaluation.keep": "best"}, "set it to 'last'"),
    ({"model.normalisation": "batch"}, "set it to 'group'"),
]


@pytest.mark.parametrize(("changes", "reason"), REFUSED)
def test_what_would_pass_the_noise_by_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(StudyError) as refusal:
        study_with(**changes)
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"federation.strategy": "fedprox"},
        {"federation.strategy": "fedadam"},
        {"federation.strategy": "fedper"},
        {"federation.compression": "int8"},
        {"privacy.adaptive_clipping": True, "privacy.count_noise": 0.6},
        {"model.normalisation": "batch", "federation.strategy": "fedbn"},
    ],
)
def test_what_sees_the_noised_mean_alone_is_allowed(changes: dict[str, Any]) -> None:
    assert study_with(**changes).privacy.mode == "site"
