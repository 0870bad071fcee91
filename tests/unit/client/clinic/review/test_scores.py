"""How unsure models are: hand-worked values, and refusals of what ranks nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.client.clinic.review.scores import (
    check_probabilities,
    check_scores,
    disjointness,
    entropy,
    mean_dice,
    mutual_information,
)
from wardround.client.clinic.review.selection import SHORTLIST, by_lot, by_score, spread_out
from wardround.common.errors import InputError

KEY = b"k" * 32


def test_entropy_is_0_where_one_class_is_certain_and_1_where_all_are_alike() -> None:
    members = np.array([[[1.0, 0.0], [0.5, 0.5]]])
    assert np.allclose(entropy(members), [0.0, 1.0])
    assert np.allclose(entropy(np.array([[[0.5, 1.0, 0.0]]]), multi_label=True), [1 / 3])


def test_members_that_contradict_each_other_differ_wholly_and_alike_ones_not_at_all() -> None:
    members = np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])
    assert np.allclose(mutual_information(members), [1.0, 0.0])


@given(st.lists(st.floats(0.01, 0.99), min_size=4, max_size=4))
def test_disagreement_is_never_more_than_the_entropy(values: list[float]) -> None:
    members = np.array([[[p, 1 - p] for p in values[:2]], [[p, 1 - p] for p in values[2:]]])
    found = mutual_information(members)
    assert (found >= 0).all()
    assert (found <= entropy(members) + 1e-12).all()


def test_two_empty_masks_agree_and_two_apart_do_not() -> None:
    empty, one = np.zeros((4, 4), int), np.eye(4, dtype=int)
    assert mean_dice(empty, empty) == 1
    assert disjointness([one, one]) == 0
    assert disjointness([one, empty]) == 1


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([[np.nan, 0.5]], "no number for 1 of 1"),
        ([[3.0, -2.0]], "no probability"),
        ([[0.2, 0.2]], "no probability"),
    ],
)
def test_what_is_no_probability_is_refused(values: list[list[float]], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_probabilities(np.array([values]))


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [([0.3, 0.3, 0.3], "as unsure of each of the 3 cases"), ([0.3, np.nan], "no numbers")],
)
def test_scores_that_rank_nothing_are_refused(scores: list[float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_scores(np.array(scores))


def test_ties_go_by_a_hash_of_the_id_and_not_by_the_order_of_rows() -> None:
    ids = [f"case {n}" for n in range(20)]
    scores = np.array([0.5] * 19 + [0.9])
    order = [ids[at] for at in by_score(scores, ids, KEY)]
    turned = ids[::-1]
    again = [turned[at] for at in by_score(scores[::-1], turned, KEY)]
    assert order == again
    assert order[0] == "case 19"
    assert order != [ids[19], *ids[:19]]


def test_another_word_draws_others() -> None:
    ids = [f"case {n}" for n in range(50)]
    assert by_lot(ids, KEY, "a") == by_lot(ids, KEY, "a")
    assert by_lot(ids, KEY, "a") != by_lot(ids, KEY, "b")
    assert sorted(by_lot(ids, KEY, "a")) == list(range(50))


def test_cases_that_look_alike_are_not_all_chosen() -> None:
    features = np.array([[0.0, 0.0]] * 5 + [[9.0, 0.0], [0.0, 9.0]])
    chosen = spread_out(features, list(range(7)), 3)
    assert chosen[0] == 0
    assert set(chosen) == {0, 5, 6}
    assert len(spread_out(features, list(range(7)), 7)) == 7
    far_down = np.array([[float(n), 0.0] for n in range(20)])
    assert max(spread_out(far_down, list(range(20)), 2)) < SHORTLIST * 2
