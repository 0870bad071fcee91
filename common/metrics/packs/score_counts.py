"""Histograms of scores, and how far off an AUROC can be that was read from coarsened ones.

A hospital counts neighbouring bins together until each cell has enough patients, puts the count
into one of these bins, and rounds it down. So a told cell stands for the bins from the one after
the told cell before it to the one before the next, and for up to ``cell - 1`` examinations more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.task_sums import Arrays, Counts, check_same_shape, refuse

MOST_OF_ALL = 2**40  # of examinations: sums over all sites stay exact
MOST_OF_A_SITE = 10**9  # so that no site alone makes the sum one that the others refuse


@dataclass(frozen=True, slots=True, eq=False)
class ScoreCounts:
    """Examinations by score, ``(K, bins)`` each: of the class, and not of it.

    A class of which either side has patients, but too few, is told of on neither.
    """

    positives: Counts
    negatives: Counts

    @classmethod
    def empty(cls, classes: int, bins: int) -> "ScoreCounts":
        """Return the counts of nothing."""
        shape = (classes, bins)
        return cls(np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64))

    @classmethod
    def from_arrays(
        cls, positives: Counts, negatives: Counts, most: int = MOST_OF_A_SITE
    ) -> "ScoreCounts":
        """Return counts that came, once they can be true.

        Args:
            most: Of examinations: one site's, or with :data:`MOST_OF_ALL` those of all sites.

        Raises:
            InputError: They cannot.
        """
        for name, counts in (("positives", positives), ("negatives", negatives)):
            if (counts < 0).any() or (counts > most).any() or counts.sum() > most:
                refuse(name, "counts fewer than none, or more than there are")
        return cls(positives, negatives)

    def to_arrays(self, prefix: str) -> Arrays:
        """Return them as they travel."""
        return {f"{prefix}positives": self.positives, f"{prefix}negatives": self.negatives}

    def plus(self, other: "ScoreCounts") -> "ScoreCounts":
        """Return the counts of both.

        Raises:
            InputError: They are of two studies.
        """
        check_same_shape(self.positives, other.positives)
        return ScoreCounts(self.positives + other.positives, self.negatives + other.negatives)

    def tells(self, place: int) -> bool:
        """Return whether anything is told of a class."""
        return bool(self.positives[place].any() or self.negatives[place].any())

    def areas(self) -> NDArray[np.float64]:
        """Return each class's AUROC, ``(K,)``; pairs within a bin count one half."""
        below = np.cumsum(self.negatives, axis=1) - self.negatives
        ordered = (self.positives * (below + self.negatives / 2)).sum(axis=1)
        pairs = self.positives.sum(axis=1).astype(float) * self.negatives.sum(axis=1)
        undefined = np.full(len(pairs), math.nan)
        return np.asarray(np.divide(ordered, pairs, out=undefined, where=pairs > 0))


@dataclass(frozen=True, slots=True)
class Cells:
    """Told cells of one side: from which bin to which they reach, and how many they may hold."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    least: NDArray[np.float64]
    most: NDArray[np.float64]


def cells_of(counts: Counts, cell: int) -> Cells:
    """Return the told cells of ``(bins,)`` counts of a site whose smallest cell this is."""
    places = np.flatnonzero(counts)
    told = counts[places].astype(float)
    if cell <= 1:
        return Cells(places, places, told, told)
    low = np.concatenate([[0], places[:-1] + 1]) if len(places) else places
    high = np.concatenate([places[1:] - 1, [len(counts) - 1]]) if len(places) else places
    return Cells(low, high, told, told + cell - 1)


def together(parts: Sequence[Cells]) -> Cells:
    """Return the cells of several sites."""
    return Cells(
        np.concatenate([one.low for one in parts]),
        np.concatenate([one.high for one in parts]),
        np.concatenate([one.least for one in parts]),
        np.concatenate([one.most for one in parts]),
    )


def area_bounds(positives: Cells, negatives: Cells) -> tuple[float, float]:
    """Return between which values the AUROC of the told examinations lies; (0, 1) of nothing.

    For the greatest every positive lies as high in its cell as it can and every negative as low,
    and the cells that help are full: since they are ordered, which are full is one cut a side.
    """
    if not len(positives.low) or not len(negatives.low):
        return 0.0, 1.0
    best = _greatest(positives, negatives)
    # Seen from the other side: the least is 1 - the greatest with the sides exchanged.
    worst = 1 - _greatest(negatives, positives)
    return worst, best


def _greatest(ahead: Cells, behind: Cells) -> float:
    # Cells that end in one bin win and lose alike, and count together: so there are no more of them
    # than bins, however many sites tell of their own.
    highs, lows = _by_end(ahead.high, ahead), _by_end(behind.low, behind)
    wins = (highs[0][:, None] >= lows[0][None, :]).astype(float)
    high = _cut(highs[1], highs[2], rising=True)
    low = _cut(lows[1], lows[2], rising=False)
    pairs = high.sum(axis=1)[:, None] * low.sum(axis=1)[None, :]
    return float(((high @ wins @ low.T) / pairs).max())


def _by_end(
    ends: NDArray[np.int64], cells: Cells
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the bins in which cells end, ascending, and what these hold at least and at most."""
    found, place = np.unique(ends, return_inverse=True)
    least, most = np.zeros(len(found)), np.zeros(len(found))
    np.add.at(least, place, cells.least)
    np.add.at(most, place, cells.most)
    return found, least, most


def _cut(
    least: NDArray[np.float64], most: NDArray[np.float64], rising: bool
) -> NDArray[np.float64]:
    """Return the weights for each cut, ``(cuts, cells)``: full on one side of it."""
    if (least == most).all():
        return least[None, :]
    places = np.arange(len(least))
    cuts = np.arange(len(least) + 1)[:, None]
    full = places >= cuts if rising else places < cuts
    return np.where(full, most, least)


def placement_slack(own: Cells, others: Cells) -> float:
    """Return the root mean square of how far a placement value can be off, over one side's cells.

    A placement is the share of the other side's examinations that lie below.
    """
    if not len(own.low) or not len(others.low):
        return 1.0
    surely = _upto(others.high, others.least, own.low - 1)
    perhaps = _upto(others.low, others.most, own.high)
    overlap = _upto(others.low, others.least, own.high)
    all_least, all_most = others.least.sum(), others.most.sum()
    lowest = surely / (surely + np.maximum(all_most - surely, 0))
    highest = perhaps / np.maximum(perhaps, perhaps + all_least - overlap)
    width = np.clip(highest - lowest, 0.0, 1.0)
    return float(np.sqrt((own.least * width**2).sum() / own.least.sum()))


def _upto(
    ends: NDArray[np.int64], weights: NDArray[np.float64], bins: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return for each bin the weights of all cells that end in it or before."""
    order = np.argsort(ends, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(weights[order])])
    return np.asarray(sums[np.searchsorted(ends[order], bins, side="right")])
