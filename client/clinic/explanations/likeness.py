"""How alike two maps are, and how much of a map lies in a mask."""

import numpy as np
from numpy.typing import NDArray

from wardround.client.clinic.explanations.attribution import Floats

_WINDOW = 11  # of SSIM (Wang 2004)


def rank_correlation(first: Floats, second: Floats) -> float:
    """Return Spearman's rank correlation of two maps ``(*spatial)``, in [-1, 1].

    0 where one of them is the same everywhere: it says nothing about the other.
    """
    from scipy.stats import rankdata

    a, b = rankdata(first.ravel()), rankdata(second.ravel())
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length > 0 else 0.0


def structural_similarity(first: Floats, second: Floats) -> float:
    """Return SSIM (Wang 2004) of two maps ``(*spatial)`` that are not negative, each scaled to 1.

    NaN for a map with fewer than two axes, or of a side below 3.
    """
    import torch
    from monai.metrics.regression import SSIMMetric

    side = min(first.shape)
    if first.ndim not in (2, 3) or side < 3:
        return float("nan")
    window = min(_WINDOW, side if side % 2 else side - 1)
    scaled = [
        torch.from_numpy(np.array(one / (one.max() or 1.0)))[None, None] for one in (first, second)
    ]
    metric = SSIMMetric(first.ndim, data_range=1.0, kernel_type="uniform", win_size=window)
    return float(metric(scaled[0], scaled[1]).mean())


def share_inside(positive: Floats, mask: NDArray[np.bool_]) -> float:
    """Return which share of a map lies in a mask; NaN for an empty map.

    Args:
        positive: ``(*spatial)``, not negative.
        mask: ``(*spatial)``.
    """
    total = float(positive.sum())
    return float(positive[mask].sum()) / total if total > 0 else float("nan")
