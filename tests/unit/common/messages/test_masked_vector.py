"""A site's vector: what it says comes back out of a sum, and a layout is what all sites sign."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.hospitals.table_sites import study_for
from tests.support.studies.built_in import built_in

from wardround.common.errors import RunError
from wardround.common.messages.masked_vector import Counted, VectorLayout
from wardround.common.messages.replies import SiteUpdate
from wardround.common.metrics.sums import empty_sums
from wardround.common.models.sharing import RECEIVED_LOSS
from wardround.common.parameters.schema import Parameters, schema
from wardround.common.privacy.secure_aggregation.refusals import MaskingError
from wardround.common.study.plans.masking import plan_masking
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.study import Study
from wardround.server.strategies.aggregation.base import Aggregation
from wardround.server.strategies.aggregation.means import FairMean, NormalisedMean

MASKED = {"federation.secure_aggregation": True, "evaluation.keep": "last"}
NARROW = {"federation.aggregation": "mean", "federation.masks.word_bits": 32}
START: Parameters = {
    "weight": torch.tensor([[0.5, -1.0], [2.0, 0.0]]),
    "half": torch.tensor([1.0], dtype=torch.float16),
    "batches": torch.tensor(7),
}


def layout_for(study: Study, model: Parameters = START) -> VectorLayout:
    plan = plan_masking(study)
    assert plan is not None
    return VectorLayout.of(study, plan, schema(model), frozenset(model) - {"batches"})


def counted(weight: int, loss: float = 0.0) -> Counted:
    return Counted(weight, weight, 3, loss, None)


def moved(by: float, batches: int = 3) -> Parameters:
    return {
        "weight": START["weight"] + by,
        "half": START["half"] + by,
        "batches": START["batches"] + batches,
    }


@settings(max_examples=15, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.floats(-15, 15, width=16), st.integers(1, 5000)), min_size=1, max_size=6
    )
)
def test_the_weighted_mean_of_changes_comes_out_of_the_sum(parts: list[tuple[float, int]]) -> None:
    layout = layout_for(study_for("fedavg", **MASKED))
    words = [layout.encode(moved(by), START, counted(weight)) for by, weight in parts]
    found = layout.decode(np.sum(words, axis=0, dtype="<u8"), START)
    model, told = found.model, found.counted
    total = sum(weight for _, weight in parts)
    mean = sum(by * weight for by, weight in parts) / total
    assert torch.allclose(model["weight"], START["weight"] + mean, atol=2e-5)
    assert model["half"].dtype == torch.float16
    assert int(model["batches"]) == 10
    assert (told.weight, told.examinations, told.steps) == (total, total, 3 * len(parts))


def test_losses_come_out_of_the_sum_and_one_that_is_no_number_counts_nothing() -> None:
    layout = layout_for(study_for("fedavg", **MASKED))
    losses = (1.25, float("nan"), 2.5)
    words = [layout.encode(START, START, counted(1, loss)) for loss in losses]
    told = layout.decode(np.sum(words, axis=0, dtype="<u8"), START).counted
    assert told.loss == 3.75


def test_a_change_outside_the_range_is_refused_however_little_it_weighs() -> None:
    layout = layout_for(study_for("fedavg", **MASKED))
    with pytest.raises(MaskingError, match="out-of-range"):
        layout.encode(moved(16.5), START, counted(1))


def test_a_sum_without_examinations_has_no_mean() -> None:
    layout = layout_for(study_for("fedavg", **MASKED))
    with pytest.raises(RunError, match="no examinations"):
        layout.decode(layout.encode(START, START, counted(0)), START)


def test_a_large_hospital_counts_as_most_examinations_says() -> None:
    study = study_for("fedavg", **MASKED, **{"federation.masks.most_examinations": 100})
    plan = plan_masking(study)
    assert plan is not None
    assert [plan.weight(count) for count in (7, 100, 5000)] == [7, 100, 100]
    equal = plan_masking(study_for("fedavg", **MASKED, **{"federation.aggregation": "mean"}))
    assert equal is not None
    assert equal.weight(5000) == 1


def test_the_order_of_the_names_changes_no_vector_and_no_hash() -> None:
    study = study_for("fedavg", **MASKED)
    other = layout_for(study, dict(reversed(START.items())))
    ours = layout_for(study)
    assert ours.configuration.digest == other.configuration.digest
    words = [layout.encode(moved(0.5), START, counted(9)) for layout in (ours, other)]
    assert (words[0] == words[1]).all()


def test_what_the_sites_must_do_alike_has_another_hash_if_any_of_it_differs() -> None:
    study = study_for("fedavg", **MASKED)
    digests = {layout_for(study).configuration.digest}
    for key, value in (
        ("federation.masks.largest_change", 8.0),
        ("federation.masks.most_sites", 50),
        ("federation.masks.most_examinations", 10),
        ("federation.minimum_sites", 5),
    ):
        digests.add(layout_for(study_for("fedavg", **MASKED, **{key: value})).configuration.digest)
    digests.add(layout_for(study, {**START, "more": torch.zeros(1)}).configuration.digest)
    assert len(digests) == 6


@pytest.mark.parametrize("name", ["heart-disease", "hippocampus", "bccd", "skin-lesions"])
def test_the_metrics_of_every_task_pass_through_a_sum(name: str) -> None:
    study = built_in(name, federation__secure_aggregation=True, evaluation__keep="last")
    layout = layout_for(study)
    words = layout.encode(START, START, counted(1))
    assert len(words) == layout.configuration.length
    assert layout.decode(words, START).counted.metrics is None
    assert dataclasses.replace(layout) == layout


NAMES = ("weight", "half")


def update_of(by: float, examinations: int, steps: int, loss: float) -> SiteUpdate:
    return SiteUpdate(
        "north", "", 1, 0, {**moved(by), "half": START["half"]}, examinations, steps, 0.0, 0.0,
        auxiliary={RECEIVED_LOSS: torch.tensor(loss, dtype=torch.float64)},
    )  # fmt: skip


SITES = st.lists(
    st.tuples(
        st.floats(-2, 2, width=16), st.integers(1, 500), st.integers(1, 40), st.floats(0.05, 4.0)
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("strategy", ["fednova", "qfedavg"])
@settings(max_examples=15, deadline=None)
@given(sites=SITES)
def test_a_combination_written_as_sums_is_that_of_the_single_updates(
    strategy: str, sites: list[tuple[float, int, int, float]]
) -> None:
    study = study_for(strategy, **MASKED, **{"training.momentum": 0.5})
    layout, trainable = layout_for(study), frozenset(NAMES)
    rule: Aggregation
    if strategy == "fednova":
        rule = NormalisedMean(START, trainable, study.training)
    else:
        fairness = plan_of(study).options.fairness
        rule = FairMean(START, trainable, study.training.learning_rate, fairness)
    words = []
    for site in sites:
        update = update_of(*site)
        rule.accumulate(update)
        weight = layout.plan.weight(update.examinations)
        facts = Counted(weight, update.examinations, update.updates, 0.0, None, site[3])
        words.append(layout.encode(update.parameters, START, facts))
    expected = rule.finish()
    found = layout.decode(np.sum(words, axis=0, dtype="<u8"), START).model
    scale = float((expected["weight"] - START["weight"]).abs().max())
    assert torch.allclose(found["weight"], expected["weight"], atol=1e-5 + 1e-4 * scale)
    assert int(found["batches"]) == 10


def test_a_loss_that_is_no_number_leaves_the_round() -> None:
    layout = layout_for(study_for("qfedavg", **MASKED))
    with pytest.raises(MaskingError, match="out-of-range"):
        layout.encode(START, START, Counted(1, 1, 1, 0.0, None, float("nan")))


@pytest.mark.parametrize("narrow", [{}, NARROW])
@pytest.mark.parametrize("loss", [1e12, 1e300, -1e300])
def test_a_sum_of_losses_that_no_word_holds_leaves_the_round(
    loss: float, narrow: dict[str, object]
) -> None:
    layout = layout_for(study_for("fedavg", **MASKED, **narrow))
    with pytest.raises(MaskingError, match="sum of its losses"):
        layout.encode(START, START, counted(1, loss))


@pytest.mark.parametrize("loss", [1e12, 1e30, -1e300])
def test_what_is_measured_and_no_word_holds_leaves_the_round(loss: float) -> None:
    study = study_for("fedavg", **MASKED)
    told = dataclasses.replace(
        counted(1), metrics=dataclasses.replace(empty_sums(study), loss=loss)
    )
    with pytest.raises(MaskingError, match="the sum loss"):
        layout_for(study).encode(START, START, told)


def test_a_divisor_that_no_word_holds_leaves_the_round() -> None:
    narrow = {"training.learning_rate": 1e-6, "federation.options.fairness": 0.1}
    layout = layout_for(study_for("qfedavg", **MASKED, **narrow))
    with pytest.raises(MaskingError, match="out-of-range"):
        layout.encode(moved(1.0), START, Counted(1, 1, 1, 0.0, None, 0.0))


def test_what_cannot_be_true_of_all_sites_is_left_out_and_their_mean_counts() -> None:
    study = study_for("fedavg", **MASKED)
    layout = layout_for(study)
    false = dataclasses.replace(empty_sums(study), examinations=-4)
    words = [
        layout.encode(moved(0.5), START, dataclasses.replace(counted(9), metrics=metrics))
        for metrics in (false, None)
    ]
    found = layout.decode(np.sum(words, axis=0, dtype="<u8"), START)
    assert torch.allclose(found.model["weight"], START["weight"] + 0.5, atol=1e-5)
    assert found.counted.metrics is None
    assert "negative" in found.counted.refused


def test_control_variates_have_a_range_of_their_own() -> None:
    layout = layout_for(study_for("scaffold", **MASKED))
    variates = {f"control/{name}": torch.full_like(START[name], 100.0) for name in NAMES}
    words = [
        layout.encode(START, START, counted(weight), {n: t * by for n, t in variates.items()})
        for by, weight in ((1.0, 100), (-2.0, 300))
    ]
    found = layout.decode(np.sum(words, axis=0, dtype="<u8"), START).auxiliary
    assert torch.allclose(found["control/weight"], torch.tensor(-125.0), atol=1e-3)
    with pytest.raises(MaskingError, match="out-of-range"):
        layout.encode(START, START, counted(1), {n: t * 11 for n, t in variates.items()})


@settings(max_examples=25, deadline=None)
@given(counts=st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=40))
def test_counts_in_narrow_words_add_up(counts: list[int]) -> None:
    layout = layout_for(study_for("fedavg", **MASKED, **NARROW))
    facts = [Counted(1, abs(count), 3, count / 2**20, None) for count in counts]
    words = [layout.encode(moved(0.5), START, one) for one in facts]
    assert words[0].dtype == np.dtype("<u4")
    found = layout.decode(np.sum(words, axis=0, dtype="<u4"), START)
    assert found.counted.weight == len(counts)
    assert found.counted.examinations == sum(map(abs, counts))
    assert found.counted.loss == sum(counts) / 2**20
    assert torch.allclose(found.model["weight"], START["weight"] + 0.5, atol=2e-6)


def test_narrow_words_are_half_the_bytes_of_a_model() -> None:
    model: Parameters = {"weight": torch.zeros(10_000)}
    study = study_for("fedavg", **MASKED, **{"federation.aggregation": "mean"})
    narrow = study_for("fedavg", **MASKED, **NARROW)
    sizes = [
        layout.configuration.length * layout.plan.grid.word_bits // 8
        for layout in (layout_for(study, model), layout_for(narrow, model))
    ]
    counts = layout_for(study, model).configuration.length - 10_000
    assert sizes == [80_000 + 8 * counts, 40_000 + 16 * counts]


NARROWEST = {
    "federation.aggregation": "mean",
    "federation.masks.word_bits": 16,
    "federation.masks.largest_change": 0.5,
    "federation.masks.most_sites": 10,
}


@settings(max_examples=25, deadline=None)
@given(counts=st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=10))
def test_counts_in_words_of_sixteen_bits_add_up(counts: list[int]) -> None:
    layout = layout_for(study_for("fedavg", **MASKED, **NARROWEST))
    facts = [Counted(1, abs(count), 3, count / 2**20, None) for count in counts]
    words = [layout.encode(moved(0.25), START, one) for one in facts]
    assert words[0].dtype == np.dtype("<u2")
    found = layout.decode(np.sum(words, axis=0, dtype="<u2"), START)
    assert found.counted.examinations == sum(map(abs, counts))
    assert found.counted.loss == sum(counts) / 2**20
    assert torch.allclose(found.model["weight"], START["weight"] + 0.25, atol=2e-4)


def test_words_of_sixteen_bits_are_right_on_average_where_the_nearest_would_lose_the_change() -> (
    None
):
    model: Parameters = {"weight": torch.zeros(20_000)}
    layout = layout_for(study_for("fedavg", **MASKED, **NARROWEST), model)
    small = layout.plan.grid.step / 5
    trained: Parameters = {"weight": torch.full((20_000,), small)}
    draw = np.random.default_rng(0)
    nearest = layout.encode(trained, model, counted(1))
    rounded = layout.encode(trained, model, counted(1), draw=draw)
    assert float(layout.decode(nearest, model).model["weight"].mean()) == 0.0
    mean = float(layout.decode(rounded, model).model["weight"].mean())
    assert mean == pytest.approx(small, rel=0.05)
    assert rounded.itemsize == 2
