"""The rates at which changes of PneumoniaMNIST are seen, held by fewer repeats than the benchmark's.

``python -m benchmarks.accuracy.drift`` measures them; the docs have its numbers.
"""

from pathlib import Path

import numpy as np
import pytest
from benchmarks.accuracy.drift import WEEKS, Pool, detect, make_pool, quiet_year

from wardround.client.clinic.monitoring.monitor import Rules

pytestmark = pytest.mark.long
RULES = Rules(0.25 / WEEKS, "pinned")
REPEATS = 40


@pytest.fixture(scope="module")
def pool(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    if not list(shared_data.rglob("pneumoniamnist*.npz")):
        pytest.skip("PneumoniaMNIST is absent")
    return make_pool(shared_data, tmp_path_factory.mktemp("drift"), 10)


@pytest.mark.parametrize(
    ("change", "count", "least"),
    [
        ("brightness x 0.9", 25, 0.95),
        ("noise 0.02", 25, 0.95),
        ("gamma 1.2", 50, 0.75),  # 90 % expected: 30 of 40 are three standard deviations below
        ("prevalence 0.74 to 0.50", 100, 0.63),
    ],
)
def test_a_change_is_seen_as_often_as_the_page_says(
    pool: Pool, change: str, count: int, least: float
) -> None:
    seeds = range(90_000, 90_000 + REPEATS)
    alarms = [detect(pool, RULES, change, count, seed) == "alarm" for seed in seeds]
    assert np.mean(alarms) >= least


def test_a_quiet_year_has_few_alarms(pool: Pool) -> None:
    years = [quiet_year(pool, RULES, 25, seed) for seed in range(90_000, 90_008)]
    assert sum(years) <= 8  # two expected
