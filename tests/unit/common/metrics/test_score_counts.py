"""How far off an AUROC can be, however many sites tell of however many cells."""

import tracemalloc

import numpy as np
import pytest

from wardround.common.metrics.packs.score_counts import (
    Cells,
    area_bounds,
    cells_of,
    placement_slack,
    together,
)

BINS = 1000


def sides(sites: int, bins: int, cell: int, seed: int) -> tuple[Cells, Cells]:
    drawn = np.random.default_rng(seed)
    counts = drawn.integers(0, 3, (2, sites, bins)) * cell
    ahead, behind = (together([cells_of(one, cell) for one in side]) for side in counts)
    return ahead, behind


def test_one_site_that_rounds_does_not_fill_the_servers_memory() -> None:
    """On 3cda7f4 it was sites² x bins² x 8 bytes: 20 GB of 50 sites with 1,000 bins each."""
    exact, rounded = sides(3, BINS, 1, 0), sides(1, BINS, 10, 1)
    tracemalloc.start()
    least, most = area_bounds(*(together(pair) for pair in zip(exact, rounded, strict=True)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0 <= least < most <= 1
    assert peak < 64e6


@pytest.mark.parametrize("seed", range(20))
def test_bounds_hold_whatever_the_cells_hold(seed: int) -> None:
    positives, negatives = sides(3, 12, 5, seed)
    least, most = area_bounds(positives, negatives)
    drawn = np.random.default_rng(100 + seed)
    for _ in range(200):
        true = [drawn.integers(side.least, side.most + 1) for side in (positives, negatives)]
        bins = [drawn.integers(side.low, side.high + 1) for side in (positives, negatives)]
        first, second = (np.repeat(b, n) for b, n in zip(bins, true, strict=True))
        area = np.mean(
            (first[:, None] > second[None, :]) + 0.5 * (first[:, None] == second[None, :])
        )
        assert least - 1e-9 <= area <= most + 1e-9


def test_the_slack_of_many_cells_is_that_of_each_looked_at_alone() -> None:
    own, others = sides(3, 12, 5, 7)
    widths = []
    for low, high in zip(own.low, own.high, strict=True):
        surely = others.least[others.high < low].sum()
        perhaps = others.most[others.low <= high].sum()
        overlap = others.least[others.low <= high].sum()
        lowest = surely / (surely + max(others.most.sum() - surely, 0))
        highest = perhaps / max(perhaps, perhaps + others.least.sum() - overlap)
        widths.append(min(max(highest - lowest, 0), 1))
    expected = np.sqrt((own.least * np.array(widths) ** 2).sum() / own.least.sum())
    assert placement_slack(own, others) == pytest.approx(expected)
