"""The paper's bounds, held against sums over the very distributions, and against dp-accounting."""

import math

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import norm

from wardround.common.privacy.accounting import Spend, epsilon_of
from wardround.common.privacy.distributed_noise.bounds import (
    ORDERS,
    NoisySum,
    distance_from_gaussian,
    gap_to_gaussian,
    paper_epsilon,
    renyi_divergence,
    rounded_sensitivity,
    sampled_divergence,
)

Chances = np.ndarray


def one_share(deviation: float) -> Chances:
    """Return the probabilities of a discrete Gaussian, from the definition; the middle is 0."""
    reach = int(30 * deviation) + 10
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * deviation**2))
    return weights / weights.sum()


def sum_of_shares(sites: int, deviation: float) -> Chances:
    total = one_share(deviation)
    for _ in range(sites - 1):
        total = np.convolve(total, one_share(deviation))
    return total


def divergence(order: float, here: Chances, there: Chances) -> float:
    held = (here > 1e-200) & (there > 1e-200)
    terms = order * np.log(here[held]) + (1 - order) * np.log(there[held])
    return float(logsumexp(terms)) / (order - 1)


def moved(chances: Chances, by: int) -> tuple[Chances, Chances]:
    return np.pad(chances, (0, by)), np.pad(chances, (by, 0))


def test_the_sensitivity_on_a_grid_is_the_papers() -> None:
    # Worked by hand: c = 10, gamma = 1/2, d = 1000, beta = e^-1/2, so sqrt(2 ln 1/beta) = 1.
    usual = 100 + 0.25 * 0.25 * 1000 + 0.5 * (10 + 0.25 * math.sqrt(1000))
    assert rounded_sensitivity(10, 0.5, 1000, math.exp(-0.5)) == pytest.approx(math.sqrt(usual))
    assert rounded_sensitivity(10, 0.5, 1000) == pytest.approx(10 + 0.5 * math.sqrt(1000))
    # A beta too small to be of use leaves the bound that needs no luck.
    assert rounded_sensitivity(10, 0.5, 4, 1e-300) == 11


@given(st.integers(0, 2**32), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_no_rounding_makes_a_vector_longer_than_the_bound(seed: int, numbers: int) -> None:
    drawn = np.random.default_rng(seed)
    vector, start = drawn.normal(size=numbers), drawn.normal(size=numbers)
    chance = drawn.random(numbers)
    step = 0.3
    changed = np.floor((start + vector) / step + chance) - np.floor(start / step + chance)
    longest = rounded_sensitivity(float(np.linalg.norm(vector)), step, numbers)
    assert np.linalg.norm(changed) * step <= longest * (1 + 1e-12)


def test_a_sum_of_shares_is_as_near_to_one_as_the_paper_says() -> None:
    assert distance_from_gaussian(1, 0.5) == 0
    assert distance_from_gaussian(2, 0.5) == pytest.approx(10 * math.exp(-(math.pi**2) / 4))
    for sites, deviation in ((2, 0.5), (2, 1.0), (4, 1.0), (10, 1.5)):
        total, whole = sum_of_shares(sites, deviation), one_share(deviation * math.sqrt(sites))
        at = np.arange(-int(4 * deviation * sites), int(4 * deviation * sites) + 1)
        ratio = np.log(total[len(total) // 2 + at] / whole[len(whole) // 2 + at])
        assert np.abs(ratio).max() <= distance_from_gaussian(sites, deviation) + 1e-9


@pytest.mark.parametrize("order", [1.5, 2, 8])
@pytest.mark.parametrize(("sites", "deviation"), [(1, 2.0), (2, 1.0), (4, 0.8), (10, 1.5)])
def test_the_divergence_is_bounded_as_proposition_14_says(
    order: float, sites: int, deviation: float
) -> None:
    for by in (1, 2):
        found = divergence(order, *moved(sum_of_shares(sites, deviation), by))
        bound = renyi_divergence(order, NoisySum(by, deviation, sites, 1))
        assert found <= bound * (1 + 1e-9)
        if sites == 1:  # of one discrete Gaussian it is exact
            assert found == pytest.approx(order * by**2 / (2 * deviation**2), rel=1e-6)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_sampling_is_bounded_both_ways_round(rate: float) -> None:
    sites, deviation = 4, 1.0
    without, with_it = moved(sum_of_shares(sites, deviation), 2)
    mixed = (1 - rate) * without + rate * with_it
    noisy = NoisySum(2, deviation, sites, 1)
    whole = [renyi_divergence(max(order, 1), noisy) for order in range(9)]
    for order in (2, 4, 8):
        bound = sampled_divergence(order, rate, whole)
        assert divergence(order, mixed, without) <= bound * (1 + 1e-9)
        assert divergence(order, without, mixed) <= bound * (1 + 1e-9)


@pytest.mark.parametrize(("rate", "steps", "sites"), [(1.0, 10, 4), (0.05, 100, 4), (0.2, 40, 7)])
def test_on_a_fine_grid_the_papers_epsilon_is_the_renyi_accountants(
    rate: float, steps: int, sites: int
) -> None:
    noise = 2.0
    noisy = NoisySum(2.0**30 * math.sqrt(sites) / noise, 2.0**30, sites, 10**6)
    accountant = dp.rdp.RdpAccountant(list(ORDERS))
    event = dp.GaussianDpEvent(noise)
    accountant.compose(event if rate == 1 else dp.PoissonSampledDpEvent(rate, event), steps)
    found = paper_epsilon(noisy, steps, rate, 1e-5)
    assert found == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)
    assert epsilon_of([Spend(rate, noise, steps)], 1e-5) <= found


def test_a_coarse_grid_and_few_shares_cost_more() -> None:
    fine = paper_epsilon(NoisySum(4.0, 8.0, 4, 1000), 1, 1.0, 1e-5)
    coarse = paper_epsilon(NoisySum(0.25, 0.5, 4, 1000), 1, 1.0, 1e-5)
    assert coarse > 1.5 * fine


def test_one_number_of_the_discrete_noise_costs_what_normal_noise_costs() -> None:
    for deviation in (20.0, 100.0):
        alone = pld.from_discrete_gaussian_mechanism(deviation, sensitivity=int(deviation))
        assert alone.get_epsilon_for_delta(1e-5) == pytest.approx(
            epsilon_of([Spend(1.0, 1.0, 1)], 1e-5), abs=2e-3
        )


@pytest.mark.parametrize("deviation", [9.0, 30.0])
def test_the_gap_to_rounded_normal_noise_holds_for_every_number(deviation: float) -> None:
    chances, reach = one_share(deviation), int(30 * deviation) + 10
    for numbers, chance in ((1, 1e-6), (1, 1e-12)):
        gap = gap_to_gaussian(numbers, deviation, chance)
        at = np.arange(-reach, reach + 1)
        likely = at[np.abs(at) <= deviation * (1 + math.sqrt(2 * math.log(1 / chance)))]
        cells = norm.cdf((likely + 0.5) / deviation) - norm.cdf((likely - 0.5) / deviation)
        known = cells > 1e-14  # further out a difference of two of scipy's has no digits left
        ratio = np.log(chances[likely + reach][known] / cells[known])
        assert np.abs(ratio).max() <= gap
