"""Lesions one by one: connected parts of a mask, which of them were found, and what is none.

Two voxels are of one lesion where they touch, also by an edge or a corner (26 neighbours in a
volume, 8 in a picture). A lesion counts as found where at least one voxel of it was marked; a
marked part counts as false where it touches no voxel of the truth.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_PARTS = 200
"""From so many parts on a class is a tissue, and no number of lesions."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesions:
    """The lesions of one class in one examination.

    Attributes:
        voxels: ``(L,)`` int64 voxels of each true lesion.
        covered: ``(L,)`` int64 voxels of it that were marked.
        false: Marked parts that touch no true lesion.
    """

    voxels: NDArray[np.int64]
    covered: NDArray[np.int64]
    false: int

    @property
    def found(self) -> int:
        """Lesions of which at least one voxel was marked."""
        return int((self.covered > 0).sum())


def count_lesions(truth: NDArray[np.bool_], marked: NDArray[np.bool_]) -> Lesions | None:
    """Return the lesions of one class; None from :data:`MOST_PARTS` parts on.

    Args:
        truth: ``(*spatial)``.
        marked: ``(*spatial)``.
    """
    from scipy.ndimage import find_objects, label

    either = truth | marked
    if not either.any():
        return Lesions(np.zeros(0, np.int64), np.zeros(0, np.int64), 0)
    inside = find_objects(either.astype(np.uint8))[0]  # a lesion takes little of an image
    truth, marked = truth[inside], marked[inside]
    touching = np.ones((3,) * truth.ndim, dtype=bool)
    parts, count = label(truth, touching)
    guesses, guessed = label(marked, touching)
    if max(count, guessed) >= MOST_PARTS:
        return None
    voxels = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    covered = np.bincount(parts[marked], minlength=count + 1)[1:]
    hits = np.bincount(guesses[truth], minlength=guessed + 1)[1:]
    return Lesions(voxels, covered, int((hits == 0).sum()))
