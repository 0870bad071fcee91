"""ComBat from the sites' sums: the same numbers as from all patients in one place.

Johnson, Li and Rabinovic 2007 (Biostatistics 8:118) on data that stay where they are, as Chen et
al. 2022 (Sci. Rep. 12:4577, "d-ComBat") showed: everything that the method needs of a site are the
sums of products of its columns, once.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import RunError

Numbers = NDArray[np.float64]
_STOP = 1e-4  # of a relative change: that of the reference programs, so that results are theirs
_MOST_STEPS = 10_000
_CONSTANT = 1e-10  # of the variance within sites: what rounding leaves of a site that has none
_FEWEST = 3  # patients of a site: fewer have no spread


@dataclass(frozen=True, slots=True, eq=False)
class ComBat:
    """Fitted parameters: where each site's features lie, and how far they spread.

    Attributes:
        sites: Their names, in the order of ``shifts`` and ``scales``.
        means: ``(F,)``: of each feature over all sites, at preserved columns of 0.
        effects: ``(F, P)``: what a preserved column adds to a feature.
        shifts: ``(sites, F)``: what a site adds, in the feature's units.
        scales: ``(sites, F)``: how many times as far its values spread.
    """

    sites: tuple[str, ...]
    means: Numbers
    effects: Numbers
    shifts: Numbers
    scales: Numbers

    def adjust(self, site: str, features: Numbers, preserved: Numbers) -> Numbers:
        """Return the features ``(N, F)`` of a site's patients as if of no site."""
        place = self.sites.index(site)
        expected = self.means + preserved @ self.effects.T
        adjusted: Numbers = (
            expected + (features - expected - self.shifts[place]) / self.scales[place]
        )
        return adjusted


def moments(preserved: Numbers, features: Numbers) -> Numbers:
    """Return what a site tells: sums of products, ``(1 + P + F, 1 + P + F)``.

    Row 0 and column 0 are of a column of ones: the number of patients, and the plain sums.
    """
    rows = np.column_stack([np.ones(len(features)), preserved, features])
    sums: Numbers = rows.T @ rows
    return sums


def fit_combat(told: Mapping[str, Numbers], preserved: int) -> ComBat:
    """Return the parametric empirical-Bayes fit (Johnson 2007, section 3.2).

    Args:
        told: The :func:`moments` of each site.
        preserved: How many columns P are kept.

    Raises:
        RunError: There are too few sites, patients or features, or a feature does not vary.
    """
    names, sums = tuple(told), np.stack(list(told.values()))
    counts = sums[:, 0, 0]
    _require_enough(names, counts, sums.shape[1] - 1 - preserved)
    # Within sites: what is left of the sums once each site's means are taken out.
    centred = sums - sums[:, :, :1] * sums[:, :1, :] / counts[:, None, None]
    within = centred.sum(axis=0)
    kept, varied = slice(1, 1 + preserved), slice(1 + preserved, None)
    slopes = np.linalg.pinv(within[kept, kept], hermitian=True) @ within[kept, varied]  # (P, F)
    site_means = (sums[:, 0, varied] - sums[:, 0, kept] @ slopes) / counts[:, None]
    grand = counts @ site_means / counts.sum()
    residual = np.einsum("pf,pq,qf->f", slopes, within[kept, kept], slopes)
    residual = (
        within[varied, varied].diagonal() - 2 * (slopes * within[kept, varied]).sum(0) + residual
    )
    pooled = residual / counts.sum()
    if not (pooled > 1e-14).all():
        place = int(np.argmin(pooled))
        msg = f"feature {place + 1} of ComBat does not vary within the sites: leave it out."
        raise RunError(msg)
    deviation = np.sqrt(pooled)
    first, second = _standardised_sums(sums, grand, slopes, deviation)
    gamma, delta = _shrunken(first, second, counts)
    return ComBat(names, grand, slopes.T, gamma * deviation, np.sqrt(delta))


def _require_enough(names: tuple[str, ...], counts: Numbers, features: int) -> None:
    if len(names) < 2:
        msg = f"ComBat compares sites, and {len(names)} gave its sums: ask two at least."
        raise RunError(msg)
    if features < 2:
        msg = "ComBat shares what it learns between features, and there is one: give two at least."
        raise RunError(msg)
    few = [name for name, count in zip(names, counts, strict=True) if count < _FEWEST]
    if few:
        msg = f"ComBat needs {_FEWEST} patients of each site, and {few[0]} has fewer: leave it out."
        raise RunError(msg)


def _standardised_sums(
    sums: Numbers, grand: Numbers, slopes: Numbers, deviation: Numbers
) -> tuple[Numbers, Numbers]:
    """Return the sum and the sum of squares of each site's standardised features: (sites, F)."""
    count = len(grand)
    weights = np.vstack([-grand, -slopes, np.eye(count)]) / deviation  # (1 + P + F, F)
    first = sums[:, 0, :] @ weights
    second = np.einsum("pf,spq,qf->sf", weights, sums, weights)
    return first, second


def _shrunken(first: Numbers, second: Numbers, counts: Numbers) -> tuple[Numbers, Numbers]:
    """Return gamma* and delta*, ``(sites, F)``, by the iteration of the paper's appendix."""
    number = counts[:, None]
    gamma_hat = first / number
    delta_hat = (second - first**2 / number) / (number - 1)
    delta_hat = np.where(delta_hat <= _CONSTANT, 1.0, delta_hat)  # the reference does so at 0
    gamma_bar, tau = gamma_hat.mean(axis=1), gamma_hat.var(axis=1, ddof=1)
    mean, spread = delta_hat.mean(axis=1), np.maximum(delta_hat.var(axis=1, ddof=1), 1e-300)
    a, b = (2 * spread + mean**2) / spread, (mean * spread + mean**3) / spread
    gamma, delta = gamma_hat.copy(), delta_hat.copy()
    for site, n in enumerate(counts):
        for _ in range(_MOST_STEPS):
            was_gamma, was_delta = gamma[site].copy(), delta[site].copy()
            pull = tau[site] * n * gamma_hat[site] + was_delta * gamma_bar[site]
            gamma[site] = pull / (tau[site] * n + was_delta)
            squares = second[site] - 2 * gamma[site] * first[site] + n * gamma[site] ** 2
            delta[site] = (0.5 * squares + b[site]) / (n / 2 + a[site] - 1)
            if _moved(gamma[site], was_gamma) <= _STOP and _moved(delta[site], was_delta) <= _STOP:
                break
    return gamma, delta


def _moved(now: Numbers, before: Numbers) -> float:
    """Return the largest relative change, as the reference programs take it: with the sign."""
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.abs(now - before) / before
    return float(np.nan_to_num(change, nan=0.0).max())
