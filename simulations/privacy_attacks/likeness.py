"""How like a patient's image what an attack brought back is."""

from collections.abc import Sequence

import torch
from torch import Tensor


def correlation(one: Tensor, other: Tensor) -> float:
    """Return Pearson's correlation of two images, in [-1, 1]; 0 where one is constant.

    A shift or a scale of the grey values does not count: they do not hide who it is.

    Args:
        one: Of any shape.
        other: Of the same shape.
    """
    first, second = (part.double().flatten() - part.double().mean() for part in (one, other))
    scale = float(first.norm() * second.norm())
    value = float(first @ second) / scale if scale > 0 else 0.0
    return value if value == value else 0.0


def nearest(reconstruction: Tensor, candidates: Sequence[Tensor]) -> int:
    """Return which candidate correlates most with a reconstruction.

    Args:
        reconstruction: Of any shape.
        candidates: Each of the same shape.

    Returns:
        An index of ``candidates``.
    """
    return max(range(len(candidates)), key=lambda k: correlation(reconstruction, candidates[k]))


def count_identified(reconstructions: Sequence[Tensor], originals: Sequence[Tensor]) -> int:
    """Return how many reconstructions are nearest to their own original; chance is 1.

    Args:
        reconstructions: Each of any shape.
        originals: As many, each of its reconstruction's shape.
    """
    pairs = enumerate(reconstructions)
    return sum(nearest(reconstruction, originals) == index for index, reconstruction in pairs)


def best_likeness(reconstructions: Tensor, original: Tensor) -> tuple[float, Tensor]:
    """Return the best correlation with an original among several tries, and that try.

    Args:
        reconstructions: ``(N, values)`` or ``(N, *shape)``, N at least 1.
        original: Of the shape of one of them, or as many values.
    """
    flat = reconstructions.flatten(1).double()
    centred = flat - flat.mean(1, keepdim=True)
    wanted = original.double().flatten() - original.double().mean()
    scale = (centred.norm(dim=1) * wanted.norm()).clamp_min(1e-300)
    values = torch.nan_to_num(centred @ wanted / scale)
    best = int(values.argmax())
    return float(values[best]), reconstructions[best]
