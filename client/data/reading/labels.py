"""The labels of a mask: whole numbers of the study, however a file stores them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.image import UnreadableError

_ALMOST = 1e-3  # a label that was stored with a factor comes back as 1.0000001
_WHITES = (255, 65535)  # of 8 and of 16 bits
_FEWEST_GREYS = 8  # of a mask that was made smaller or turned; fewer are labels
_REACH = 7  # pixels: so wide is the grey border between black and white
_AT_EDGES = 0.8  # of the grey pixels; a hair, or a corner, reaches neither white nor black
_LOSSY_MARGIN = 0.25  # of white: so far from black and from white JPEG's greys reach
_NAMED = 5
_BYTE = 256


def check_labels(
    values: NDArray[Any],
    class_count: int,
    ignore_label: int | None = None,
    picture: str = "",
) -> NDArray[Any]:
    """Return a mask as small integers.

    Args:
        values: Any numbers.
        class_count: How many labels there may be.
        ignore_label: The label of voxels that nobody annotated, if the study has one.
        picture: "exact" or "lossy" for a picture, where white may stand for class 1 of two.

    Returns:
        The shape of ``values``, uint8, or int16 for many classes; ``class_count`` where it is to be
        ignored.

    Raises:
        UnreadableError: A value is no label of the study.
    """
    labels = _whole(values)
    ignored = None if ignore_label is None else labels == ignore_label
    kept = labels if ignored is None else labels[~ignored]
    dtype = np.uint8 if class_count + (ignored is not None) <= _BYTE else np.int16
    white = 0
    if picture and class_count == 2 and kept.size and kept.max() > 1:
        seen = labels if ignored is None else np.where(ignored, 0, labels)
        white = _least_white(seen, lossy=picture == "lossy")
    if white:
        result = (labels >= white).astype(dtype)
    else:
        _check_range(kept, class_count, hint=ignored is None)
        result = labels.astype(dtype)
    if ignored is not None:
        result[ignored] = class_count
    return result


def _whole(values: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers, where the file stores them up to rounding."""
    if values.dtype.kind in "bui":
        return values
    rounded: NDArray[Any] = np.rint(values)
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        msg = f"{count} of its labels are no numbers (NaN or infinite): write whole numbers."
        raise UnreadableError(msg)
    far = np.abs(values - rounded) > _ALMOST
    if far.any():
        msg = (
            f"its labels are not whole numbers ({float(values[far].flat[0]):g}): save class "
            "indices, and resample masks by the nearest voxel."
        )
        raise UnreadableError(msg)
    return rounded


def _least_white(labels: NDArray[Any], lossy: bool) -> int:
    """Return from which value on a picture of two classes is white; 0 where it holds indices.

    Greys are accepted only where black and white meet: a mask that was made smaller has them, and
    so has every JPEG. Anywhere else they are labels of their own.

    Args:
        labels: ``(..., rows, columns)``.
        lossy: Whether greys near black and white are the format's.

    Raises:
        UnreadableError: It mixes white with other values.
    """
    found = np.unique(labels)
    largest = int(found[-1])
    white = _WHITES[0] if lossy else largest
    if white not in _WHITES or (lossy and largest <= white // 2):
        return 0
    margin = int(_LOSSY_MARGIN * white) if lossy else 0
    greys = (labels > margin) & (labels < white - margin)
    if not greys.any() and (lossy or found[0] in (0, white)):
        return white // 2 + 1
    distinct = len(np.unique(labels[greys]))
    if (lossy or distinct >= _FEWEST_GREYS) and _lie_at_edges(labels, greys, white):
        return white // 2 + 1
    msg = (
        f"its labels are {_listed(found)}, so that {white} may be white (class 1) or what nobody "
        f"annotated: save 0 and 1, or 0 and {white}, as PNG; or have the study set "
        f"data.ignore_label = {white}."
    )
    raise UnreadableError(msg)


def _lie_at_edges(labels: NDArray[Any], greys: NDArray[np.bool_], white: int) -> bool:
    from scipy.ndimage import maximum_filter, minimum_filter

    window = (1,) * (labels.ndim - 2) + (_REACH, _REACH)
    dark = minimum_filter(labels, window) <= white // 2
    light = maximum_filter(labels, window) > white // 2
    return bool((dark & light)[greys].mean() >= _AT_EDGES)


def _check_range(labels: NDArray[Any], class_count: int, hint: bool) -> None:
    if labels.size == 0:
        return
    low, high = float(labels.min()), float(labels.max())
    if low >= 0 and high < class_count:
        return
    also = ", or have the study set data.ignore_label" if hint else ""
    msg = (
        f"its labels go from {low:g} to {high:g} ({_listed(np.unique(labels))}), but the study "
        f"has the labels 0 to {class_count - 1}: map them to whole numbers in that range{also}."
    )
    raise UnreadableError(msg)


def _listed(values: NDArray[Any]) -> str:
    shown = [f"{value:g}" for value in values[:_NAMED].tolist()]
    if len(values) > _NAMED:
        return f"{', '.join(shown)} and {len(values) - _NAMED} more"
    return ", ".join(shown[:-1]) + (" and " if len(shown) > 1 else "") + shown[-1]
