"""A site's share of the noise: whole numbers on the grid, bounded by what is said of a unit."""

import math

import numpy as np
import pytest
import torch

from wardround.client.privacy.distributed import ShareAdder, clipped_change
from wardround.common.privacy.distributed_noise.discrete_gaussian import discrete_gaussian
from wardround.common.privacy.secure_aggregation.fixed_point import MOST_VALUE_BITS, Grid
from wardround.common.privacy.secure_random import Randomness
from wardround.common.study.plans.distributed_noise import SHARE, SHARE_BITS, NoiseShares

SHARES = NoiseShares("patient", 1.0, 16, 1.3, 10, 7, 3, 0.2, 40, 1e-5)
GRID = Grid(SHARES.largest, MOST_VALUE_BITS, 100)


def adder(*names: str, number: int = 1) -> ShareAdder:
    return ShareAdder(frozenset(names), GRID, Randomness(number.to_bytes(32, "big")))


def test_the_shares_of_the_honest_sites_are_the_noise_that_is_promised() -> None:
    deviation = SHARE * math.sqrt(SHARES.honest)
    longest = SHARES.clip_norm / SHARES.divisor / GRID.step + 2 * math.sqrt(2**28)
    assert deviation / longest == pytest.approx(SHARES.noise_multiplier, rel=1e-9)
    assert GRID.step == pytest.approx(SHARES.step, rel=1e-12)


def test_no_patient_moves_the_whole_numbers_by_more_than_the_clip_norm_and_the_slack() -> None:
    drawn = np.random.default_rng(0)
    without = drawn.normal(size=400) * 0.1
    patient = drawn.normal(size=400)
    patient /= np.linalg.norm(patient) * SHARES.divisor / SHARES.clip_norm
    first, second = (adder("w").rounded(part) for part in (without, without + patient))
    assert np.linalg.norm(first - second) <= SHARES.clip_units + 2 * math.sqrt(400)


def test_a_share_has_the_standard_deviation_of_the_grid() -> None:
    words = adder("w")("w", np.zeros(40_000))
    assert words.std() / SHARE == pytest.approx(1, abs=0.015)
    assert abs(words.mean()) / SHARE < 0.02


def test_what_is_not_trained_has_no_noise_and_does_not_change() -> None:
    assert not adder("w")("frozen", np.ones(5)).any()


def test_what_is_no_number_or_far_away_is_cut_and_never_refused() -> None:
    wild = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0])
    coded = adder("w")("w", wild)
    assert np.abs(coded).max() <= GRID.top
    assert np.abs(coded[[0, 1, 2, 5]]).max() < 20 * SHARE
    assert coded[3] > GRID.top // 4
    assert coded[4] < -GRID.top // 4


def test_two_sites_never_add_the_same_share() -> None:
    one, other = (ShareAdder(frozenset("w"), GRID)("w", np.zeros(30)) for _ in range(2))
    assert len(np.intersect1d(one, other)) == 0


def test_a_sites_change_is_shortened_and_one_that_is_no_number_is_none() -> None:
    start = {"w": torch.zeros(3), "frozen": torch.ones(1)}
    trained = {"w": torch.tensor([3.0, 0.0, 4.0]), "frozen": torch.ones(1)}
    names = frozenset({"w"})
    moved = clipped_change(trained, start, names, 1.0)
    assert float(moved["w"].norm()) == pytest.approx(1.0)
    assert torch.equal(clipped_change(trained, start, names, 9.0)["w"], trained["w"].double())
    broken = {**trained, "w": torch.tensor([float("nan"), 0.0, 1.0])}
    assert torch.equal(clipped_change(broken, start, names, 1.0)["w"], start["w"])


def test_the_noise_of_a_share_is_the_samplers() -> None:
    drawn = discrete_gaussian(5, SHARE_BITS, Randomness(bytes(32)))
    assert drawn.dtype == np.int64
