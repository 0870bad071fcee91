"""DICOM segmentations (SEG): binary, fractional and label maps, as one mask of class indices.

Each frame is placed by its position, whatever their order; frames that were left out because they
are empty are background. On the image's grid where the frames lie on it, or else on their own.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.dicom.frames import (
    LPS_TO_RAS,
    Header,
    Place,
    first,
    frame_of_reference,
    gap_of,
    headers_of,
    place_of,
    slice_affine,
)
from wardround.client.data.reading.dicom.labels import check_overlap, match_classes, merge
from wardround.client.data.reading.dicom.pixels import decoded
from wardround.client.data.reading.image import Image, MaskTarget, Stored, UnreadableError

_ON_GRID = 0.02  # voxels that a frame may lie beside the grid of the image
_SAME_AXIS = 1e-3  # of a voxel a voxel
_SAME_PLANE = 0.01  # millimetres
_LEANS = 0.2  # pixels between frames that lie sideways of each other
_WHAT = "segment"


@dataclass(frozen=True, slots=True)
class _Layer:
    """One frame as labels, and where it lies."""

    labels: NDArray[np.uint16]
    place: Place
    gap: float | None


def read_segmentation(dataset: Any, dimensions: int, target: MaskTarget) -> Stored:
    """Return the mask of a segmentation.

    Args:
        dataset: Of one of the two SOP classes of segmentations.
        dimensions: 2 wants all frames on one plane, as (rows, columns); 3 gives (x, y, z).
        target: The classes that segments are matched with, and the image.

    Raises:
        UnreadableError: Segments cannot be matched with classes, two overlap, or their places are
            not said.
    """
    if dataset.get("TotalPixelMatrixRows") and int(dataset.get("NumberOfFrames") or 1) > 1:
        msg = "it is a segmentation of a slide in tiles: save it as one picture of labels."
        raise UnreadableError(msg)
    _check_frame(dataset, target.image)
    names = {
        int(s.SegmentNumber): [target.named(text) for text in _names(s)]
        for s in dataset.get("SegmentSequence") or ()
    }
    names.pop(0, None)  # of a label map: what is no segment
    if not names:
        msg = "the segmentation describes no segment: export it again."
        raise UnreadableError(msg)
    matched = match_classes(names, target.classes, _WHAT)
    layers = _layers(dataset, names, matched.classes)
    if dimensions == 2:
        affine = slice_affine(layers[0].place, layers[0].gap)
        spacing = layers[0].place.spacing
        return Stored(_flat(layers), spacing, affine, notes=matched.notes, is_matched=True)
    places = [(layer.place.position, layer.place.axes, layer.place.spacing) for layer in layers]
    if any(part is None for place in places for part in place):
        msg = "its frames do not say where they lie: export the segmentation again."
        raise UnreadableError(msg)
    stored = _on_image(layers, target.image) or _on_own_grid(layers)
    frame = frame_of_reference(dataset)
    return replace(stored, notes=matched.notes, frame=frame, is_matched=True)


def _check_frame(dataset: Any, image: Image | None) -> None:
    frame = frame_of_reference(dataset)
    if image is not None and frame and image.frame and image.frame != frame:
        msg = (
            "it is drawn in another system of coordinates (frame of reference) than the image has: "
            "name the mask of this examination."
        )
        raise UnreadableError(msg)


def _names(segment: Any) -> list[str]:
    """Return the label of a segment, then the meaning of its coded type."""
    kind = first(segment.get("SegmentedPropertyTypeCodeSequence"))
    meaning = "" if kind is None else str(kind.get("CodeMeaning") or "")
    return [str(segment.get("SegmentLabel") or ""), meaning]


def _layers(dataset: Any, numbers: Collection[int], classes: Mapping[int, int]) -> list[_Layer]:
    """Return the frames that hold something, as labels; an empty one where none does.

    Args:
        dataset: The segmentation.
        numbers: Of the segments that it describes.
        classes: Label of each that is of a class.
    """
    pixels = decoded(dataset, as_indices=True)
    kind = str(dataset.get("SegmentationType") or "BINARY").strip().upper()
    layers = []
    for values, header in zip(pixels, headers_of(dataset, len(pixels)), strict=True):
        place = place_of(header, is_alone=len(pixels) == 1)
        if kind == "LABELMAP":
            labels = _labels_of_map(values, numbers, classes)
        else:
            label = classes.get(_segment_number(header, numbers), 0)
            labels = _is_inside(values, dataset, kind).astype(np.uint16) * np.uint16(label)
        layers.append(_Layer(labels, place, gap_of(header)))
    return [layer for layer in layers if layer.labels.any()] or layers[:1]


def _is_inside(values: NDArray[Any], dataset: Any, kind: str) -> NDArray[np.bool_]:
    if kind != "FRACTIONAL":
        return np.asarray(values != 0)
    # At least half: of the voxel (OCCUPANCY), or of certainty (PROBABILITY).
    whole = int(dataset.get("MaximumFractionalValue") or 255)
    return 2 * values.astype(np.int64) >= whole


def _labels_of_map(
    values: NDArray[Any], numbers: Collection[int], classes: Mapping[int, int]
) -> NDArray[np.uint16]:
    _check_described({int(value) for value in np.unique(values)} - {0}, numbers)
    labels = np.zeros(values.shape, np.uint16)
    for number, label in classes.items():
        labels[values == number] = label
    return labels


def _segment_number(header: Header, numbers: Collection[int]) -> int:
    number = header.get("SegmentIdentificationSequence", "ReferencedSegmentNumber")
    if number in (None, ""):
        if len(numbers) == 1:
            return next(iter(numbers))
        msg = "a frame does not say which segment it is of: export the segmentation again."
        raise UnreadableError(msg)
    _check_described({int(number)}, numbers)
    return int(number)


def _check_described(used: set[int], numbers: Collection[int]) -> None:
    unknown = sorted(used - set(numbers))
    if unknown:
        msg = (
            f"it has pixels of segment {unknown[0]}, which it does not describe: export the "
            "segmentation again."
        )
        raise UnreadableError(msg)


def _flat(layers: list[_Layer]) -> NDArray[np.uint16]:
    """Return all frames on one plane as one mask."""
    positions = [layer.place.position for layer in layers]
    places = {tuple(np.round(p / _SAME_PLANE)) for p in positions if p is not None}
    if len(places) > 1:
        msg = (
            f"the segmentation lies on {len(places)} planes for a 2D study: export one for each "
            "image, or use the volumes in a 3D study."
        )
        raise UnreadableError(msg)
    mask = np.zeros(layers[0].labels.shape, np.uint16)
    overlap = sum(_merged(mask, layer.labels) for layer in layers)
    check_overlap(overlap, _WHAT)
    return mask


def _merged(mask: NDArray[np.uint16], labels: NDArray[np.uint16]) -> int:
    return sum(merge(mask, labels == label, int(label)) for label in np.unique(labels) if label)


def _frame_affine(place: Place) -> NDArray[np.float64]:
    """Return the matrix from (column, row, 0) of a frame to RAS millimetres."""
    affine = np.eye(4)
    rows, columns = place.spacing or (1.0, 1.0)
    if place.axes is not None and place.position is not None:
        affine[:3, :3] = place.axes.T * (columns, rows, 1.0)
        affine[:3, 3] = place.position
    return np.asarray(LPS_TO_RAS @ affine)


def _on_image(layers: list[_Layer], image: Image | None) -> Stored | None:
    """Return the mask on the image's grid; None where its frames do not lie on it."""
    if image is None or image.affine is None:
        return None
    to_voxel = np.linalg.inv(image.affine)
    frames = np.array([to_voxel @ _frame_affine(layer.place) for layer in layers])
    starts = _starts(frames)
    if starts is None:
        return None
    shape = image.array.shape[1:]
    mask = np.zeros(shape, np.uint16)
    overlap = 0
    for layer, frame, start in zip(layers, frames, starts, strict=True):
        indices = _indices(np.round(frame[:3, :2]).astype(int), start, layer.labels.shape)
        within = np.ones(layer.labels.shape, bool)
        for index, size in zip(indices, shape, strict=True):
            within &= (index >= 0) & (index < size)
        if layer.labels[~within].any():
            return None
        inside = tuple(index[within] for index in indices)
        there = mask[inside]
        overlap += _merged(there, layer.labels[within])
        mask[inside] = there
    check_overlap(overlap, _WHAT)
    return Stored(mask, image.spacing, image.affine)


def _starts(frames: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """Return the voxel ``(frames, 3)`` of each first pixel; None where there is no such voxel.

    Frames drawn on slices of a tilted gantry lie between the pixels of the image, whose tilt was
    taken out, each by another part of a pixel: they move to the nearest.

    Args:
        frames: ``(frames, 4, 4)`` from (column, row, 0) to voxels.
    """
    steps = np.round(frames[:, :3, :2])
    if np.abs(frames[:, :3, :2] - steps).max() > _SAME_AXIS or (np.abs(steps).sum(1) != 1).any():
        return None
    starts = frames[:, :3, 3]
    beside = np.abs(starts - np.round(starts))
    in_plane = np.abs(steps).sum(axis=2) > 0
    if beside[~in_plane].max(initial=0) > _ON_GRID:
        return None
    leans = np.ptp(np.where(in_plane, starts, 0), axis=0).max() > _LEANS
    if beside.max() > _ON_GRID and not leans:
        return None
    return np.asarray(np.round(starts).astype(np.int64))


def _indices(
    steps: NDArray[np.int64], start: NDArray[np.int64], shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], ...]:
    """Return the voxel of each pixel: three arrays (rows, columns)."""
    row, column = np.mgrid[: shape[0], : shape[1]]
    return tuple(start[a] + steps[a, 0] * column + steps[a, 1] * row for a in range(3))


def _on_own_grid(layers: list[_Layer]) -> Stored:
    """Return the mask on the grid that its frames span.

    Raises:
        UnreadableError: The frames do not lie evenly on one grid.
    """
    place = layers[0].place
    normal, position = place.normal, place.position
    if normal is None or position is None:  # never: it was asked before
        return Stored(layers[0].labels)
    _check_alike(layers)
    offsets = np.array([np.asarray(layer.place.position) - position for layer in layers])
    depths = offsets @ normal
    planes = np.unique(np.round(depths / _SAME_PLANE)) * _SAME_PLANE
    gap = layers[0].gap or (float(np.diff(planes).min()) if len(planes) > 1 else 1.0)
    slots = (depths - depths.min()) / gap
    sideways = offsets - np.outer(depths, normal)
    if np.abs(slots - np.round(slots)).max() > 0.1 or np.abs(sideways).max() > 0.1 * gap:
        msg = (
            f"the frames of the segmentation do not lie evenly, {gap:.3f} mm apart: export it on "
            "the grid of the image."
        )
        raise UnreadableError(msg)
    numbers = np.round(slots).astype(int)
    rows, columns = layers[0].labels.shape
    mask = np.zeros((columns, rows, int(numbers.max()) + 1), np.uint16)
    overlap = 0
    for layer, number in zip(layers, numbers, strict=True):
        overlap += _merged(mask[:, :, number], layer.labels.T)
    check_overlap(overlap, _WHAT)
    deepest = layers[int(np.argmin(depths))].place
    affine = _frame_affine(deepest)
    affine[:3, 2] *= gap
    spacing = place.spacing or (1.0, 1.0)
    return Stored(mask, (spacing[1], spacing[0], gap), affine)


def _check_alike(layers: list[_Layer]) -> None:
    first_layer = layers[0]
    axes = [_frame_affine(layer.place)[:3, :3] for layer in layers]
    for layer, turned in zip(layers, axes, strict=True):
        same = layer.labels.shape == first_layer.labels.shape
        if not same or not np.allclose(turned, axes[0], atol=1e-4):
            msg = (
                "the frames of the segmentation differ in size, spacing or orientation: export it "
                "on the grid of the image."
            )
            raise UnreadableError(msg)
