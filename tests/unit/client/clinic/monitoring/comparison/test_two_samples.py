import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from wardround.client.clinic.monitoring.comparison.two_samples import (
    ks_p_values,
    mean_p_value,
    rates_p_value,
)


def drawn(seed: int, count: int, columns: int = 3, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (count, columns))


def test_ks_is_scipy_s_where_it_matters_and_never_below_it() -> None:
    reference = drawn(0, 80)
    for shift in (0.0, 0.4, 1.0):
        sample = drawn(1, 25, shift=shift)
        exact = [ks_2samp(reference[:, c], sample[:, c]).pvalue for c in range(3)]
        for ours, theirs in zip(ks_p_values(reference, sample), exact, strict=True):
            assert ours == pytest.approx(theirs) or ours >= theirs > 0.05


def test_unknown_values_are_left_out_and_too_few_tell_nothing() -> None:
    reference, sample = drawn(0, 80, 2), drawn(1, 25, 2, shift=3)
    sample[4:, 1] = np.nan
    first, second = ks_p_values(reference, sample)
    assert first < 1e-6
    assert second == 1.0


@given(
    st.lists(st.integers(0, 30), min_size=2, max_size=4),
    st.integers(0, 2**32),
)
@settings(max_examples=30, deadline=None)
def test_rates_of_any_table_have_a_p_value(counts: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    assert 0 < rates_p_value(counts, counts[::-1], 200, generator) <= 1
    if sum(counts):
        assert rates_p_value(counts, counts, 200, generator) == 1


def test_a_rare_class_is_judged_by_tables_of_the_same_sums() -> None:
    generator = np.random.default_rng(0)
    p = rates_p_value((200, 0), (97, 3), 20_000, generator)
    assert p == pytest.approx(0.0363, abs=0.004)  # hypergeometric: C(100,3) / C(300,3)


def test_means_are_compared_by_permutation() -> None:
    before, after = drawn(0, 60, 1)[:, 0], drawn(1, 30, 1, shift=1.2)[:, 0]
    assert mean_p_value(before, after, 999, np.random.default_rng(0)) == pytest.approx(0.001)
    assert mean_p_value(before[:4], after, 999, np.random.default_rng(0)) == 1.0
