"""Numbers as whole numbers whose sum cannot overflow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.common.privacy.secure_aggregation.fixed_point import Grid
from wardround.common.privacy.secure_aggregation.refusals import MaskingError

_GRIDS = st.builds(
    Grid,
    largest=st.floats(1e-3, 1e6),
    value_bits=st.integers(4, 40),
    most_sites=st.integers(3, 1024),
)


@settings(max_examples=60, deadline=None)
@given(grid=_GRIDS, data=st.data())
def test_a_sum_of_a_whole_roster_at_the_edge_of_the_range_is_exact(
    grid: Grid, data: st.DataObject
) -> None:
    sites = data.draw(st.integers(1, grid.most_sites))
    signs = data.draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=1, max_size=3))
    words = grid.encode(np.array(signs) * grid.largest)
    total = np.zeros_like(words)
    for _ in range(min(sites, 50)):
        total += words
    rest = sites - min(sites, 50)
    total += words * words.dtype.type(rest)
    assert grid.sums_of(total).tolist() == [int(sign) * grid.top * sites for sign in signs]


@settings(max_examples=60, deadline=None)
@given(grid=_GRIDS, data=st.data())
def test_the_sum_of_coded_numbers_is_within_half_a_step_a_site(
    grid: Grid, data: st.DataObject
) -> None:
    sites = data.draw(st.integers(1, min(grid.most_sites, 12)))
    numbers = np.array(
        data.draw(st.lists(st.floats(-grid.largest, grid.largest), min_size=sites, max_size=sites))
    )
    words = grid.encode(numbers)
    total = np.zeros(1, dtype=words.dtype)
    for word in words:
        total += word
    error = abs(float(grid.decode(grid.sums_of(total))[0]) - numbers.sum())
    assert error <= sites * grid.step / 2 * (1 + 1e-6) + 1e-9 * grid.largest
    # S1, for the 24 bits that are the least where all sites weigh the same.
    if grid.value_bits >= 24:
        assert error <= sites * grid.largest / 2**23


@pytest.mark.parametrize("number", [8.0001, -9.0, np.nan, np.inf])
def test_a_number_outside_the_range_is_refused_and_not_cut(number: float) -> None:
    with pytest.raises(MaskingError, match="out-of-range"):
        Grid(8.0, 24, 100).encode(np.array([0.0, number]))


def test_a_count_outside_the_range_is_refused() -> None:
    grid = Grid(8.0, 8, 100)
    assert grid.sums_of(grid.words_of(np.array([-127, 127]))).tolist() == [-127, 127]
    with pytest.raises(MaskingError, match="out-of-range"):
        grid.words_of(np.array([128]))


def test_the_word_is_the_smallest_that_holds_every_sum() -> None:
    assert Grid(1.0, 8, 200).word_bits == 16
    assert Grid(1.0, 24, 100).word_bits == 32
    assert Grid(1.0, 24, 300).word_bits == 64
    assert Grid(1.0, 40, 1024).word_bits == 64


@pytest.mark.parametrize(
    ("largest", "bits", "sites"),
    [(0.0, 24, 3), (np.inf, 24, 3), (1.0, 3, 3), (1.0, 49, 3), (1.0, 24, 0), (1.0, 48, 2**20)],
)
def test_a_grid_that_could_overflow_is_not_made(largest: float, bits: int, sites: int) -> None:
    with pytest.raises(ValueError, match=r"cod|overflow"):
        Grid(largest, bits, sites)


def test_the_smallest_of_all_whole_numbers_is_refused_too() -> None:
    with pytest.raises(MaskingError, match="out-of-range"):
        Grid(8.0, 48, 100).words_of(np.array([np.iinfo(np.int64).min]))
