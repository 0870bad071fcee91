"""Shapley's rule: its axioms, and drawn orders beside all of them."""

import numpy as np
import pytest

from wardround.common.statistics.joining.shapley import exact_shares, sampled_shares

WEIGHTS = np.array([0.5, 0.3, 0.2, 0.0])


def gloves(players: frozenset[int]) -> float:
    """Player 0 has a left glove, 1 and 2 have right ones; 3 has none."""
    return float(0 in players and bool(players & {1, 2}))


def test_the_glove_game_is_shared_as_in_the_textbook() -> None:
    assert exact_shares(4, gloves).values == pytest.approx([2 / 3, 1 / 6, 1 / 6, 0])


def test_all_shares_add_up_to_what_all_made_together() -> None:
    generator = np.random.default_rng(0)
    table = {code: float(generator.standard_normal()) for code in range(2**5)}

    def value(players: frozenset[int]) -> float:
        return table[sum(1 << player for player in players)]

    assert exact_shares(5, value).values.sum() == pytest.approx(table[31] - table[0])
    sampled = sampled_shares(5, value, 20, generator)
    assert sampled.values.sum() == pytest.approx(table[31] - table[0])


def test_who_adds_a_fixed_amount_gets_it() -> None:
    shares = exact_shares(4, lambda players: float(WEIGHTS[list(players)].sum()))
    assert shares.values == pytest.approx(WEIGHTS)
    assert not shares.errors.any()


def test_drawn_orders_come_near_the_exact_shares() -> None:
    generator = np.random.default_rng(1)
    weights = generator.random(10)

    def value(players: frozenset[int]) -> float:
        return float(np.sqrt(weights[list(players)].sum()))

    exact, sampled = exact_shares(10, value), sampled_shares(10, value, 400, generator)
    assert np.abs(sampled.values - exact.values).max() < 4 * sampled.errors.max()


def test_an_order_ends_when_next_to_nothing_is_left() -> None:
    asked: list[int] = []

    def value(players: frozenset[int]) -> float:
        asked.append(len(players))
        return 1.0 if players else 0.0  # the first one makes all of it

    shares = sampled_shares(12, value, 12, np.random.default_rng(0), tolerance=1e-3)
    assert shares.values == pytest.approx(np.full(12, 1 / 12))
    assert max(asked[2:]) == 1
