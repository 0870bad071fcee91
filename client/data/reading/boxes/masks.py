"""Boxes of a mask: one about each connected component of each class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.boxes.found import MOST_BOXES, FoundBoxes
from wardround.client.data.reading.image import UnreadableError


def boxes_of_mask(mask: NDArray[Any], classes: Sequence[str]) -> FoundBoxes:
    """Return a box about each component; voxels that meet at a corner are of one.

    Args:
        mask: ``(*spatial)``: 0 for nothing, 1 for the first class, 2 for the second, ...
        classes: Their names.

    Raises:
        UnreadableError: There are more components than things: noise.
    """
    from scipy.ndimage import find_objects, generate_binary_structure, label

    structure = generate_binary_structure(mask.ndim, mask.ndim)
    names, corners = list[str](), list[list[float]]()
    for value, name in enumerate(classes, start=1):
        parts, count = label(mask == value, structure)
        if count + len(names) > MOST_BOXES:
            msg = (
                f"it falls into more than {MOST_BOXES} pieces, a box about each: take out the "
                "speckle, or cut the image into tiles."
            )
            raise UnreadableError(msg)
        for place in find_objects(parts):
            names.append(name)
            corners.append([*(float(p.start) for p in place), *(float(p.stop) for p in place)])
    return FoundBoxes(tuple(names), np.array(corners).reshape(len(names), 2 * mask.ndim))
