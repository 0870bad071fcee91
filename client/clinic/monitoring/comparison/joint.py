"""Several statistics of two samples under one set of permutations: exact whatever they share.

Each choice of a second sample gets all statistics; a choice is judged by the statistic that it is
most extreme in (Westfall and Young, 1993, "min P"), and so is the one observed. Statistics that
say nearly the same cost hardly more than one of them, which a correction by Holm cannot know.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from wardround.client.clinic.monitoring.comparison.acquisition import acquisition_shifts
from wardround.client.clinic.monitoring.comparison.two_samples import choices, kernel_of, some_of

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From weights ``(B, N)``, 1/n at the first and -1/m at the second sample, to ``(B,)``."""
# Of the false alarms of images together. A gain is seen in many ways, a tone curve in hardly any.
_DIRECTED = {"tone curve": 0.5, "gain": 0.17}
_SHIFT, _KERNEL = 0.2, 0.13
_FEW, _SCREEN, _BLOCK = 5, 200, 1_000
_HOPELESS = 0.15  # of the screen: more permutations would change nothing
_FAR = 8.0  # robust standard deviations; one strange image must not be the whole distance
_RIDGE = 0.05  # directions in which images hardly vary are not all the distance


def images_p_value(
    samples: tuple[Floats, Floats],
    names: Sequence[str],
    permutations: int,
    generator: np.random.Generator,
) -> float:
    """Return the p-value that two samples of image statistics are of one kind.

    The statistics: the shift in the direction of each change of an acquisition (a matched filter),
    or in that in which rows differ most where these are no images; the shift of all means
    (Hotelling's T2 with a ridge); the maximum mean discrepancy, for what moves no mean (Gretton et
    al., JMLR 13, 2012). All are symmetric in the samples, so the p-value is exact for any two that
    could change places.

    Args:
        samples: ``(n, F)`` and ``(m, F)``, finite; of more than 1000 rows as many are drawn.
        names: Of the columns.
        permutations: At most; the smallest p-value is one over them.
    """
    first, second = (some_of(rows, generator) for rows in samples)
    if min(len(first), len(second)) < _FEW or not first.shape[1]:
        return 1.0
    measured = np.concatenate([first, second])
    rows, scale = _scaled(measured)
    turned, turn = _turned(rows)
    shifts = acquisition_shifts(measured, names)
    directions = [(shift / scale) @ turn for shift in shifts.values()]
    directed = [_DIRECTED[what] for what in shifts]
    if not directions:
        directions, directed = [np.eye(turned.shape[1])[-1]], [sum(_DIRECTED.values())]
    statistics = (
        *(_squared(turned @ one[:, np.newaxis]) for one in directions),
        _squared(turned),
        _quadratic(kernel_of(turned)),
    )
    shares = (*directed, _SHIFT, _KERNEL)
    sizes = (len(first), len(second))
    return _least_p(statistics, shares, sizes, permutations, generator)


def soft_rates_p_value(
    reference: Floats, sample: Floats, permutations: int, generator: np.random.Generator
) -> float:
    """Return the p-value that two samples have the same mean probabilities, ``(n, K)``, ``(m, K)``.

    The distance is chi-square's of mean probabilities: the soft form of BBSE (Lipton et al., ICML
    2018), which also knows how sure the model was of a class.
    """
    rows = np.concatenate([reference, sample])
    rows = rows[:, rows.any(0)]
    if min(len(reference), len(sample)) < _FEW or rows.shape[1] < 2:
        return 1.0
    statistics = (_squared(rows / np.sqrt(rows.mean(0))),)  # a class that is never likely is out
    return _least_p(statistics, (1.0,), (len(reference), len(sample)), permutations, generator)


def _least_p(
    statistics: Sequence[Statistic],
    shares: Sequence[float],
    sizes: tuple[int, int],
    permutations: int,
    generator: np.random.Generator,
) -> float:
    n, m = sizes
    observed = np.arange(n, n + m)[np.newaxis]
    found = [_values(statistics, observed, n)]
    drawn = 0
    while drawn < permutations:
        block = min(_SCREEN if not drawn else _BLOCK, permutations - drawn)
        found.append(_values(statistics, choices(block, (n + m, m), generator), n))
        drawn += block
        if drawn == _SCREEN and (p := _joint(np.concatenate(found), shares)) > _HOPELESS:
            return p
    return _joint(np.concatenate(found), shares)


def _joint(values: Floats, shares: Sequence[float]) -> float:
    """Return the share of rows that are as extreme, in one column or another, as the first."""
    # Rounded: choices that differ by the order of a sum alone are as far apart.
    ranks = rankdata(-np.round(values, 12), axis=0, method="max") / len(values)
    least = (ranks / np.asarray(shares)).min(1)
    return float((least <= least[0] + 1e-12).mean())


def _values(statistics: Sequence[Statistic], second: NDArray[np.int64], first: int) -> Floats:
    """Return ``(B, statistics)`` of choices of the second sample, rows of ``(B, m)``."""
    weights = np.full((len(second), first + second.shape[1]), 1 / first)
    np.put_along_axis(weights, second, -1 / second.shape[1], axis=1)
    return np.stack([one(weights) for one in statistics], axis=1)


def _squared(rows: Floats) -> Statistic:
    def distance(weights: Floats) -> Floats:
        found: Floats = ((weights @ rows) ** 2).sum(1)
        return found

    return distance


def _quadratic(kernel: Floats) -> Statistic:
    def distance(weights: Floats) -> Floats:
        found: Floats = ((weights @ kernel) * weights).sum(1)
        return found

    return distance


def _scaled(rows: Floats) -> tuple[Floats, Floats]:
    """Return rows in robust standard deviations, and these."""
    low, middle, high = np.percentile(rows, (25, 50, 75), axis=0)
    scale = np.maximum((high - low) / 1.349, rows.std(0) / 5)
    scale = np.where(scale > 0, scale, 1.0)
    return np.clip((rows - middle) / scale, -_FAR, _FAR), scale


def _turned(rows: Floats) -> tuple[Floats, Floats]:
    """Return rows in their own directions, each scaled to about one, the widest last; and how."""
    centred = rows - rows.mean(0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(centred.T)))
    turn = vectors / np.sqrt(np.maximum(values, 0) + _RIDGE)
    return centred @ turn, turn
