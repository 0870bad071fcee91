"""DICOM: a folder that holds one series, or a single file, which may have many frames."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.image import Stored, UnreadableError
from wardround.common.errors import install_command

_SAME_DIRECTION = 1e-3  # of unit vectors
_SAME_GAP = 0.05  # of the gap between slices: scanners round positions
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class _Frame:
    """One slice: pixels (rows, columns[, colours]) and where it lies, as far as the file says."""

    pixels: NDArray[Any]
    position: NDArray[np.float64] | None
    directions: NDArray[np.float64] | None
    spacing: tuple[float, float] | None
    thickness: float | None


def read_dicom(path: Path, dimensions: int) -> Stored:
    """Return a series.

    Rescale slope and intercept are applied (a CT comes in Hounsfield units), MONOCHROME1 is
    turned so that higher is brighter, and slices are sorted along their normal.

    Args:
        path: A folder with the files of one series, or one file.
        dimensions: 2 wants one frame, as (rows, columns[, 3]); 3 gives (x, y, z) with an affine.

    Raises:
        UnreadableError: It is not one consistent series of images.
    """
    frames = [frame for dataset in _read_series(path) for frame in _frames(dataset)]
    if dimensions == 3:
        return _stack(frames)
    if len(frames) != 1:
        msg = f"the series has {len(frames)} frames for a 2D study: name one file of one frame."
        raise UnreadableError(msg)
    return Stored(frames[0].pixels, frames[0].spacing, _slice_affine(frames[0]))


def _read_series(path: Path) -> list[Any]:
    import pydicom

    # pydicom's warnings quote values of a patient's file.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    files = [p for p in files if len(files) == 1 or _is_dicom(p)]
    # The index of a disc: usually DICOMDIR, but an export may call it anything.
    datasets = [d for d in map(pydicom.dcmread, files) if "DirectoryRecordSequence" not in d]
    if not datasets:
        msg = "the folder has no DICOM file: name the folder of one series."
        raise UnreadableError(msg)
    series = {str(dataset.get("SeriesInstanceUID", "")) for dataset in datasets}
    if len(series) > 1:
        msg = f"the folder mixes {len(series)} series: keep one series a folder."
        raise UnreadableError(msg)
    if any("PixelData" not in dataset for dataset in datasets):
        msg = "a file of the series has no pixels: keep only images in the folder."
        raise UnreadableError(msg)
    return datasets


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() == ".dcm":
        return True
    with path.open("rb") as stream:
        stream.seek(128)
        return stream.read(4) == b"DICM" and path.name.upper() != "DICOMDIR"


def _frames(dataset: Any) -> Iterator[_Frame]:
    pixels = _pixels(dataset)
    shared = _first(dataset.get("SharedFunctionalGroupsSequence"))
    own = dataset.get("PerFrameFunctionalGroupsSequence") or [None] * len(pixels)
    for values, groups in zip(pixels, own, strict=False):
        places = [place for place in (groups, shared) if place is not None]
        measures = _macro(places, "PixelMeasuresSequence", dataset)
        rescale = _macro(places, "PixelValueTransformationSequence", dataset)
        position = _macro(places, "PlanePositionSequence", dataset).get("ImagePositionPatient")
        turned = _macro(places, "PlaneOrientationSequence", dataset)
        directions = turned.get("ImageOrientationPatient")
        spacing = measures.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
        thickness = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness")
        yield _Frame(
            _rescaled(values, dataset, rescale),
            None if position is None or (len(pixels) > 1 and groups is None) else _vector(position),
            None if directions is None else _vector(directions),
            None if not spacing else (float(spacing[0]), float(spacing[1])),
            None if not thickness else abs(float(thickness)),
        )


def _first(sequence: Any) -> Any:
    return sequence[0] if sequence else None


def _macro(places: list[Any], name: str, dataset: Any) -> Any:
    """Return the item of a functional group, or the dataset itself where a classic file has it."""
    for place in places:
        item = _first(place.get(name))
        if item is not None:
            return item
    return dataset


def _vector(values: Any) -> NDArray[np.float64]:
    return np.array([float(value) for value in values])


def _pixels(dataset: Any) -> NDArray[Any]:
    """Return the stored values as (frames, rows, columns[, 3])."""
    try:
        values: NDArray[Any] = dataset.pixel_array
    except (NotImplementedError, RuntimeError, AttributeError):
        syntax = dataset.file_meta.TransferSyntaxUID
        if not syntax.is_compressed:
            raise
        msg = (
            f"the pixels are compressed ({syntax.name}) and no decoder could read them: "
            f"{install_command('dicom')}, or store the series uncompressed."
        )
        raise UnreadableError(msg) from None
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        values = apply_color_lut(values, dataset)
    return values if int(dataset.get("NumberOfFrames") or 1) > 1 else values[np.newaxis]


def _rescaled(values: NDArray[Any], dataset: Any, rescale: Any) -> NDArray[Any]:
    if values.ndim == 3:
        return values  # colours
    slope = float(rescale.get("RescaleSlope", 1) or 1)
    intercept = float(rescale.get("RescaleIntercept", 0) or 0)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        top = 2 ** int(dataset.BitsStored) - 1
        values = -1 - values if dataset.PixelRepresentation else top - (values & top)
    if (slope, intercept) == (1.0, 0.0):
        return values
    return values.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _slice_affine(frame: _Frame) -> NDArray[np.float64] | None:
    """Return where (row, column, 0) of a slice lies; None where the file does not say."""
    if frame.spacing is None or frame.directions is None or frame.position is None:
        return None
    along_row, along_column = frame.directions[:3], frame.directions[3:]
    affine = np.eye(4)
    affine[:3, 0] = along_column * frame.spacing[0]
    affine[:3, 1] = along_row * frame.spacing[1]
    affine[:3, 2] = np.cross(along_row, along_column) * (frame.thickness or 1.0)
    affine[:3, 3] = frame.position
    return _LPS_TO_RAS @ affine


def _stack(frames: list[_Frame]) -> Stored:
    """Return frames as a volume (x, y, z): columns, rows, slices."""
    first = frames[0]
    if any(frame.pixels.shape != first.pixels.shape for frame in frames):
        msg = "the slices have different sizes: keep one series a folder, without its localisers."
        raise UnreadableError(msg)
    _check_same([frame.directions for frame in frames], "orientation")
    _check_same([frame.spacing and np.array(frame.spacing) for frame in frames], "pixel spacing")
    frames, step = _sorted_along_normal(frames)
    volume = np.stack([frame.pixels.swapaxes(0, 1) for frame in frames], axis=2)
    gap = None if step is None else float(np.linalg.norm(step))
    first = frames[0]
    if first.spacing is None or gap is None:
        return Stored(volume)
    rows, columns = first.spacing
    spacing = (columns, rows, gap)
    if first.directions is None or first.position is None:
        return Stored(volume, spacing)
    affine = np.eye(4)
    affine[:3, 0] = first.directions[:3] * columns
    affine[:3, 1] = first.directions[3:] * rows
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    return Stored(volume, spacing, _LPS_TO_RAS @ affine)


def _check_same(vectors: list[NDArray[np.float64] | None], what: str) -> None:
    known = [vector for vector in vectors if vector is not None]
    if known and (
        len(known) < len(vectors)
        or any(not np.allclose(v, known[0], rtol=0, atol=_SAME_DIRECTION) for v in known)
    ):
        msg = f"the slices differ in {what}: keep one series a folder, without its localisers."
        raise UnreadableError(msg)


def _sorted_along_normal(
    frames: list[_Frame],
) -> tuple[list[_Frame], NDArray[np.float64] | None]:
    """Return frames in spatial order and the step from one to the next in millimetres (LPS)."""
    directions = frames[0].directions
    positions = [frame.position for frame in frames if frame.position is not None]
    normal = None if directions is None else np.cross(directions[:3], directions[3:])
    if normal is None or len(positions) < len(frames):
        if len(frames) > 1 and positions:
            msg = "some slices do not say where they lie: keep only complete files of the series."
            raise UnreadableError(msg)
        thickness = frames[0].thickness
        return frames, None if thickness is None else np.array([0.0, 0.0, thickness])
    if len(frames) == 1:
        return frames, normal * (frames[0].thickness or 1.0)
    depths = np.array([position @ normal for position in positions])
    order = np.argsort(depths, kind="stable")
    gaps = np.diff(depths[order])
    typical = float(np.median(gaps))
    if typical <= 0 or np.any(np.abs(gaps - typical) > max(_SAME_GAP * typical, 1e-3)):
        msg = (
            f"the gaps between slices go from {gaps.min():.3f} to {gaps.max():.3f} mm: "
            "complete the series, and remove slices that stand twice."
        )
        raise UnreadableError(msg)
    step = (positions[order[-1]] - positions[order[0]]) / (len(frames) - 1)
    return [frames[place] for place in order], step
