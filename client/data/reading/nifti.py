"""NIfTI: where the header says that voxels lie, and the voxels of one volume or slice.

The sform says it where its code is set, else the qform; the voxel size follows from what says it.
Where neither is set the file does not say how it lies, and only ``pixdim`` is known.
"""

import gzip
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.image import MOST_VOXELS, Stored, UnreadableError, turned

_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown, metre, millimetre, micrometre
_LARGEST_VOXEL_MM = 100.0  # larger than any slice of a patient is thick: the unit is wrong
_LEAST_SINE = 0.01  # of the angle by which two axes may miss 90 degrees: rounding, not a tilt
_SINGLE = float(np.finfo(np.float32).eps)
_HEADER_BYTES = 540  # of NIfTI-2; NIfTI-1 has 348


@dataclass(frozen=True, slots=True)
class NiftiGeometry:
    """What a header says, in millimetres.

    Attributes:
        shape: Three spatial axes, then what else is longer than 1.
        spacing: Of the three axes.
        affine: From voxels to RAS millimetres; None where neither sform nor qform is set.
        has_depth: Whether the header itself has three axes, and not two.
        rounding: As in :class:`wardround.client.data.reading.image.Image`.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, float, float]
    affine: NDArray[Any] | None
    has_depth: bool
    rounding: float = 0.0


def read_geometry(path: Path) -> NiftiGeometry:
    """Return what a file's header says; no voxel is read.

    Raises:
        UnreadableError: It says nothing that can be used.
    """
    header = _raw_header(path)
    dims = tuple(int(size) for size in header.get_data_shape())
    shape = (*dims, 1, 1, 1)[: max(3, len(dims))]
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if any(size < 1 for size in shape) or math.prod(shape) > MOST_VOXELS:
        msg = (
            f"its header says {_by(shape)} voxels: a volume has 1 to {MOST_VOXELS:,}. Replace it, "
            "or crop it."
        )
        raise UnreadableError(msg)
    unit = _unit(header)
    _fill_in(header, shape)
    pixdim = [float(step) * unit for step in header["pixdim"][1:4]]
    _check_pixdim(pixdim)
    affine = _affine(header, pixdim)
    if affine is None:
        sizes = pixdim
    else:
        affine = np.diag([unit, unit, unit, 1.0]) @ affine
        sizes = np.linalg.norm(affine[:3, :3], axis=0).tolist()
        _check_affine(affine, sizes, shape)
    _check_size(sizes, shape)
    return NiftiGeometry(
        shape, (sizes[0], sizes[1], sizes[2]), affine, len(dims) > 2, _rounding(header)
    )


def read_nifti(path: Path, dimensions: int, channel: tuple[int | None, int | None]) -> Stored:
    """Return one volume (x, y, z), or one slice as (row, column), upright.

    A slice lies as radiology shows it: the patient's front (from the side: head) on top, the
    patient's right (from the side: front) at the left.

    Args:
        path: A .nii or .nii.gz file.
        dimensions: 2 or 3.
        channel: Of a file with a fourth axis, which of its volumes, and how many it must have;
            None where that is not said.

    Raises:
        UnreadableError: It is not one volume, or not one slice, of real numbers.
    """
    import nibabel

    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # what it mends we refuse
    geometry = read_geometry(path)
    _check_axes(geometry, dimensions, channel)
    data = nibabel.load(path).dataobj
    if data.dtype.kind not in "buif":
        what = {"V": "colours", "c": "complex numbers"}.get(data.dtype.kind, "not numbers")
        msg = f"its voxels are {what}, not real numbers: save them as real numbers."
        raise UnreadableError(msg)
    if len(geometry.shape) > 3:
        rest = (0,) * (len(data.shape) - 4)
        values = np.asarray(data[:, :, :, channel[0] or 0, *rest])
    else:
        values = np.asarray(data)
    values = values.reshape(geometry.shape[:3])
    if dimensions == 2:
        return _upright(values, geometry)
    return Stored(
        values,
        geometry.spacing,
        geometry.affine,
        is_unplaced=geometry.affine is None,
        rounding=geometry.rounding,
    )


def _check_axes(
    geometry: NiftiGeometry, dimensions: int, channel: tuple[int | None, int | None]
) -> None:
    index, count = channel
    volumes = geometry.shape[3] if len(geometry.shape) == 4 else 1
    flat = sum(size > 1 for size in geometry.shape[:3]) < 3
    if len(geometry.shape) > 4 or (dimensions == 2 and not flat):
        raise _too_many_axes(geometry, dimensions)
    if dimensions == 3 and not geometry.has_depth:
        raise _too_many_axes(geometry, dimensions)
    if index is None and volumes > 1:
        msg = (
            f"it holds {volumes} volumes: list {volumes} channels in data.channels, where each is "
            "one of a patient, or name one as FILE#0."
        )
        raise UnreadableError(msg)
    if count is not None and count != volumes:
        msg = (
            f"it holds {volumes} volumes for {count} channels: list a channel for each in "
            "data.channels, or give the manifest a column for each channel."
        )
        raise UnreadableError(msg)
    if index is not None and index >= volumes:
        msg = (
            f"it holds {volumes} volumes, counted from 0, and no volume {index}: mend the number "
            "after '#'."
        )
        raise UnreadableError(msg)


def _too_many_axes(geometry: NiftiGeometry, dimensions: int) -> UnreadableError:
    shape = geometry.shape if geometry.has_depth else geometry.shape[:2]
    msg = (
        f"its shape is {_by(shape)} for a {dimensions}D study: name a {dimensions}D image. Slices "
        "of a volume are no colours."
    )
    return UnreadableError(msg)


def _upright(values: NDArray[Any], geometry: NiftiGeometry) -> Stored:
    from nibabel.orientations import io_orientation

    affine = geometry.affine
    # Without sform and qform x runs to the patient's left and y to the front, as in ANALYZE.
    known = np.diag([-1.0, 1.0, 1.0, 1.0]) if affine is None else affine
    to_world = io_orientation(known)
    long = [axis for axis in range(3) if values.shape[axis] > 1]
    normal = next((axis for axis in (2, 1, 0) if axis not in long), 2)
    row, column = sorted(
        (axis for axis in range(3) if axis != normal), key=lambda axis: -to_world[axis, 0]
    )
    # RAS grows to the right, front and head: a picture's rows and columns run the other way.
    flips = (to_world[row, 1] > 0, to_world[column, 1] > 0, False)
    plane, lying = turned(values, known, (row, column, normal), flips)
    spacing = (geometry.spacing[row], geometry.spacing[column])
    is_turned = any(flips) or (row, column) != (1, 0)
    where = None if affine is None else lying
    return Stored(plane[..., 0], spacing, where, affine is None, is_turned, geometry.rounding)


def _raw_header(path: Path) -> Any:
    """Return the header as it stands in the file: nibabel's own loading mends what is wrong."""
    from nibabel import Nifti1Header, Nifti2Header

    if path.name.lower().endswith(".gz"):
        with gzip.open(path, "rb") as stream:
            block = stream.read(_HEADER_BYTES)
    else:
        with path.open("rb") as plain:
            block = plain.read(_HEADER_BYTES)
    kind = Nifti2Header if block[4:8] == b"n+2\0" else Nifti1Header
    size = kind.template_dtype.itemsize
    header = kind(block[:size], check=False) if len(block) >= size else None
    if (
        header is None
        or int(header["sizeof_hdr"]) != size
        or bytes(header["magic"])[:3]
        not in (
            b"n+1",
            b"n+2",
        )
    ):
        msg = "it is no NIfTI file, or packed twice: save it as .nii or .nii.gz."
        raise UnreadableError(msg)
    return header


def _unit(header: Any) -> float:
    code = int(header["xyzt_units"]) % 8
    if code not in _MILLIMETRES:
        msg = f"its header gives the unit {code} of lengths, which is none: mend xyzt_units."
        raise UnreadableError(msg)
    return _MILLIMETRES[code]


def _fill_in(header: Any, shape: tuple[int, ...]) -> None:
    """Give what a header may leave out: which way a qform turns, the thickness of a lone slice."""
    pixdim = header["pixdim"]
    if pixdim[0] not in (-1, 1):
        pixdim[0] = 1
    for axis in range(3):
        if shape[axis] == 1 and pixdim[axis + 1] == 0:
            pixdim[axis + 1] = 1


def _check_pixdim(pixdim: list[float]) -> None:
    for axis, step in enumerate(pixdim):
        if not math.isfinite(step) or step == 0:
            msg = (
                f"its header gives no positive voxel size: pixdim[{axis + 1}] is {step:g}. "
                "Mend the header."
            )
            raise UnreadableError(msg)


def _affine(header: Any, pixdim: list[float]) -> NDArray[Any] | None:
    """Return the sform, or the qform where there is none, in the header's own unit."""
    sform: NDArray[Any] | None = header.get_sform(coded=True)[0]
    qform: NDArray[Any] | None = None
    if int(header["qform_code"]) > 0 and min(pixdim) > 0:
        try:
            qform = header.get_qform(coded=True)[0]
        except ValueError:
            if sform is None:
                msg = "its qform is no rotation: mend the header."
                raise UnreadableError(msg) from None
    elif sform is None and min(pixdim) < 0:
        msg = f"its header gives no positive voxel size but {min(pixdim):g}: mend pixdim."
        raise UnreadableError(msg)
    if sform is None:
        return qform
    if qform is not None and _codes(sform) != _codes(qform):
        msg = (
            f"its sform says that the axes point to {_codes(sform)}, its qform {_codes(qform)}: "
            "write the right one into both."
        )
        raise UnreadableError(msg)
    return sform


def _rounding(header: Any) -> float:
    """Return the radians by which a qform is uncertain; 0 where the sform says how voxels lie.

    A quaternion is stored without its first number, ``a = sqrt(1 - b^2 - c^2 - d^2)``: where that
    is near 0, after half a turn, the rounding of the others to single precision shows.
    """
    if int(header["sform_code"]) > 0 or int(header["qform_code"]) <= 0:
        return 0.0
    others = sum(float(header[name]) ** 2 for name in ("quatern_b", "quatern_c", "quatern_d"))
    first = math.sqrt(max(0.0, 1 - others))
    return 4 * _SINGLE / max(first, math.sqrt(_SINGLE))


def _codes(affine: NDArray[Any]) -> str:
    from nibabel.orientations import aff2axcodes

    if not np.isfinite(affine).all():
        return "nowhere"
    return "".join(code or "?" for code in aff2axcodes(affine))


def _check_affine(affine: NDArray[Any], sizes: list[float], shape: tuple[int, ...]) -> None:
    linear = affine[:3, :3]
    if sizes[2] == 0 and shape[2] == 1:  # a slice that says nothing of its own thickness
        normal = np.cross(linear[:, 0], linear[:, 1])
        size = float(np.linalg.norm(normal))
        linear[:, 2] = normal / size if size else normal
        sizes[2] = float(np.linalg.norm(linear[:, 2]))
    if not np.isfinite(affine).all() or min(sizes) <= 0:
        msg = "its header gives no usable orientation: mend sform and qform."
        raise UnreadableError(msg)
    directions = linear / np.array(sizes)
    cosine = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if cosine > _LEAST_SINE:
        angle = math.degrees(math.acos(min(1.0, cosine)))
        msg = (
            f"two of its axes meet at {angle:.1f} degrees and not at 90 (a tilted gantry, or an "
            "affine registration): resample the volume to a grid with right angles."
        )
        raise UnreadableError(msg)


def _check_size(sizes: list[float], shape: tuple[int, ...]) -> None:
    along = [size for size, count in zip(sizes, shape, strict=False) if count > 1]
    if along and max(along) > _LARGEST_VOXEL_MM:
        msg = (
            f"its header says that voxels are {max(along):g} mm large: mend the voxel size, or the "
            "unit of lengths (xyzt_units)."
        )
        raise UnreadableError(msg)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
