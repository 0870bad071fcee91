"""Groups of patients: what is shown of them, and that nothing else follows from it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.simulations.evidence.subgroups import (
    FEWEST_PATIENTS,
    comparisons,
    find_groups,
    hidden_groups,
    worst_of,
)
from wardround.simulations.run_files.predictions import Masks, Scores

COUNTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.integers(0, 60), max_size=8)


@given(COUNTS)
def test_no_sum_of_what_is_shown_tells_of_a_group_that_is_too_small(counts: dict[str, int]) -> None:
    """Whoever knows the total and every shown group can take any of them off, and no more."""
    held = {name: count for name, count in counts.items() if count}
    hidden = hidden_groups(counts)
    assert hidden <= held.keys()
    assert {name for name, count in held.items() if count < FEWEST_PATIENTS} <= hidden
    shown = sorted(held.keys() - hidden)
    for size in range(len(shown) + 1):
        for taken in itertools.combinations(shown, size):
            left = held.keys() - set(taken)
            patients = sum(held[name] for name in left)
            # What is left is nobody, or as large as a group that may be shown, and not one of those
            # that may not.
            assert not left or patients >= FEWEST_PATIENTS or not shown
            assert len(left) != 1 or left.isdisjoint(hidden) or not shown


def test_nothing_is_hidden_where_every_group_is_large_enough() -> None:
    assert hidden_groups({"a": 10, "b": 400}) == frozenset()


def test_a_single_small_group_takes_the_smallest_other_with_it() -> None:
    assert hidden_groups({"a": 3, "b": 50, "c": 12}) == {"a", "c"}


def answers(right: np.ndarray, patients: np.ndarray | None = None) -> Scores:
    """Return scores of two classes whose answers are right where asked."""
    labels = np.arange(len(right)) % 2 == 1
    second = np.where(right == labels, 0.9, 0.1)
    rows = np.arange(len(right))
    return Scores(
        rows,
        rows if patients is None else patients,
        np.stack([1 - second, second], axis=1),
        np.stack([~labels, labels], axis=1),
    )


def test_a_group_that_is_served_worse_is_found_with_its_interval() -> None:
    generator = np.random.default_rng(1)
    groups = np.repeat(["old", "young"], 300)
    right = generator.random(600) < np.where(groups == "old", 0.7, 0.95)
    found = find_groups("accuracy", answers(right), {"age": list(groups)})
    worst = worst_of(found)
    assert worst is not None
    assert (worst.grouping, worst.group) == ("age", "old")
    assert worst.is_certain
    assert worst.gap is not None
    assert worst.value is not None
    assert worst.gap.low < 0.25 < worst.gap.high
    assert worst.value.value == pytest.approx(right[:300].mean())
    assert worst.patients == 300


def test_of_two_groups_one_gap_is_counted_once() -> None:
    right = np.arange(80) % 10 > 1
    groups = {"sex": ["f"] * 40 + ["m"] * 40, "ward": (["a"] * 20 + ["b"] * 20) * 2}
    found = find_groups("accuracy", answers(right), groups)
    assert len(found) == 4
    assert set(comparisons(found)) == {("sex",), ("ward",)}
    assert len({one.p for one in found if one.grouping == "sex"}) == 1


def test_equal_groups_are_seldom_called_unequal() -> None:
    """5 groupings of 3 groups that mean nothing: a certain gap in about 5 % of 60 draws."""
    generator = np.random.default_rng(2)
    alarms = 0
    for _ in range(60):
        right = generator.random(240) < 0.85
        groups = {str(n): generator.choice(["a", "b", "c"], 240).tolist() for n in range(5)}
        found = find_groups("accuracy", answers(right), groups)
        alarms += any(one.is_certain for one in found)
    assert alarms <= 8


def test_ten_images_of_a_patient_do_not_make_a_group_of_ten() -> None:
    patients = np.concatenate([np.zeros(30, dtype=int), np.arange(1, 41)])
    groups = ["few"] * 30 + ["many"] * 40
    found = find_groups("accuracy", answers(np.ones(70, dtype=bool), patients), {"g": groups})
    # The one group that would be left says what the other is.
    assert [(one.value, one.gap, one.patients) for one in found] == [(None, None, 0)] * 2


def test_a_missing_value_is_a_group_and_rare_groups_are_taken_together() -> None:
    groups = [f"word {number}" for number in range(40)] * 2 + ["missing"] * 40 + ["usual"] * 40
    found = find_groups("accuracy", answers(np.ones(160, dtype=bool)), {"g": groups})
    shown = {one.group: one.patients for one in found}
    assert shown["missing"] == shown["usual"] == 40
    assert len(shown) <= 12


def test_a_gap_of_hd95_is_worse_where_the_distance_is_larger() -> None:
    generator = np.random.default_rng(3)
    distance = np.concatenate([generator.normal(9, 1, 40), generator.normal(3, 1, 40)])[:, None]
    blank = np.full((80, 1), 0.5)
    masks = Masks(np.arange(80), np.arange(80), blank, distance, *[blank] * 6)
    worst = worst_of(find_groups("hd95", masks, {"g": ["far"] * 40 + ["near"] * 40}))
    assert worst is not None
    assert worst.group == "far"
    assert worst.is_certain


def test_a_class_that_a_group_lacks_has_no_value_and_no_gap() -> None:
    scores = np.linspace(0, 1, 40)
    labels = np.arange(40) >= 20
    one = Scores(
        np.arange(40),
        np.arange(40),
        np.stack([1 - scores, scores], axis=1),
        np.stack([~labels, labels], axis=1),
    )
    found = find_groups("auroc", one, {"g": ["ill" if ill else "well" for ill in labels]})
    assert all(f.gap is None and f.value is not None and math.isnan(f.value.value) for f in found)
    assert worst_of(found) is None
