"""From slices to a volume: sorted by place, evenly spaced, and straight.

A volume of a tilted gantry is sheared: each slice is shifted in its own plane against the one
before. The slices are shifted back by linear interpolation, so that a ball stays a ball (as
dcm2niix does). Oblique slices that follow each other along their normal are left as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.dicom.frames import (
    LPS_TO_RAS,
    Frame,
    Place,
    frame_of_reference,
    gap_of,
)
from wardround.client.data.reading.dicom.kinds import is_ct
from wardround.client.data.reading.dicom.values import AIR
from wardround.client.data.reading.image import Stored, UnreadableError

_SAME_DIRECTION = 1e-3  # of unit vectors
_SAME_SPACING = 1e-3  # millimetres
_SAME_GAP = 0.05  # of the gap, that a slice may lie off its place: scanners round positions
_SAME_COLUMN = 0.1  # pixels that a whole volume may lean sideways and count as straight
_JITTER = 0.5  # pixels that a slice may lie beside the lean
_CONTENT = 0.1  # of the range of values: above it lies more than air
_SMALL_TILT = 0.5  # degrees


def stacked(frames: list[Frame], is_mask: bool = False) -> Stored:
    """Return slices as a volume ``(x, y, z)``: columns, rows, slices.

    Args:
        frames: Of one volume, in any order.
        is_mask: Whether to keep labels whole where slices are shifted.

    Raises:
        UnreadableError: The slices are not those of one regular volume.
    """
    _check_alike(frames)
    place = frames[0].place
    normal = place.normal
    positions = [frame.place.position for frame in frames if frame.place.position is not None]
    if normal is None or len(positions) < len(frames):
        return _unplaced(frames, any_placed=bool(positions))
    depths = np.array([position @ normal for position in positions])
    order = np.argsort(depths, kind="stable")
    frames = [frames[number] for number in order]
    gap = _even_gap(depths[order], frames[0])
    slices = [frame.pixels for frame in frames]
    if place.spacing is None:
        return Stored(_volume(slices))
    _check_tilt(frames[0], normal)
    rows, columns = place.spacing
    grid = _Grid(np.array(positions)[order], place, (columns, rows, gap))
    frame = frame_of_reference(frames[0].header.dataset)
    lean = grid.lean()
    if lean is None:
        return Stored(_volume(slices), grid.spacing, grid.affine(), frame=frame)
    slices, corner = _straightened(slices, lean, None if is_mask else _outside(frames))
    note = f"a gantry tilt of {grid.degrees(lean):.1f} degrees was taken out"
    affine = grid.straight_affine(corner)
    return Stored(_volume(slices), grid.spacing, affine, notes=(note,), frame=frame)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where sorted slices lie.

    Attributes:
        positions: ``(slices, 3)`` of their first pixels, LPS millimetres.
        place: Of any of them: their directions are the same.
        spacing: From column to column, row to row, slice to slice.
    """

    positions: NDArray[np.float64]
    place: Place
    spacing: tuple[float, float, float]

    @property
    def axes(self) -> NDArray[np.float64]:
        """``(3, 3)``: unit vectors along a row, along a column, and along the normal."""
        # Never without: it is asked before a grid is made.
        return np.eye(3) if self.place.axes is None else self.place.axes

    def lean(self) -> NDArray[np.float64] | None:
        """Return ``(slices, 2)``: pixels that each slice lies beside the middle one; None if none.

        Raises:
            UnreadableError: The slices lie sideways of each other without a rule.
        """
        sideways = (self.positions - self._middle) @ self.axes[:2].T / self.spacing[:2]
        number = np.arange(len(sideways)) - len(sideways) // 2
        if len(sideways) < 2:
            return None
        slope = (sideways * number[:, np.newaxis]).sum(0) / (number**2).sum()
        lean: NDArray[np.float64] = number[:, np.newaxis] * slope
        if np.abs(sideways - lean).max() > _JITTER:
            msg = (
                f"the slices lie up to {np.abs(sideways - lean).max():.1f} pixels beside each "
                "other without a rule: keep the slices of one acquisition."
            )
            raise UnreadableError(msg)
        return lean if np.abs(lean[-1] - lean[0]).max() > _SAME_COLUMN else None

    @property
    def _middle(self) -> NDArray[np.float64]:
        return np.asarray(self.positions[len(self.positions) // 2])

    def degrees(self, lean: NDArray[np.float64]) -> float:
        """Return the angle between the way of the slices and their normal."""
        sideways = np.linalg.norm((lean[-1] - lean[0]) * self.spacing[:2]) / (len(lean) - 1)
        return float(np.degrees(np.arctan2(sideways, self.spacing[2])))

    def affine(self) -> NDArray[np.float64]:
        """Return the matrix from voxels to RAS millimetres of the slices as they lie."""
        count = len(self.positions)
        step = self.axes[2] * self.spacing[2]
        if count > 1:
            step = (self.positions[-1] - self.positions[0]) / (count - 1)
        return self._affine(step, self.positions[0])

    def straight_affine(self, corner: tuple[int, int]) -> NDArray[np.float64]:
        """Return that of the straightened slices.

        Args:
            corner: Column and row, in the middle slice, of the first voxel.
        """
        axes = self.axes
        start = self._middle + (self.positions[0] - self._middle) @ axes[2] * axes[2]
        start = start + (np.array(corner) * self.spacing[:2]) @ axes[:2]
        return self._affine(axes[2] * self.spacing[2], start)

    def _affine(self, step: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        affine = np.eye(4)
        affine[:3, :2] = (self.axes[:2] * np.array(self.spacing[:2])[:, np.newaxis]).T
        affine[:3, 2], affine[:3, 3] = step, start
        return np.asarray(LPS_TO_RAS @ affine)


def _outside(frames: Sequence[Frame]) -> float:
    """Return the value of what no slice shows: air in a CT, or else the darkest."""
    darkest = float(min(frame.pixels.min() for frame in frames))
    return min(darkest, AIR) if is_ct(frames[0].header.dataset) else darkest


def _straightened(
    slices: Sequence[NDArray[Any]], lean: NDArray[np.float64], outside: float | None
) -> tuple[list[NDArray[Any]], tuple[int, int]]:
    """Return slices shifted back, and the corner of the new grid in pixels of the middle slice.

    The grid is as large as a slice, and grows where anything but air would fall off it.

    Args:
        slices: ``(rows, columns[, 3])`` each.
        lean: ``(slices, 2)``, columns and rows that each lies beside the middle one.
        outside: What lies beyond them; None for a mask, whose labels are not mixed.
    """
    low = np.floor(lean.min(0)).astype(int)
    high = np.ceil(lean.max(0)).astype(int)
    rows, columns = slices[0].shape[:2]
    shape = (rows + high[1] - low[1], columns + high[0] - low[0], *slices[0].shape[2:])
    shifted = [_shifted(s, lean[i] - low, shape, outside) for i, s in enumerate(slices)]
    # What is kept: the middle slice's own window, and all that holds more than air.
    air = outside or 0.0
    if outside is not None:
        air += _CONTENT * (max(float(s.max()) for s in slices) - outside)
    full = np.logical_or.reduce([s > air for s in shifted])
    full = full.any(axis=2) if full.ndim == 3 else full
    first_row, last_row = _window(full.any(axis=1), -low[1], rows)
    first_column, last_column = _window(full.any(axis=0), -low[0], columns)
    kept = [s[first_row:last_row, first_column:last_column] for s in shifted]
    return kept, (int(low[0] + first_column), int(low[1] + first_row))


def _window(full: NDArray[np.bool_], start: int, size: int) -> tuple[int, int]:
    used = np.flatnonzero(full)
    if used.size == 0:
        return start, start + size
    return min(start, int(used[0])), max(start + size, int(used[-1]) + 1)


def _shifted(
    pixels: NDArray[Any], by: NDArray[np.float64], shape: tuple[int, ...], outside: float | None
) -> NDArray[Any]:
    """Return a slice on a larger grid, ``by`` pixels (columns, rows) from its corner."""
    rows, columns = pixels.shape[:2]
    if outside is None:
        mask = np.zeros(shape, pixels.dtype)
        whole = np.round(by).astype(int)
        mask[whole[1] : whole[1] + rows, whole[0] : whole[0] + columns] = pixels
        return mask
    whole = np.floor(by).astype(int)
    part = (by - whole).astype(np.float32)
    result = np.full(shape, outside, np.float32)
    # Linear interpolation in two steps; beyond the border lies the fill.
    framed = np.full((rows + 2, columns + 2, *pixels.shape[2:]), outside, np.float32)
    framed[1:-1, 1:-1] = pixels
    mixed = framed[1:] * (1 - part[1]) + framed[:-1] * part[1]
    mixed = mixed[:, 1:] * (1 - part[0]) + mixed[:, :-1] * part[0]
    target = result[whole[1] : whole[1] + rows + 1, whole[0] : whole[0] + columns + 1]
    target[...] = mixed[: target.shape[0], : target.shape[1]]
    return result


def _volume(slices: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.stack([pixels.swapaxes(0, 1) for pixels in slices], axis=2)


def _unplaced(frames: Sequence[Frame], any_placed: bool) -> Stored:
    """Return frames of one file that only say how far they lie from each other.

    Raises:
        UnreadableError: They are several files, or some of them say more than others.
    """
    if len(frames) > 1:
        if any_placed:
            msg = "some slices do not say where they lie: keep only complete files of the series."
            raise UnreadableError(msg)
        if any(frame.header.dataset is not frames[0].header.dataset for frame in frames):
            msg = (
                f"the {len(frames)} images do not say where they lie, so they are no volume: name "
                "one of them in a 2D study, or store the volume as NIfTI."
            )
            raise UnreadableError(msg)
    place = frames[0].place
    volume = _volume([frame.pixels for frame in frames])
    gap = gap_of(frames[0].header)
    if place.spacing is None or gap is None:
        return Stored(volume)
    rows, columns = place.spacing
    return Stored(volume, (columns, rows, gap))


def _check_alike(frames: Sequence[Frame]) -> None:
    first = frames[0]
    if any(frame.pixels.shape != first.pixels.shape for frame in frames):
        sizes = sorted({frame.pixels.shape[:2] for frame in frames})
        msg = (
            f"the slices have different sizes ({sizes[0][0]} x {sizes[0][1]} to {sizes[-1][0]} x "
            f"{sizes[-1][1]}): keep one series a folder, without its localisers."
        )
        raise UnreadableError(msg)
    places = [frame.place for frame in frames]
    _check_same([p.axes for p in places], "orientation", _SAME_DIRECTION)
    spacings = [None if p.spacing is None else np.array(p.spacing) for p in places]
    _check_same(spacings, "pixel spacing", _SAME_SPACING)
    references = {
        frame_of_reference(d)
        for d in {id(f.header.dataset): f.header.dataset for f in frames}.values()
    }
    if len(references - {""}) > 1:
        msg = (
            f"the slices lie in {len(references)} systems of coordinates (frames of reference), so "
            "their places cannot be compared: keep one acquisition a folder."
        )
        raise UnreadableError(msg)


def _check_same(vectors: Sequence[NDArray[np.float64] | None], what: str, tolerance: float) -> None:
    known = [vector for vector in vectors if vector is not None]
    if known and (
        len(known) < len(vectors) or np.abs(np.array(known) - known[0]).max() > tolerance
    ):
        msg = f"the slices differ in {what}: keep one series a folder, without its localisers."
        raise UnreadableError(msg)


def _even_gap(depths: NDArray[np.float64], frame: Frame) -> float:
    """Return the distance between slices, which must be the same all along.

    Args:
        depths: Sorted, along the normal, in millimetres.
        frame: The first, which says how thick a single slice is.

    Raises:
        UnreadableError: Slices are missing, or lie unevenly.
    """
    if len(depths) == 1:
        return gap_of(frame.header) or 1.0
    step = float(depths[-1] - depths[0]) / (len(depths) - 1)
    number = np.arange(len(depths)) - (len(depths) - 1) / 2
    even = depths.mean() + number * (depths @ number) / (number @ number)  # least squares
    if step > 0 and np.abs(depths - even).max() <= max(_SAME_GAP * step, 1e-3):
        return step
    gaps = np.diff(depths)
    usual = float(np.median(gaps))
    missing = round(float(gaps.sum()) / usual) - len(gaps) if usual > 0 else 0
    of = len(depths) + missing
    fact = f" ({missing} of {of} slices seem to be missing)" if missing > 0 else ""
    msg = (
        f"the gaps between slices go from {gaps.min():.3f} to {gaps.max():.3f} mm{fact}: complete "
        "the series, and remove slices that stand twice."
    )
    raise UnreadableError(msg)


def _check_tilt(frame: Frame, normal: NDArray[np.float64]) -> None:
    """Refuse a tilt that the header names and the slices do not have: one of the two is wrong.

    Raises:
        UnreadableError: It is an original slice, straight across the table, of a tilted gantry.
    """
    tilt = frame.header.get("CTGantryTiltSequence", "GantryDetectorTilt")
    kinds = frame.header.dataset.get("ImageType") or ("",)
    is_original = not isinstance(kinds, str) and str(kinds[0]).upper() == "ORIGINAL"
    if tilt in (None, "") or not is_original or abs(float(tilt)) < _SMALL_TILT:
        return
    if abs(normal[2]) > np.cos(np.radians(_SMALL_TILT / 2)):
        msg = (
            f"the header names a gantry tilt of {float(tilt):g} degrees, but its slices lie "
            "straight across the table: one of them is wrong; export the series again."
        )
        raise UnreadableError(msg)
