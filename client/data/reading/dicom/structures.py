"""Structure sets (RTSTRUCT): closed outlines on the image's slices, filled to a mask.

A voxel is of an outline if its centre is inside by the even-odd rule, over all outlines of one
structure on a slice: an outline inside another is a hole. A centre that lies on the border belongs
to one side only, so that outlines that touch share no voxel.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.dicom.labels import check_overlap, match_classes, merge
from wardround.client.data.reading.image import Image, MaskTarget, Stored, UnreadableError

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")
_OFF_SLICE = 0.2  # slices that an outline may lie beside one
_FLAT = 0.05  # voxels that the points of an outline may lie off their plane
_SPARSEST = 5  # slices between outlines of one structure; farther apart lie several
_MOST_POINTS = 50_000_000
_WHAT = "structure"


@dataclass(frozen=True, slots=True)
class _Outline:
    """A closed outline in voxels of the image: on which slice, and its points in the plane."""

    number: int
    points: NDArray[np.float64]


def read_structures(dataset: Any, dimensions: int, target: MaskTarget) -> Stored:
    """Return the mask of a structure set on the grid of its image.

    Args:
        dataset: A structure set.
        dimensions: Of the study; outlines lie in space, so it must be 3.
        target: The classes that structures are matched with by name, and the image. Without both,
            it is only looked whether the outlines can be read, and one voxel is returned.

    Raises:
        UnreadableError: Outlines do not lie on the image's slices, structures cannot be matched
            with classes, or two overlap.
    """
    image = target.image
    if not target.classes and image is None:
        _ = [_closed(roi.get("ContourSequence") or ()) for roi in dataset.ROIContourSequence]
        return Stored(np.zeros((1,) * dimensions, np.uint16))
    if dimensions != 3 or image is None or image.affine is None:
        msg = (
            "it is a structure set (RTSTRUCT), whose outlines lie in space: it can be the mask of "
            "a 3D image that says how it lies (NIfTI or DICOM) and of no other."
        )
        raise UnreadableError(msg)
    _check_frame(dataset, image)
    contours = {
        int(roi.get("ReferencedROINumber") or 0): _closed(roi.get("ContourSequence") or ())
        for roi in dataset.get("ROIContourSequence") or ()
    }
    contours = {number: outlines for number, outlines in contours.items() if outlines}
    if not contours:
        msg = "the structure set has no closed outline: draw the structures, and export it again."
        raise UnreadableError(msg)
    names = {
        int(roi.ROINumber): [target.named(str(roi.get("ROIName") or ""))]
        for roi in dataset.get("StructureSetROISequence") or ()
        if int(roi.ROINumber) in contours
    }
    matched = match_classes(names, target.classes, _WHAT)
    wanted = {n: outlines for n, outlines in contours.items() if matched.classes.get(n)}
    mask = _filled(wanted, matched.classes, image)
    return Stored(
        mask,
        image.spacing,
        image.affine,
        notes=matched.notes,
        frame=image.frame,
        is_matched=True,
    )


def _check_frame(dataset: Any, image: Image) -> None:
    frames = {
        str(item.get("FrameOfReferenceUID") or "")
        for item in dataset.get("ReferencedFrameOfReferenceSequence") or ()
    } - {""}
    if image.frame and frames and image.frame not in frames:
        msg = (
            "it is drawn in another system of coordinates (frame of reference) than the image has: "
            "name the structure set of this examination."
        )
        raise UnreadableError(msg)


def _closed(contours: Iterable[Any]) -> list[NDArray[np.float64]]:
    """Return the points (N, 3) of closed outlines, LPS millimetres, each outline once."""
    found: dict[bytes, NDArray[np.float64]] = {}
    for contour in contours:
        kind = str(contour.get("ContourGeometricType") or "").strip().upper()
        data = contour.get("ContourData")
        if kind not in _CLOSED or data is None:
            continue
        if len(data) % 3 or len(data) > _MOST_POINTS:
            msg = "an outline has no whole number of points: export the structure set again."
            raise UnreadableError(msg)
        points = np.array([float(value) for value in data]).reshape(-1, 3)
        if not np.isfinite(points).all():
            msg = "a point of an outline is no number: export the structure set again."
            raise UnreadableError(msg)
        if len(points) >= 3:
            # Written twice, an outline would be its own hole.
            found.setdefault(np.round(points, 3).tobytes(), points)
    return list(found.values())


def _filled(
    contours: dict[int, list[NDArray[np.float64]]], classes: dict[int, int], image: Image
) -> NDArray[np.uint16]:
    shape = image.array.shape[1:]
    axis = _slice_axis(contours, image)
    turned = np.zeros((shape[axis], *(shape[a] for a in range(3) if a != axis)), np.uint16)
    overlap = 0
    for number, outlines in contours.items():
        placed = _placed(outlines, image, axis)
        _check_slices(placed, shape[axis])
        for slice_number in sorted({outline.number for outline in placed}):
            here = [o.points for o in placed if o.number == slice_number]
            area = fill(here, turned.shape[1:])
            overlap += merge(turned[slice_number], area, classes[number])
    check_overlap(overlap, _WHAT)
    if not turned.any() and contours:
        msg = "its outlines lie beside the image: name the structure set of this examination."
        raise UnreadableError(msg)
    return np.moveaxis(turned, 0, axis)


def _voxels(points: NDArray[np.float64], image: Image) -> NDArray[np.float64]:
    """Return LPS millimetres as voxels of the image."""
    affine = np.eye(4) if image.affine is None else image.affine
    to_voxel = np.linalg.inv(affine)
    ras = points * (-1.0, -1.0, 1.0)
    return np.asarray(ras @ to_voxel[:3, :3].T + to_voxel[:3, 3])


def _slice_axis(contours: dict[int, list[NDArray[np.float64]]], image: Image) -> int:
    """Return the axis of the image that every outline is flat along.

    Raises:
        UnreadableError: There is none: the outlines were drawn on slices of another direction.
    """
    spread = np.zeros(3)
    for outlines in contours.values():
        for points in outlines:
            spread = np.maximum(spread, np.ptp(_voxels(points, image), axis=0))
    axis = int(np.argmin(spread))
    if contours and spread[axis] > _FLAT:
        msg = (
            f"its outlines do not lie in the planes of the image (up to {spread[axis]:.2f} voxels "
            "off): name the images that they were drawn on."
        )
        raise UnreadableError(msg)
    return axis


def _placed(outlines: Sequence[NDArray[np.float64]], image: Image, axis: int) -> list[_Outline]:
    placed = []
    off, farthest = 0, 0.0
    for points in outlines:
        voxels = _voxels(points, image)
        depth = float(voxels[:, axis].mean())
        beside = abs(depth - round(depth))
        if beside > _OFF_SLICE:
            off, farthest = off + 1, max(farthest, beside)
        placed.append(_Outline(round(depth), np.delete(voxels, axis, axis=1)))
    if off:
        msg = (
            f"{off} of {len(outlines)} outlines of a structure lie between the image's slices (up "
            f"to {farthest:.2f} of a slice off): name the images that they were drawn on."
        )
        raise UnreadableError(msg)
    return placed


def _check_slices(placed: Sequence[_Outline], count: int) -> None:
    numbers = sorted({outline.number for outline in placed})
    outside = [number for number in numbers if not 0 <= number < count]
    if outside:
        msg = (
            f"outlines of a structure lie on {len(outside)} slices that the image does not have: "
            "complete the series, or name the images that they were drawn on."
        )
        raise UnreadableError(msg)
    gaps = set(np.diff(numbers).tolist())
    if len(numbers) >= 3 and len(gaps) == 1 and 1 < (gap := gaps.pop()) <= _SPARSEST:
        msg = (
            f"a structure is drawn on every {_ordinal(gap)} slice only, so that the slices between "
            "would be background: interpolate it, and export the structure set again."
        )
        raise UnreadableError(msg)


def _ordinal(number: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(number, f"{number}th")


def fill(outlines: Sequence[NDArray[np.float64]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which pixel centres lie inside closed outlines, by the even-odd rule.

    Each edge turns over all centres beyond its crossing of their line; the sum over the edges is
    odd inside (scan-line filling; Foley et al. 1990, Computer Graphics, 3.6).

    Args:
        outlines: Each ``(N, 2)``, in pixels: the centre of the first pixel is (0, 0).
        shape: Of the plane.
    """
    turns = np.zeros((shape[0], shape[1] + 1), np.int32)
    starts = np.concatenate(outlines)
    ends = np.concatenate([np.roll(points, -1, axis=0) for points in outlines])
    # The lines of centres that each edge crosses; one through its upper end belongs to the next.
    low, high = (
        np.clip(np.ceil(edge(starts[:, 0], ends[:, 0])), 0, shape[0]).astype(int)
        for edge in (np.minimum, np.maximum)
    )
    counts = high - low
    edges = np.repeat(np.arange(len(starts)), counts)
    lines = np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts, counts) + low[edges]
    (u, v), (du, dv) = starts[edges].T, (ends - starts)[edges].T
    crossings = np.clip(np.ceil(v + (lines - u) * dv / du), 0, shape[1]).astype(int)
    np.add.at(turns, (lines, crossings), 1)
    inside: NDArray[np.bool_] = np.cumsum(turns, axis=1)[:, : shape[1]] % 2 == 1
    return inside
