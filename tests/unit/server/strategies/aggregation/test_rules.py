"""The rules that combine updates, beside definitions written out by hand, SciPy and properties."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, stats

from wardround.common.errors import RunError, StudyError
from wardround.common.messages.replies import SiteUpdate
from wardround.common.parameters.schema import Parameters
from wardround.server.strategies.aggregation.coordinate_median import weighted_median
from wardround.server.strategies.aggregation.neighbour_mixing import (
    neighbour_mixing,
    relative_distances,
)
from wardround.server.strategies.aggregation.registry import (
    AGGREGATION_RULES,
    MINIMUMS,
    AggregationOptions,
    make_aggregation,
)
from wardround.server.strategies.aggregation.site_weights import capped_weights, outvoted_weights

Vectors = NDArray[np.float64]
ROBUST = tuple(MINIMUMS)
UNCAPPED = AggregationOptions(assumed_hostile=2, weight_cap=None)
SITES = 11


def combined(
    name: str,
    models: Vectors,
    examinations: Sequence[int] | None = None,
    options: AggregationOptions = UNCAPPED,
    start: Vectors | None = None,
) -> Vectors:
    """Combine rows of float64 models; each is one tensor."""
    previous = {"w": torch.from_numpy(np.zeros(models.shape[1]) if start is None else start)}
    rule = make_aggregation(name, options, previous)
    for row, count in zip(models, examinations or [1] * len(models), strict=True):
        rule.accumulate(site_update({"w": torch.from_numpy(row.copy())}, count))
    result: Vectors = rule.finish()["w"].numpy()
    return result


def site_update(parameters: Parameters, examinations: int = 1) -> SiteUpdate:
    return SiteUpdate("site", "digest", 1, 0, parameters, examinations, 1, 0.0, 0.0)


def drawn(seed: int, rows: int = SITES, columns: int = 7) -> Vectors:
    return np.random.default_rng(seed).normal(size=(rows, columns))


# --- golden values -------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [5, 8, 11])
def test_the_median_with_equal_weights_is_numpys(rows: int) -> None:
    models = drawn(1, rows)
    assert combined("coordinate-median", models) == pytest.approx(np.median(models, axis=0))


def test_the_weighted_median_is_the_median_of_repeated_rows() -> None:
    models, counts = drawn(2, 5), [1, 2, 2, 3, 1]
    repeated = np.repeat(models, counts, axis=0)
    options = AggregationOptions(assumed_hostile=0, weight_cap=None)
    found = combined("coordinate-median", models, counts, options)
    assert found == pytest.approx(np.median(repeated, axis=0))


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 9)), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_the_weighted_median_of_integers_is_numpys_of_repeats(
    pairs: list[tuple[int, int]],
) -> None:
    values, counts = np.array([v for v, _ in pairs], float), [c for _, c in pairs]
    found = weighted_median(torch.from_numpy(values[:, None]), torch.tensor(counts).double())
    assert float(found) == np.median(np.repeat(values, counts))


def test_the_trimmed_mean_with_equal_weights_is_scipys() -> None:
    models = drawn(3)
    expected = stats.trim_mean(models, 2 / SITES, axis=0)
    assert combined("trimmed-mean", models) == pytest.approx(expected)


def test_the_weighted_trimmed_mean_by_hand() -> None:
    # Sorted: -9 (9 examinations), 1 (1), 2 (3), 4 (4), 80 (1). Without the ends: (1 + 6 + 16) / 8.
    models = np.array([[2.0], [80.0], [-9.0], [4.0], [1.0]])
    options = AggregationOptions(assumed_hostile=1, weight_cap=None)
    assert combined("trimmed-mean", models, [3, 1, 9, 4, 1], options) == pytest.approx([23 / 8])


def krum_order(models: Vectors, hostile: int, neighbours: int | None = None) -> list[int]:
    """Blanchard et al. 2017, section 4, word by word."""
    n = len(models)
    count = n - hostile - 2 if neighbours is None else neighbours
    scores = []
    for i in range(n):
        others = sorted(float(np.sum((models[i] - models[j]) ** 2)) for j in range(n) if j != i)
        scores.append(sum(others[:count]))
    return sorted(range(n), key=lambda i: scores[i])


def test_krum_is_the_papers_definition() -> None:
    models = drawn(4)
    assert combined("krum", models) == pytest.approx(models[krum_order(models, 2)[0]])


def test_multi_krum_is_the_weighted_mean_of_the_best() -> None:
    models, counts = drawn(5), list(range(1, SITES + 1))
    best = krum_order(models, 2)[: SITES - 2 - 2]
    expected = np.average(models[best], axis=0, weights=[counts[i] for i in best])
    assert combined("multi-krum", models, counts) == pytest.approx(expected)


def test_bulyan_is_the_papers_definition() -> None:
    models, hostile = drawn(6), 2
    left, chosen = list(range(SITES)), []
    for _ in range(SITES - 2 * hostile):
        among = models[left]
        ranked = krum_order(among, hostile, max(1, len(left) - hostile - 2))
        best = left[ranked[0]]
        if len(left) - hostile - 2 <= 1:  # the best two are each other's nearest: a tie
            far = [np.linalg.norm(among - among[i], axis=1).sum() for i in ranked[:2]]
            best = left[ranked[int(np.argmin(far))]]
        chosen.append(best)
        left.remove(best)
    expected = []
    for column in models[chosen].T:
        nearest = sorted(column, key=lambda value: abs(value - np.median(column)))
        expected.append(np.mean(nearest[: len(chosen) - 2 * hostile]))
    assert combined("bulyan", models) == pytest.approx(np.array(expected))


def test_the_geometric_median_is_scipys_minimum() -> None:
    models, counts = drawn(7), [3, 1, 4, 1, 5, 2, 2, 3, 1, 4, 2]

    def total(point: Vectors) -> float:
        return float(np.dot(counts, np.linalg.norm(models - point, axis=1)))

    expected = optimize.minimize(total, np.zeros(7), method="BFGS", options={"gtol": 1e-9}).x
    assert combined("geometric-median", models, counts) == pytest.approx(expected, abs=1e-4)


def test_a_norm_bounded_mean_by_hand() -> None:
    # Lengths 5 and 1 with the bound 1: the first becomes (0.6, 0.8), the second stays.
    models = np.array([[3.0, 4.0], [0.0, 1.0]])
    options = AggregationOptions(assumed_hostile=0, norm_bound=1.0)
    expected = (np.array([0.6, 0.8]) * 3 + np.array([0.0, 1.0])) / 4
    assert combined("norm-bounded-mean", models, [3, 1], options) == pytest.approx(expected)
    away = np.array([10.0, -10.0])
    moved = combined("norm-bounded-mean", models + away, [3, 1], options, away)
    assert moved == pytest.approx(expected + away)


def test_a_norm_bounded_mean_without_a_bound_takes_the_median_norm() -> None:
    models = np.array([[1.0, 0.0], [0.0, 2.0], [-90.0, 0.0]])
    options = AggregationOptions(assumed_hostile=1)
    found = combined("norm-bounded-mean", models, options=options)
    assert found == pytest.approx([(1 + 0 - 2) / 3, 2 / 3])


def test_centred_clipping_by_hand() -> None:
    # One dimension, radius 1, models 0, 0 and 9. The centre moves by 1/3, then by
    # (-1/3 - 1/3 + 1) / 3 = 1/9, then by (-4/9 - 4/9 + 1) / 3 = 1/27.
    options = AggregationOptions(assumed_hostile=1, norm_bound=1.0)
    found = combined("centred-clipping", np.array([[0.0], [0.0], [9.0]]), options=options)
    assert found == pytest.approx([1 / 3 + 1 / 9 + 1 / 27])


def test_mixing_averages_the_nearest_neighbours() -> None:
    models, hostile = drawn(8), 2
    mixed = []
    for row in models:
        lengths = np.linalg.norm(models, axis=1)
        lengths = np.maximum(lengths, np.median(lengths) / 2)
        near = np.argsort(((models - row) ** 2).sum(axis=1) / lengths)[: SITES - hostile]
        mixed.append(models[near].mean(axis=0))
    found = neighbour_mixing(torch.from_numpy(models), torch.ones(SITES), hostile)
    assert found.numpy() @ models == pytest.approx(np.stack(mixed))
    expected = stats.trim_mean(np.stack(mixed), hostile / SITES, axis=0)
    assert combined("nnm-trimmed-mean", models) == pytest.approx(expected)


def test_how_far_updates_are_by_hand() -> None:
    # Lengths 1, 4, 0 and 2; their (lower) median is 1, so the third counts as 1/2 long.
    updates = torch.tensor([[1.0, 0.0], [0.0, 4.0], [0.0, 0.0], [2.0, 0.0]])
    assert relative_distances(updates)[0].tolist() == pytest.approx([0, 17 / 4, 1 / 0.5, 1 / 2])


def test_a_short_step_backwards_is_nobodys_neighbour() -> None:
    # Honest updates share a little and differ much: a step back of 0.8 times their mean is nearer
    # to each, in plain distance, than they are to each other.
    honest = np.eye(9) + 0.05
    backwards = np.tile(-0.8 * honest.mean(axis=0), (2, 1))
    models = np.concatenate([backwards, honest])
    plain = np.linalg.norm(models[2:, None] - models, axis=2)
    assert (plain[:, :2].max() < plain[:, 2:][plain[:, 2:] > 0]).all()
    mixing = neighbour_mixing(torch.from_numpy(models), torch.ones(SITES), 2)
    assert not mixing[2:, :2].any()
    assert combined("nnm-trimmed-mean", models) == pytest.approx(honest.mean(axis=0))


@given(seed=st.integers(0, 10_000), size=st.floats(20, 1e30))
@settings(max_examples=20, deadline=None)
def test_a_silent_site_leaves_no_room_for_a_huge_update(seed: int, size: float) -> None:
    models = 1 + 0.5 * drawn(seed, columns=50)
    models[:2] *= size
    models[2] = 0
    mixing = neighbour_mixing(torch.from_numpy(models), torch.ones(SITES), 2)
    assert not mixing[2:, :2].any()


# --- properties ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGGREGATION_RULES)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_the_order_of_the_sites_does_not_matter(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    models, counts = drawn(seed), rng.integers(1, 200, SITES)
    instruction = rng.permutation(SITES)
    found = combined(name, models[instruction], counts[instruction].tolist())
    assert found == pytest.approx(combined(name, models, counts.tolist()), abs=1e-5)


@pytest.mark.parametrize("name", AGGREGATION_RULES)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_a_rule_moves_with_its_updates(name: str, seed: int) -> None:
    models, shift = drawn(seed), 10 * drawn(seed + 1)[0]
    moved = combined(name, models + shift, start=shift)
    assert moved == pytest.approx(combined(name, models) + shift, abs=1e-6)


@pytest.mark.parametrize("name", AGGREGATION_RULES)
def test_equal_updates_give_that_update(name: str) -> None:
    models = np.repeat(drawn(9)[:1], SITES, axis=0)
    assert combined(name, models, list(range(1, SITES + 1))) == pytest.approx(models[0])


@pytest.mark.parametrize("name", ["coordinate-median", "trimmed-mean"])
@given(
    seed=st.integers(0, 10_000),
    size=st.floats(-1e30, 1e30, allow_nan=False),
    claim=st.integers(1, 10**9),
)
@settings(max_examples=40, deadline=None)
def test_hostile_updates_cannot_leave_the_honest_range(
    name: str, seed: int, size: float, claim: int
) -> None:
    models = drawn(seed)
    honest = models[2:]
    models[:2] = size * drawn(seed + 1)[:2]
    found = combined(name, models, [claim, claim, *range(1, SITES - 1)])
    slack = 1e-9
    assert (found >= honest.min(axis=0) - slack).all()
    assert (found <= honest.max(axis=0) + slack).all()


@pytest.mark.parametrize("name", [n for n in ROBUST if n != "norm-bounded-mean"])
@pytest.mark.parametrize("size", [1e3, 1e30])
def test_two_hostile_sites_of_eleven_barely_move_a_robust_rule(name: str, size: float) -> None:
    models = 1 + 0.1 * drawn(10, columns=50)
    models[:2] = -size
    options = AggregationOptions(assumed_hostile=2)
    counts = [10**6, 10**6, *[100] * (SITES - 2)]
    moved = np.linalg.norm(combined(name, models, counts, options) - models[2:].mean(axis=0))
    assert moved < 0.35 * np.linalg.norm(models[2:].mean(axis=0))
    if size < 1e9:
        assert np.linalg.norm(combined("weighted-mean", models, counts)) > 100 * moved


def test_float32_survives_updates_near_its_greatest_value() -> None:
    previous = {"w": torch.zeros(4)}
    for name in ROBUST:
        rule = AGGREGATION_RULES[name](AggregationOptions(assumed_hostile=2), previous)
        for site in range(SITES):
            value = 3e38 if site < 2 else 1.0
            rule.accumulate(site_update({"w": torch.full((4,), value)}))
        assert torch.isfinite(rule.finish()["w"]).all(), name


# --- weights -------------------------------------------------------------------------------------


def test_a_claim_counts_for_no_more_than_twice_the_median_site() -> None:
    shares = capped_weights(torch.tensor([100, 100, 100, 50, 10**9]), 2.0)
    assert shares.tolist() == pytest.approx([100 / 550, 100 / 550, 100 / 550, 50 / 550, 200 / 550])
    uncapped = capped_weights(torch.tensor([1, 3]), None)
    assert uncapped.tolist() == pytest.approx([0.25, 0.75])


def test_the_heaviest_sites_never_hold_half_of_a_vote() -> None:
    shares = outvoted_weights(torch.tensor([90.0, 5.0, 3.0, 2.0]), 1)
    assert shares.tolist() == pytest.approx([5 / 15, 5 / 15, 3 / 15, 2 / 15])
    fair = torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64)
    assert outvoted_weights(fair, 1).tolist() == pytest.approx(fair.tolist())


def test_a_site_that_counts_nothing_is_refused() -> None:
    rule = make_aggregation("krum", UNCAPPED, {"w": torch.zeros(1)})
    with pytest.raises(RunError, match="counts 0 examinations"):
        rule.accumulate(site_update({"w": torch.ones(1)}, 0))


# --- what a model holds --------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGGREGATION_RULES)
def test_names_shapes_and_types_stay(name: str) -> None:
    previous = {
        "a.weight": torch.zeros(2, 3, dtype=torch.float16),
        "a.count": torch.tensor(4),
        "b.bias": torch.zeros(2),
        "scalar": torch.tensor(1.0),
    }
    rule = make_aggregation(name, AggregationOptions(assumed_hostile=1), previous)
    for site in range(SITES):
        rule.accumulate(
            site_update({n: (t + 1).to(t.dtype) for n, t in previous.items()}, site + 1)
        )
    model = rule.finish()
    assert list(model) == list(previous)
    for key, tensor in previous.items():
        assert (model[key].shape, model[key].dtype) == (tensor.shape, tensor.dtype)
        torch.testing.assert_close(model[key], (tensor + 1).to(tensor.dtype))


def test_one_site_cannot_set_an_integer_buffer() -> None:
    rule = make_aggregation("trimmed-mean", AggregationOptions(), {"count": torch.tensor(0)})
    for value in (7, 7, 8, 2**60):
        rule.accumulate(site_update({"count": torch.tensor(value)}, 10))
    assert int(rule.finish()["count"]) in (7, 8)


def test_rules_that_need_all_updates_say_so() -> None:
    bounded = AggregationOptions(norm_bound=1.0)
    streaming = {n for n, make in AGGREGATION_RULES.items() if make(bounded, {}).streams}
    assert streaming == {"weighted-mean", "norm-bounded-mean"}


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "needed"),
    [("krum", 7), ("multi-krum", 7), ("bulyan", 11), ("trimmed-mean", 5), ("nnm-trimmed-mean", 5)],
)
def test_too_few_sites_are_refused(name: str, needed: int) -> None:
    models = drawn(11)
    combined(name, models[:needed])
    with pytest.raises(RunError, match=f"{name} needs {needed} sites to withstand 2 hostile"):
        combined(name, models[: needed - 1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", [UNCAPPED, AggregationOptions(norm_bound=1.0)])
def test_an_update_that_is_not_finite_is_refused(value: float, options: AggregationOptions) -> None:
    rule = make_aggregation("norm-bounded-mean", options, {"w": torch.zeros(2)})
    with pytest.raises(RunError, match="not finite"):
        rule.accumulate(site_update({"w": torch.tensor([0.0, value])}))


def test_an_unknown_rule_lists_the_known() -> None:
    with pytest.raises(StudyError, match="Did you mean 'krum'"):
        make_aggregation("crum", UNCAPPED, {})


@pytest.mark.parametrize(
    "options", [{"assumed_hostile": -1}, {"norm_bound": 0.0}, {"weight_cap": 0.5}]
)
def test_an_option_out_of_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(StudyError, match=f"federation.{next(iter(options))} is"):
        AggregationOptions(**options)  # type: ignore[arg-type] # the point of the test
