"""Boxes of a DICOM structured report (TID 1500): a box about each region that was measured."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.boxes.found import FoundBoxes, boxes_of
from wardround.client.data.reading.image import Image, UnreadableError

Points = NDArray[np.float64]
_GROUP, _FINDING = "125007", "121071"  # DCM: Measurement Group, Finding
_SURFACE = "121231"  # DCM: Volume Surface, of which the faces are items side by side
_DEEPEST, _MOST_ITEMS = 24, 100_000


def read_report(dataset: Any, image: Image, instance: str | None) -> FoundBoxes:
    """Return a box about each region; its class is the group's finding, by name.

    Of a picture the regions are taken that refer to it, in its own columns and rows. Of a volume
    those in millimetres of the patient; a contour in one slice is as thick as the slice, and the
    faces of a volume's surface are one region.

    Args:
        dataset: The report.
        image: As it was read.
        instance: SOP instance of a picture; None where the image has none.

    Raises:
        UnreadableError: Its regions are given in a way that does not fit the image.
    """
    flat = image.array.ndim == 3
    if flat and instance is None:
        msg = "a report's regions belong to a DICOM picture: name that file as image."
        raise UnreadableError(msg)
    if not flat and image.affine is None:
        msg = "its regions are in millimetres, and the image does not say how it lies: use DICOM."
        raise UnreadableError(msg)
    named = [
        (name, corners)
        for name, parts in _regions(dataset)
        if (corners := _corners(parts, image, instance)) is not None
    ]
    return boxes_of(named, 2 if flat else 3)


def _regions(dataset: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield the parts of each region with the name of its group's finding."""
    count = 0
    waiting: list[tuple[Any, str, int]] = [(dataset, "", 0)]
    while waiting:
        item, name, depth = waiting.pop()
        count += 1
        if depth > _DEEPEST or count > _MOST_ITEMS:
            msg = "it is a larger report than one of regions: export one a series."
            raise UnreadableError(msg)
        if str(item.get("ValueType", "")) in ("SCOORD", "SCOORD3D"):
            yield name, [item]
        children = list(item.get("ContentSequence", ()))
        if _concept(item) == _GROUP:
            name = next((_meaning(one) for one in children if _concept(one) == _FINDING), "")
            faces = [one for one in children if _is_face(one)]
            if faces:
                yield name, faces
                children = [one for one in children if not _is_face(one)]
                count += len(faces)
        waiting += [(one, name, depth + 1) for one in reversed(children)]


def _is_face(item: Any) -> bool:
    return _concept(item) == _SURFACE and str(item.get("ValueType", "")) == "SCOORD3D"


def _concept(item: Any) -> str:
    named = item.get("ConceptNameCodeSequence")
    return str(named[0].get("CodeValue", "")) if named else ""


def _meaning(item: Any) -> str:
    code = item.get("ConceptCodeSequence")
    return str(code[0].get("CodeMeaning", "")) if code else ""


def _corners(parts: list[Any], image: Image, instance: str | None) -> list[float] | None:
    """Return the first and the last corner of a region; None for one of another picture."""
    region = parts[0]
    flat, in_space = image.array.ndim == 3, str(region.ValueType) == "SCOORD3D"
    if flat != (not in_space):
        if flat:
            msg = "its regions are in millimetres of a patient, and the study is of pictures: "
            remedy = "export them in columns and rows of the picture (SCOORD)."
        else:
            msg = "its regions are in columns and rows of slices, and the study is of volumes: "
            remedy = "export them in millimetres (SCOORD3D), or as a segmentation (SEG)."
        raise UnreadableError(msg + remedy)
    numbers = [number for part in parts for number in part.get("GraphicData", ())]
    points = np.array(numbers, dtype=np.float64)
    if points.size == 0 or points.size % (3 if in_space else 2):
        msg = "a region has no whole points: export the report anew."
        raise UnreadableError(msg)
    kind = str(region.get("GraphicType", ""))
    if not in_space:
        referenced = {
            str(one.get("ReferencedSOPInstanceUID", ""))
            for item in region.get("ContentSequence", ())
            for one in item.get("ReferencedSOPSequence", ())
        }
        if instance not in referenced:
            return None
        low, high = _ends(points.reshape(-1, 2), kind)
        return [*low, *high]
    low, high = _ends(_voxels(points.reshape(-1, 3), image), kind)
    # Voxel 3 reaches from 2.5 to 3.5 in the affine's numbers, and from 3 to 4 in those of boxes.
    low, high = low + 0.5, high + 0.5
    thin = high - low < 1e-3
    low = np.where(thin, np.floor(low + 1e-3), low)
    high = np.where(thin & (kind not in ("POINT", "MULTIPOINT")), low + 1, high)
    return [*low, *high]


def _voxels(points: Points, image: Image) -> Points:
    ras = points * np.array([-1.0, -1.0, 1.0])  # DICOM counts to the left and to the back
    affine = np.asarray(image.affine, dtype=np.float64)
    voxels: Points = np.linalg.solve(affine[:3, :3], (ras - affine[:3, 3]).T).T
    return voxels


def _ends(points: Points, kind: str) -> tuple[Points, Points]:
    """Return the lowest and the highest place of a shape along each axis."""
    if kind == "CIRCLE" and len(points) == 2:
        reach = np.full(points.shape[1], np.linalg.norm(points[1] - points[0]))
        return points[0] - reach, points[0] + reach
    if kind in ("ELLIPSE", "ELLIPSOID") and len(points) in (4, 6):
        # Ends of each axis, one after the other: the reach is the root of their squares' sum.
        centre = points.mean(axis=0)
        halves = (points[1::2] - points[::2]) / 2
        reach = np.sqrt((halves**2).sum(axis=0))
        return centre - reach, centre + reach
    return points.min(axis=0), points.max(axis=0)
