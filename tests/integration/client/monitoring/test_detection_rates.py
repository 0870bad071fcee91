"""The rates at which changes of PneumoniaMNIST are seen, by fewer repeats than the benchmark's.

``python -m benchmarks.accuracy.drift`` measures them; the docs have its numbers. Opacus installs a
package that is called ``benchmarks`` too: the repository's own goes first here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wardround.client.clinic.monitoring.monitor import Rules

if TYPE_CHECKING:
    from benchmarks.accuracy.drift import Pool

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[4]
RULES = Rules(0.25 / 52, "pinned")
REPEATS = 40


@pytest.fixture(scope="module")
def pool(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Pool]":
    if not list(shared_data.rglob("pneumoniamnist*.npz")):
        pytest.skip("PneumoniaMNIST is absent")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        from benchmarks.accuracy.drift import make_pool

        yield make_pool(shared_data, tmp_path_factory.mktemp("drift"), 10)


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
    pool: "Pool", change: str, count: int, least: float
) -> None:
    from benchmarks.accuracy.drift import detect

    seeds = range(90_000, 90_000 + REPEATS)
    alarms = [detect(pool, RULES, change, count, seed) == "alarm" for seed in seeds]
    assert np.mean(alarms) >= least


def test_a_quiet_year_has_few_alarms(pool: "Pool") -> None:
    from benchmarks.accuracy.drift import quiet_year

    years = [quiet_year(pool, RULES, 25, seed) for seed in range(90_000, 90_008)]
    assert sum(years) <= 8  # two expected
