"""Images of one examination on one grid: affines compared, axes brought into one order.

Two grids are one where every corner of them lies within 1e-3 of a voxel, and the drift of 1e-4 of a
voxel that headers in single precision leave in each number of an affine.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.image import Image, UnreadableError, turned

_APART = 1e-3  # voxels of the first image
_DRIFT = 1e-4  # voxels, in each entry of an affine
_SPACING = 1e-3  # of a voxel: less is no other spacing worth a word
_DEGREES = 0.01
_FLAT = 1e-3  # of the volume of a cube: its axes lie in a plane
_SHRINKS = 1.2  # as in geometry: from here on a smaller grid needs smoothing


@dataclass(frozen=True, slots=True)
class _Grid:
    """Voxels in space: (x, y, z), a slice with a third axis of one voxel."""

    values: NDArray[Any]  # of one plane
    affine: NDArray[Any]

    @property
    def corners(self) -> NDArray[np.float64]:
        """``(4, 8)`` homogeneous indices of the outermost voxels."""
        ends = [(0, size - 1) for size in self.values.shape]
        return np.array([(*corner, 1) for corner in itertools.product(*ends)], dtype=float).T

    @property
    def spacing(self) -> NDArray[np.float64]:
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))


def bring_onto(image: Image, first: Image, resamples: bool, is_mask: bool) -> Image:
    """Return an image or mask voxel for voxel on the first image's grid.

    Args:
        image: ``(planes, *spatial)``.
        first: The first channel as it was read.
        resamples: Whether one on another grid is interpolated, or refused.
        is_mask: Whether it holds labels, which are never mixed.

    Returns:
        ``(planes, *spatial)`` of the first image, with its geometry.

    Raises:
        UnreadableError: It lies elsewhere; says how far and in what.
    """
    if image.affine is None or first.affine is None:
        _check_unplaced(image, first)
        return Image(image.array, first.spacing, first.affine, image.eight_bit, first.is_unplaced)
    for which, one in (("its", image), ("the image's", first)):
        if not _spans_space(one.affine):
            msg = f"{which} header gives no usable orientation: mend the directions of its axes."
            raise UnreadableError(msg)
    flat = image.array.ndim == 3
    target = _grid(first, 0)
    planes = []
    for plane in range(len(image.array)):
        grid = _in_order_of(_grid(image, plane), target, flat)
        if not _is_same(grid, target, image.rounding + first.rounding):
            if not resamples:
                raise UnreadableError(_in_words(grid, target))
            grid = _Grid(_resampled(grid, target, is_mask), target.affine)
        planes.append(grid.values[..., 0] if flat else grid.values)
    array = np.ascontiguousarray(np.stack(planes))
    return Image(array, first.spacing, first.affine, image.eight_bit)


def _spans_space(affine: NDArray[Any] | None) -> bool:
    """Return whether an affine turns voxels into places, and not all into one plane."""
    if affine is None or not np.isfinite(affine).all():
        return False
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return bool((sizes > 0).all() and abs(np.linalg.det(affine[:3, :3] / sizes)) > _FLAT)


def _check_unplaced(image: Image, first: Image) -> None:
    """Refuse what cannot be placed: other sizes, or a header that leaves out what another says."""
    silent = image if image.is_unplaced else first
    other = first if silent is image else image
    if silent.is_unplaced and other.affine is not None:
        which = "its header does" if silent is image else "the image's header does"
        msg = (
            f"{which} not say how it lies (neither sform nor qform is set), and that of the other "
            "does: write the same geometry into both."
        )
        raise UnreadableError(msg)
    if image.is_turned != first.is_turned and _says_nothing(image) != _says_nothing(first):
        msg = (
            "one of image and mask is NIfTI, the other a picture or array without a place in "
            "space, and the header's axes are not those of a picture (x to the left, y to the "
            "back): save both as NIfTI, or both as pictures."
        )
        raise UnreadableError(msg)
    if image.array.shape[1:] != first.array.shape[1:]:
        raise mismatch(image.array.shape[1:], first.array.shape[1:])


def _says_nothing(image: Image) -> bool:
    return image.affine is None and not image.is_unplaced


def mismatch(shape: Sequence[int], wanted: Sequence[int]) -> UnreadableError:
    """Return the refusal of an image of another shape than the first.

    Args:
        shape: Its spatial axes.
        wanted: Those of the first.
    """
    return UnreadableError(
        f"its shape is {_by(shape)} and that of the image {_by(wanted)}: give one of the same "
        "shape."
    )


def _grid(image: Image, plane: int) -> _Grid:
    values = image.array[plane]
    affine = np.asarray(image.affine, dtype=np.float64)
    return _Grid(values if values.ndim == 3 else values[..., np.newaxis], affine)


def _in_order_of(grid: _Grid, target: _Grid, flat: bool) -> _Grid:
    """Return a grid with its axes in the order and direction of another's, as near as can be."""
    toward = np.linalg.solve(target.affine[:3, :3] / target.spacing, grid.affine[:3, :3])
    toward = toward / grid.spacing
    orders = [order for order in itertools.permutations(range(3)) if not flat or order[2] == 2]
    best = max(orders, key=lambda order: sum(abs(toward[new, order[new]]) for new in range(3)))
    flips = [bool(toward[new, old] < 0) for new, old in enumerate(best)]
    return _Grid(*turned(grid.values, grid.affine, best, flips))


def _is_same(grid: _Grid, target: _Grid, radians: float) -> bool:
    """Return whether two grids are one, their directions being known to so many radians."""
    if grid.values.shape != target.values.shape:
        return False
    corners = target.corners
    apart = np.linalg.solve(target.affine, grid.affine @ corners) - corners
    if target.values.shape[2] == 1:  # a slice's own thickness is no distance: count its pixels
        apart[2] *= target.spacing[2] / target.spacing[:2].min()
    distance = np.linalg.norm(target.affine[:3, :3] @ corners[:3], axis=0)
    drift = _DRIFT * corners[:3].sum(axis=0) + radians * distance / target.spacing[:, np.newaxis]
    return bool((np.abs(apart[:3]) <= _APART + drift).all())


def _in_words(grid: _Grid, target: _Grid) -> str:
    """Return how far two grids are apart, in what, and what to do about it."""
    apart = np.linalg.norm(
        (grid.affine @ grid.corners - target.affine @ target.corners)[:3], axis=0
    )
    differences = []
    if grid.values.shape != target.values.shape:
        differences.append(f"size ({_by(grid.values.shape)} and {_by(target.values.shape)} voxels)")
    axes = slice(0, 2 if target.values.shape[2] == 1 else 3)
    ours, theirs = grid.spacing[axes], target.spacing[axes]
    if (np.abs(ours - theirs) > _SPACING * theirs).any():
        differences.append(f"spacing ({_millimetres(ours)} and {_millimetres(theirs)} mm)")
    cosines = (grid.affine[:3, :3] * target.affine[:3, :3]).sum(axis=0)
    cosines = cosines / (grid.spacing * target.spacing)
    degrees = math.degrees(math.acos(float(np.clip(cosines.min(), -1, 1))))
    if degrees > _DEGREES:
        differences.append(f"direction ({degrees:.3g} degrees)")
    origin = float(np.linalg.norm((grid.affine - target.affine)[:3, 3]))
    if origin > _APART * float(target.spacing.min()):
        differences.append(f"origin ({origin:.3g} mm)")
    return (
        f"it does not lie on the grid of the image: they are up to {apart.max():.3g} mm apart and "
        f"differ in {', '.join(differences) or 'their affines'}. Register it, save it on the "
        "image's grid, or have the study set data.resample_to = 'image'."
    )


def _resampled(grid: _Grid, target: _Grid, is_mask: bool) -> NDArray[Any]:
    """Return a grid's voxels where another's lie: labels of the nearest, images linearly.

    Outside the grid is background, of an image its darkest value.

    Raises:
        UnreadableError: The two do not meet at all.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

    there = np.linalg.solve(grid.affine, target.affine)  # from the target's voxels
    values = grid.values
    if not is_mask:
        steps = np.linalg.norm(there[:3, :3], axis=1)
        sigma = [max(0.0, (step - 1) / 2) if step > _SHRINKS else 0.0 for step in steps]
        values = gaussian_filter(values, sigma) if any(sigma) else values
    outside = values.dtype.type(0) if is_mask else values.min()
    result = np.full(target.values.shape, outside, dtype=values.dtype)
    last = np.array(values.shape)[:, np.newaxis] - 0.5
    others = np.indices(target.values.shape[1:]).reshape(2, -1)
    meets = False
    for place in range(len(result)):  # a sheet at a time: coordinates take six times an image
        corners = np.vstack([np.full(others.shape[1], place), others, np.ones(others.shape[1])])
        at = (there @ corners)[:3]
        inside = ((at >= -0.5) & (at <= last)).all(axis=0)
        if inside.any():
            meets = True
            found = map_coordinates(
                values, at[:, inside], order=0 if is_mask else 1, mode="nearest"
            )
            result[place].reshape(-1)[inside] = found
    if not meets:
        raise UnreadableError(
            "it lies wholly outside the image: "
            + _in_words(grid, target).split(": ", 1)[1].split(". ")[0]
            + ". Register it, or give the one that belongs to the image."
        )
    return result


def _by(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)


def _millimetres(sizes: NDArray[np.float64]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)
