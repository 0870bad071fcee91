"""Whether two samples are of one kind: KS a number, rates of classes, means.

The p-values of means and of rare classes are those of permutations: right for any size of a sample,
whatever the distribution is.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import kolmogorov
from scipy.stats import chi2_contingency, ks_2samp

Floats = NDArray[np.float64]
_FEW = 5  # values of a sample of which nothing can be told; expected counts below it need draws
_SCREEN = 200  # permutations before the others: most samples are not unlike at all
_ENOUGH = 12  # of those as far apart: more permutations would change nothing
_BLOCK = 2_000
_UNSURE = 0.2  # the limit distribution errs towards large p-values: below it the exact one is asked
_MOST_ROWS = 1_000  # of a sample: the kernel of more is no sharper, and slow


def ks_p_values(reference: Floats, sample: Floats) -> Floats:
    """Return the p-value of each column (Kolmogorov and Smirnov), 1 where too few are known.

    A large one is that of the limit distribution, a small one is exact.

    Args:
        reference: ``(n, F)``; NaN for what is not known.
        sample: ``(m, F)``.
    """
    found = np.ones(reference.shape[1])
    for column in range(reference.shape[1]):
        first, second = (np.sort(rows[:, column]) for rows in (reference, sample))
        first, second = first[np.isfinite(first)], second[np.isfinite(second)]
        n, m = len(first), len(second)
        if min(n, m) < _FEW:
            continue
        both = np.concatenate([first, second])
        apart = (
            np.searchsorted(first, both, "right") / n - np.searchsorted(second, both, "right") / m
        )
        p = float(kolmogorov(np.abs(apart).max() * np.sqrt(n * m / (n + m))))
        found[column] = p if p > _UNSURE else float(ks_2samp(first, second).pvalue)
    return found


def _p_by_draws(
    observed: float,
    apart: Callable[[NDArray[np.int64]], Floats],
    sizes: tuple[int, int],
    permutations: int,
    generator: np.random.Generator,
) -> float:
    """Return how often a choice of a second sample is as far apart as the one observed.

    Drawing ends early where that is often anyway (Besag and Clifford, Biometrika 78, 1991).
    """
    drawn = beyond = 0
    while drawn < permutations and beyond < _ENOUGH:
        block = min(_SCREEN if not drawn else _BLOCK, permutations - drawn)
        beyond += int((apart(choices(block, sizes, generator)) >= observed - 1e-12).sum())
        drawn += block
    return (beyond + 1) / (drawn + 1)


def choices(
    count: int, sizes: tuple[int, int], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return so many choices of some of all places, each without a place twice.

    Args:
        sizes: How many places there are, and how many are chosen: N and m.

    Returns:
        ``(count, m)``, each in [0, N).
    """
    every, some = sizes
    drawn = generator.random((count, every), dtype=np.float32)
    return np.argpartition(drawn, some - 1, axis=1)[:, :some]


def some_of(rows: Floats, generator: np.random.Generator) -> Floats:
    """Return rows ``(N, D)``, or as many of them, by lot, as a kernel is made of."""
    if len(rows) <= _MOST_ROWS:
        return rows
    chosen: Floats = rows[np.sort(generator.choice(len(rows), _MOST_ROWS, replace=False))]
    return chosen


def kernel_of(rows: Floats) -> Floats:
    """Return ``(N, N)``: the Gaussian kernel of the median distance, 0 on the diagonal."""
    squares = (rows**2).sum(1)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0)
    apart = distances[distances > 1e-9]
    kernel: Floats = np.exp(-distances / (np.median(apart) if apart.size else 1.0))
    np.fill_diagonal(kernel, 0.0)
    return kernel


def rates_p_value(
    reference: Sequence[int],
    sample: Sequence[int],
    permutations: int,
    generator: np.random.Generator,
) -> float:
    """Return the p-value that two samples have the same rates of classes (chi-square).

    Where fewer than five of a class are expected it is that of tables drawn with the same sums.

    Args:
        reference: How many of each class.
        sample: As many classes.
    """
    table = np.array([reference, sample], dtype=np.float64)
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2 or min(table.sum(1)) < 1:
        return 1.0
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    if expected.min() >= _FEW:
        return float(chi2_contingency(table, correction=False).pvalue)
    both, count = table.sum(0).astype(np.int64), int(table[1].sum())
    drawn = generator.multivariate_hypergeometric(
        both, count, size=permutations, method="marginals"
    )
    distances = (drawn - expected[1]) ** 2 / expected[1] + (drawn - expected[1]) ** 2 / expected[0]
    observed = ((table - expected) ** 2 / expected).sum()
    beyond = int((distances.sum(1) >= observed - 1e-9).sum())
    return (beyond + 1) / (permutations + 1)


def mean_p_value(
    reference: Floats, sample: Floats, permutations: int, generator: np.random.Generator
) -> float:
    """Return the p-value that two samples have one mean, by permutation, ``(n,)`` and ``(m,)``."""
    if min(len(reference), len(sample)) < _FEW:
        return 1.0
    rows = np.concatenate([reference, sample])
    expected = float(rows.mean()) * len(sample)

    def apart(choices: NDArray[np.int64]) -> Floats:
        distances: Floats = np.abs(rows[choices].sum(1) - expected)
        return distances

    observed = abs(float(sample.sum()) - expected)
    return _p_by_draws(observed, apart, (len(rows), len(sample)), permutations, generator)
