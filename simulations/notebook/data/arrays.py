"""Own images as arrays: from NumPy, torch or lists to a folder that a study can use."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import DataError
from wardround.common.files.usable_path import usable_path
from wardround.simulations.notebook.data.columns import as_labels, as_list, rows_named
from wardround.simulations.notebook.data.own_data import Draft, OwnData, add_people, write
from wardround.simulations.notebook.data.table import add_covariates, columns_of_table

_IMAGES, _MASKS = "images.npy", "masks.npy"
_COLOURS = (3, 4)
_LEAST_PLANE = 8  # an axis of 3 beside axes of at least this is colour, not depth
_SCALED = 16.0  # values beyond it are grey values of a scanner, which a network wants scaled


def from_arrays(  # noqa: PLR0913 # one argument a column of the manifest
    folder: "str | PathLike[str]",
    images: Any,
    labels: Any = None,
    *,
    masks: Any = None,
    patients: Any = None,
    sites: Any = None,
    splits: Any = None,
    classes: Sequence[str] | None = None,
    covariates: Any = None,
    dimensions: int | None = None,
    replace: bool = False,
) -> OwnData:
    """Write own images down as the data of some hospitals.

    Args:
        folder: Is made; where it holds just this already, nothing is written.
        images: ``(N, H, W)`` grey, ``(N, H, W, 3)`` coloured, or ``(N, D, H, W)`` volumes: bytes,
            or floating-point numbers of any range. An axis of one plane is dropped; of tensors the
            colours may come first, ``(N, 3, H, W)``.
        labels: N classes, as names, booleans or whole numbers; of a classification.
        masks: ``(N, *spatial)`` whole numbers or booleans, 0 the background; of a segmentation.
        patients: N names or numbers that tell patients apart. Without them each image is assumed
            to be of a patient of its own, and an :class:`AssumptionWarning` says so.
        sites: N names of hospitals. Without them hospitals are drawn in the simulation.
        splits: N times "train", "validation" or "test"; drawn by patient where absent.
        classes: Names in order; those that occur where absent.
        covariates: Clinical values, a row an image: a data frame, or columns by name.
        dimensions: 2 or 3, where the shape does not say.
        replace: Whether other data of this kind in the folder is overwritten.

    Raises:
        DataError: Something does not fit together; names rows, from 0.
        InputError: The folder holds something else, or cannot be written.
    """
    if (labels is None) == (masks is None):
        msg = "give labels= for a classification or masks= for a segmentation, one of the two."
        raise DataError(msg)
    pixels, assumed = _pixels(images, dimensions)
    rows = len(pixels.values)
    draft = Draft("classification", (), rows)
    draft.assumptions += assumed
    draft.arrays[_IMAGES] = pixels.values
    add_people(draft, patients, sites, splits)
    draft.columns["image"] = [f"{_IMAGES}#{at}" for at in range(rows)]
    if labels is not None:
        found = as_labels(as_list(labels, "labels", rows, "images"), classes)
        draft.columns["label"], draft.classes = found.texts, found.classes
    else:
        _add_masks(draft, masks, pixels, classes)
    if covariates is not None:
        add_covariates(draft, columns_of_table(covariates), rows)
    _say_looks(draft, pixels)
    return write(draft, usable_path(folder, "the folder of the data"), replace)


class _Pixels:
    """Images of one shape.

    Attributes:
        values: ``(N, *spatial)``, with a last axis of 3 colours where ``colour``.
    """

    def __init__(self, values: NDArray[Any], dimensions: int, colour: bool) -> None:
        self.values = values
        self.dimensions = dimensions
        self.colour = colour

    @property
    def spatial(self) -> tuple[int, ...]:
        return self.values.shape[1 : 1 + self.dimensions]


def as_array(images: Any, what: str) -> NDArray[Any]:
    """Return images as one array.

    Raises:
        DataError: They are none, or not of one shape.
    """
    if isinstance(images, Mapping | str | bytes) or images is None:
        msg = f"{what} is {type(images).__name__}: give one array, or a list of arrays of a shape."
        raise DataError(msg)
    if hasattr(images, "detach"):
        images = images.detach().cpu().numpy()
    if not isinstance(images, np.ndarray):
        items = [as_item(one, what) for one in images]
        shapes = {item.shape for item in items}
        if len(shapes) > 1:
            some = " and ".join("x".join(map(str, shape)) for shape in sorted(shapes)[:2])
            msg = (
                f"{what} have different shapes ({some}): bring them to one, or describe files in "
                "a manifest, which a study resizes."
            )
            raise DataError(msg)
        images = np.stack(items) if items else np.zeros((0,))
    array: NDArray[Any] = images
    if len(array) == 0 if array.ndim else True:
        msg = f"{what} holds nothing: give an array with an image a row."
        raise DataError(msg)
    return array


def as_item(one: Any, what: str) -> NDArray[Any]:
    """Return one image of a list as an array."""
    if isinstance(one, str | PathLike):
        msg = f"{what} holds paths: describe files in a manifest, and name it in the study."
        raise DataError(msg)
    found: NDArray[Any] = one.detach().cpu().numpy() if hasattr(one, "detach") else np.asarray(one)
    return found


def _pixels(images: Any, dimensions: int | None) -> tuple[_Pixels, list[str]]:
    array = _of_numbers(as_array(images, "images"), "images")
    if array.ndim < 3:
        shape = "x".join(map(str, array.shape))
        msg = f"images has the shape {shape}: give (N, H, W), an image a row."
        raise DataError(msg)
    if dimensions not in (None, 2, 3):
        msg = f"dimensions = {dimensions!r} cannot be used: images have 2 or 3."
        raise DataError(msg)
    assumed = []
    wanted = dimensions or _guessed(array)
    first, last = array.shape[1], array.shape[-1]
    if wanted == 2 and array.ndim == 4 and first in _COLOURS and last not in _COLOURS:
        array = np.moveaxis(array, 1, -1)
        if dimensions is None:
            assumed.append("The first axis of each image is taken for its colours.")
    array = _without_plane(array, wanted)
    colour = wanted == 2 and array.ndim == 4 and array.shape[-1] in _COLOURS
    if array.ndim != 1 + wanted + colour:
        shape = "x".join(map(str, array.shape))
        msg = (
            f"images has the shape {shape}: give (N, H, W), (N, H, W, 3) or (N, D, H, W), and "
            "dimensions= where the shape does not say."
        )
        raise DataError(msg)
    if colour:
        array = array[..., :3]
    return _Pixels(np.ascontiguousarray(array), wanted, colour), assumed


def _guessed(array: NDArray[Any]) -> int:
    """Return whether the images are flat (2) or volumes (3), by their shape."""
    if array.ndim >= 5:
        return 3
    flat = array.ndim == 3 or (array.ndim == 4 and 1 in (array.shape[1], array.shape[-1]))
    sides = sorted(array.shape[1:])
    thin = len(sides) == 3 and sides[0] in _COLOURS and sides[1] >= _LEAST_PLANE
    coloured = thin and (array.shape[-1] in _COLOURS or array.shape[1] in _COLOURS)
    return 2 if flat or coloured else 3


def _without_plane(array: NDArray[Any], dimensions: int) -> NDArray[Any]:
    """Drop an axis of one plane, first or last."""
    if array.ndim == dimensions + 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim == dimensions + 2 and array.shape[-1] == 1:
        return array[..., 0]
    return array


def _of_numbers(array: NDArray[Any], what: str) -> NDArray[Any]:
    """Return bytes as they are, any other numbers as float32.

    Raises:
        DataError: It holds no numbers, or one that is not finite.
    """
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype.kind not in "uif":
        msg = f"{what} holds {array.dtype}: give whole or floating-point numbers."
        raise DataError(msg)
    if array.dtype == np.uint8:
        return array
    found = array.astype(np.float32)
    if not np.isfinite(found).all():
        finite = np.isfinite(found).reshape(len(found), -1).all(axis=1)
        broken = np.flatnonzero(~finite).tolist()
        msg = f"{what} holds values that are not finite in {rows_named(broken)}: replace them."
        raise DataError(msg)
    return found


def _add_masks(draft: Draft, masks: Any, pixels: _Pixels, classes: Sequence[str] | None) -> None:
    array = _without_plane(as_array(masks, "masks"), pixels.dimensions)
    if len(array) != len(pixels.values):
        msg = f"there are {len(pixels.values)} images and {len(array)} masks: give one for each."
        raise DataError(msg)
    if array.shape[1:] != pixels.spatial:
        shapes = ["x".join(map(str, shape)) for shape in (array.shape[1:], pixels.spatial)]
        msg = f"a mask is {shapes[0]} and its image {shapes[1]}: give masks on the images' grid."
        raise DataError(msg)
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.rint(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "uib":
        msg = f"masks holds {array.dtype}: give whole numbers, 0 for the background, or booleans."
        raise DataError(msg)
    array = array.astype(np.int64)
    low, high = int(array.min()), int(array.max())
    names = tuple(classes) if classes is not None else _mask_classes(high)
    if low < 0 or high >= len(names):
        value = low if low < 0 else high
        msg = f"masks holds {value}: with {len(names)} classes they are 0 to {len(names) - 1}."
        raise DataError(msg)
    draft.task, draft.classes = "segmentation", tuple(str(name) for name in names)
    draft.arrays[_MASKS] = array.astype(np.uint8 if len(names) <= 256 else np.int16)
    draft.columns["mask"] = [f"{_MASKS}#{at}" for at in range(draft.rows)]


def _mask_classes(highest: int) -> tuple[str, ...]:
    if highest < 1:
        msg = "masks holds nothing but background (0): mark what is to be found with 1, 2, ..."
        raise DataError(msg)
    found = ("foreground",) if highest == 1 else tuple(f"class {n}" for n in range(1, highest + 1))
    return ("background", *found)


def _say_looks(draft: Draft, pixels: _Pixels) -> None:
    values = pixels.values
    draft.say("data", dimensions=pixels.dimensions, size=list(pixels.spatial))
    if pixels.colour:
        draft.say("data", colour=True)
    low, high = float(values.min()), float(values.max())
    if values.dtype != np.uint8 and max(abs(low), abs(high)) > _SCALED:
        draft.say("data", intensity="mr")
        draft.assumptions.append(
            f"The values go from {low:.4g} to {high:.4g}, so each image is brought to mean 0 and "
            'deviation 1 over what is not 0 (intensity="mr").'
        )
