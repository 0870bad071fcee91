"""Images of different scanners made alike, each by itself: nothing is asked of another hospital.

A smooth shading is divided out first, then grey values are moved so that their quantiles are those
of a public reference. Both treat one plane of one image at a time, in its own grey values and on
the network's grid, and give the same result whenever they are repeated.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from wardround.common.study.sections.data import DataSection
from wardround.common.study.sections.harmonisation import LANDMARK_PERCENTS, HarmonisationSection

Block = NDArray[np.float32]
Values = NDArray[np.float64]
Flags = NDArray[np.bool_]

_FIELD_ORDER = 3  # of the polynomial: a coil's sensitivity is smooth
_ROUNDS = 40
_HISTOGRAM_BINS = 200
_WIDTH = 0.15  # of the blurring that a field causes, in units of log grey values (N4's default)
_WIENER_NOISE = 0.01
# The field is looked for on a coarser grid, as N4's shrink factor does; a side of it, by axes.
_LARGEST_SIDES = {2: 64, 3: 32}
_FEWEST = 64  # voxels from which a field can be told
_STILL = 1e-4  # a field that changes by less has settled
_LARGEST_LOG_FIELD = 1.5  # no coil is brighter than this on one side: a tumour or a metal is


@dataclass(frozen=True, slots=True)
class _Basis:
    """Products of Legendre polynomials at the voxels that count, without the constant.

    Attributes:
        terms: ``(voxels, terms)``.
        solver: ``(terms, voxels)``: takes a residual to the weights that fit it best.
    """

    terms: Values
    solver: Values

    @classmethod
    def within(cls, terms: Values, inside: Flags) -> "_Basis":
        """Return the basis of a grid's terms, fitted to the voxels that the flags name."""
        rows = np.column_stack([np.ones(int(inside.sum())), terms[inside]])
        gram = rows.T @ rows
        gram[np.diag_indices_from(gram)] += 1e-6 * len(rows)
        return cls(terms[inside], np.linalg.solve(gram, rows.T)[1:])

    def weights(self, residual: Values) -> Values:
        """Return the terms' weights ``(terms,)`` in the smooth field nearest to a residual."""
        found: Values = self.solver @ residual
        return found


def harmonised(block: Block, data: DataSection) -> Block:
    """Return images of one channel with the shading divided out and their grey values matched.

    Args:
        block: ``(N, planes, *spatial)`` in its own grey values; it is left as it is.
        data: The contract of this channel, as ``data.of_channel`` gives it.

    Returns:
        The same shape; the block itself where the study asks for neither.
    """
    asked = data.harmonisation
    if not asked.is_asked:
        return block
    result = np.empty_like(block)
    for source, target in zip(block, result, strict=True):
        for place, plane in enumerate(source):
            target[place] = harmonised_plane(plane, asked, place)
    return result


def harmonised_plane(plane: Block, asked: HarmonisationSection, place: int) -> Block:
    """Return one plane ``(*spatial)`` as the study asks, its landmarks those of ``place``."""
    if asked.bias_correction:
        plane = plane / shading(plane)
    if asked.landmarks:
        known = quantiles(plane, asked)
        if known is not None:
            plane = _matched(plane, known, np.array(asked.landmarks[place]), asked)
    return plane


def foreground(plane: Block, asked: HarmonisationSection) -> Flags:
    """Return which voxels of a plane ``(*spatial)`` the quantiles are taken of."""
    if asked.foreground == "nonzero":
        inside: Flags = plane != 0
    elif asked.foreground == "above-mean":
        inside = plane > plane.mean()
    else:
        inside = np.ones(plane.shape, dtype=np.bool_)
    return inside


def quantiles(plane: Block, asked: HarmonisationSection) -> Values | None:
    """Return the grey values at :data:`LANDMARK_PERCENTS` of a plane; None of an empty one."""
    values = plane[foreground(plane, asked)]
    if values.size == 0:
        return None
    found: Values = np.percentile(values.astype(np.float64), LANDMARK_PERCENTS)
    return found


def knots(source: Values, target: Values) -> tuple[Values, Values, float]:
    """Return the corners of the curve from an image's quantiles to the reference's.

    Several quantiles at one grey value become one corner, in the middle of where they would go.

    Returns:
        Grey values, strictly rising; where they go; and the slope beyond the first and the last:
        that of the whole range, for the last step alone may be as steep as chance makes it.
    """
    at, group = np.unique(source, return_inverse=True)
    goes = np.bincount(group, weights=target) / np.bincount(group)
    span = float(at[-1] - at[0])
    return at, goes, float(goes[-1] - goes[0]) / span if span > 0 else 1.0


def _matched(plane: Block, source: Values, target: Values, asked: HarmonisationSection) -> Block:
    """Move the grey values: Nyul, Udupa and Zhang 2000, IEEE Trans. Med. Imaging 19:143."""
    at, goes, slope = knots(source, target)
    moved = np.interp(plane, at, goes)
    moved += slope * (np.minimum(plane - at[0], 0) + np.maximum(plane - at[-1], 0))
    if asked.foreground == "nonzero":  # what was cut away stays so
        moved = np.where(plane == 0, 0, moved)
    matched: Block = moved.astype(np.float32)
    return matched


def shading(plane: Block) -> Block:
    """Return the smooth field that a plane was multiplied by, ``(*spatial)``, 1 on average.

    As N3 and N4 (Sled et al. 1998, IEEE Trans. Med. Imaging 17:87; Tustison et al. 2010, 29:1310):
    the histogram of log grey values is sharpened by deconvolution, each voxel is drawn to what the
    sharp histogram expects of it, and the smooth part of the difference is the field; repeated
    until it settles. The field is a polynomial of order 3 instead of a B-spline. Only voxels above
    0 take part; an image with hardly any has no field.
    """
    steps = tuple(slice(None, None, _step(side, plane.ndim)) for side in plane.shape)
    coarse = plane[steps].astype(np.float64)
    inside = (coarse > 0).ravel()
    flat = np.ones(plane.shape, dtype=np.float32)
    if inside.sum() < _FEWEST:
        return flat
    log = np.log(coarse.ravel()[inside])
    if log.max() - log.min() < _STILL:
        return flat
    terms = _terms(tuple(coarse.shape))
    basis = _Basis.within(terms, inside)
    weights, seen = np.zeros(terms.shape[1]), np.zeros(len(log))
    for _ in range(_ROUNDS):
        change = basis.weights(log - seen - _sharpened(log - seen))
        weights += change
        moved = basis.terms @ change
        seen += moved
        if np.abs(moved).max() < _STILL:
            break
    field = terms @ weights
    field = np.clip(field - seen.mean(), -_LARGEST_LOG_FIELD, _LARGEST_LOG_FIELD)
    whole: Block = np.exp(_enlarged(field.reshape(coarse.shape), plane.shape)).astype(np.float32)
    return whole


def _sharpened(log: Values) -> Values:
    """Return what the deconvolved histogram expects of each value (Sled 1998, equations 9, 11)."""
    low, high = float(log.min()), float(log.max())
    width = max(high - low, 1e-6) / (_HISTOGRAM_BINS - 1)
    places = (log - low) / width
    below = np.minimum(places.astype(np.int64), _HISTOGRAM_BINS - 2)
    part = places - below
    padded = 2 * _HISTOGRAM_BINS
    offset = _HISTOGRAM_BINS // 2
    counts = np.bincount(below + offset, weights=1 - part, minlength=padded)
    counts += np.bincount(below + offset + 1, weights=part, minlength=padded)
    deviation = _WIDTH / (2 * np.sqrt(2 * np.log(2))) / width
    frequency = np.fft.rfftfreq(padded)
    blur = np.exp(-2 * (np.pi * deviation * frequency) ** 2)
    sharp = np.fft.irfft(np.fft.rfft(counts) * blur / (blur**2 + _WIENER_NOISE), padded)
    sharp = np.clip(sharp, 0, None)
    values = low + (np.arange(padded) - offset) * width
    above = np.fft.irfft(np.fft.rfft(sharp * values) * blur, padded)
    under = np.fft.irfft(np.fft.rfft(sharp) * blur, padded)
    expected = np.where(under > 1e-3, above / np.maximum(under, 1e-3), values)
    found: Values = np.interp(places + offset, np.arange(padded), expected)
    return found


@lru_cache(maxsize=8)
def _terms(shape: tuple[int, ...]) -> Values:
    """Return the basis on a grid: ``(voxels, terms)``, the constant left out."""
    axes = [np.linspace(-1, 1, side) if side > 1 else np.zeros(1) for side in shape]
    powers = [
        one
        for one in product(range(_FIELD_ORDER + 1), repeat=len(shape))
        if 0 < sum(one) <= _FIELD_ORDER
        and all(power == 0 or side > 1 for power, side in zip(one, shape, strict=True))
    ]
    columns = []
    for one in powers:
        term = np.ones((1,) * len(shape))
        for place, (axis, power) in enumerate(zip(axes, one, strict=True)):
            along = np.polynomial.legendre.legval(axis, [0] * power + [1])
            view = [1] * len(shape)
            view[place] = -1
            term = term * along.reshape(view)
        columns.append(np.broadcast_to(term, shape).ravel())
    if not columns:
        return np.zeros((int(np.prod(shape)), 0))
    found: Values = np.stack(columns, axis=1)
    return found


def _step(side: int, axes: int) -> int:
    return -(-side // _LARGEST_SIDES[axes])


def _enlarged(field: Values, shape: tuple[int, ...]) -> Values:
    """Return a field on the whole grid, from one whose ends lie where the grid's coarse ones do."""
    if field.shape == shape:
        return field
    for axis, side in enumerate(shape):
        at = np.minimum(np.arange(side) / _step(side, len(shape)), field.shape[axis] - 1)
        low = np.floor(at).astype(np.int64)
        high = np.minimum(low + 1, field.shape[axis] - 1)
        view = [1] * len(shape)
        view[axis] = -1
        weight = (at - low).reshape(view)
        field = field.take(low, axis) * (1 - weight) + field.take(high, axis) * weight
    return field
