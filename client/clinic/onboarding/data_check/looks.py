"""One look at each examination: its size, its place in space, its intensities, a small picture.

Nothing else of an image is kept, so that 10,000 of them fit in memory.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn
from torch.nn.functional import adaptive_avg_pool2d

from wardround.client.clinic.onboarding.data_check.subjects import Subject
from wardround.client.data.boxes import BoxCounts
from wardround.client.data.manifest.examination import Location
from wardround.client.data.preprocessing.geometry import axis_codes
from wardround.client.data.reading.image import Image
from wardround.client.data.reading.readers import read_image, read_stored
from wardround.client.data.same_images import digest_of_pixels
from wardround.common.errors import DataError

SIDE = 24  # pixels of the small pictures
_HASH_SIDE, _HASH_WAVES = 32, 8
_PERCENTILES = (1.0, 50.0, 99.0)
_HISTOGRAM = 16
_AHEAD = 4
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Look:
    """What is kept of one examination.

    Attributes:
        fault: Why it cannot be read; "" where it can. Nothing else is known then.
        missing: Channels that the row lacks.
        shape: Of the first channel, without colours.
        axes: Where its axes point to, e.g. "RAS"; "" where the file does not say.
        levels: 1st, 50th and 99th percentile of each channel.
        blank: Channels of one value.
        digest: Tells its pixels from another's; "" for a blank one.
        waves: ``(63,)`` signs of its lowest frequencies (pHash): near pictures differ in few.
        small: ``(n,)`` the small pictures of all channels, each from 0 to 1.
        features: ``(m,)`` what a model of labels looks at.
        labels: Voxels of each value of the mask; None without a mask.
        mask_shape: Of the mask.
        boxes: What is to be said of its boxes; None without boxes.
    """

    fault: str = ""
    missing: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] | None = None
    axes: str = ""
    levels: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    blank: tuple[str, ...] = ()
    digest: str = ""
    waves: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    small: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    features: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    labels: dict[float, int] | None = None
    mask_shape: tuple[int, ...] = ()
    boxes: BoxCounts | None = None


CountsBoxes = Callable[[Subject, Image], BoxCounts | None]


def look_at_all(
    subjects: Sequence[Subject],
    dimensions: int | None,
    progress: Callable[[int, int], None],
    counts_boxes: CountsBoxes | None = None,
) -> list[Look]:
    """Return a look at each examination, read with as many threads as there are cores.

    Args:
        dimensions: Of the images; None takes what the first file that can be read has.
        counts_boxes: Counts the boxes of an examination; None where there are none.
    """
    count = os.cpu_count() or 1
    looks: list[Look] = []
    with ThreadPoolExecutor(count) as threads:
        waiting: list[Future[Look]] = []
        todo = iter(subjects)
        try:
            while len(looks) < len(subjects):
                for subject in _some(todo, count * _AHEAD - len(waiting)):
                    waiting.append(threads.submit(look_at, subject, dimensions, counts_boxes))
                looks.append(waiting.pop(0).result())
                progress(len(looks), len(subjects))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return looks


def _some(todo: Iterator[Subject], most: int) -> Iterator[Subject]:
    for _ in range(most):
        subject = next(todo, None)
        if subject is None:
            return
        yield subject


def look_at(
    subject: Subject, dimensions: int | None, counts_boxes: CountsBoxes | None = None
) -> Look:
    """Return what is kept of one examination."""
    missing = tuple(name for name, place in subject.images.items() if place is None)
    images: dict[str, Image] = {}
    try:
        for name, place in subject.images.items():
            if place is not None:
                images[name] = _read(place, dimensions)
        labels, mask_shape = _mask(subject.mask, dimensions)
        boxes = None
        if counts_boxes is not None and images:
            boxes = counts_boxes(subject, next(iter(images.values())))
    except DataError as error:
        return Look(fault=str(error), missing=missing)
    if not images:
        return Look(missing=missing, labels=labels, mask_shape=mask_shape)
    first = next(iter(images.values()))
    planes = {name: _planes(image) for name, image in images.items()}
    levels = {name: _levels(image.array) for name, image in images.items()}
    blank = tuple(name for name, image in images.items() if image.array.min() == image.array.max())
    digests = [digest_of_pixels(image.array) for image in images.values()]
    small = np.concatenate([_small(plane, SIDE) for one in planes.values() for plane in one])
    shades = [_histogram(image.array, levels[name]) for name, image in images.items()]
    scale = np.array([level for one in levels.values() for level in one], np.float32)
    return Look(
        missing=missing,
        shape=tuple(first.array.shape[1:]),
        spacing=first.spacing,
        axes=axis_codes(first.affine) if first.affine is not None else "",
        levels=levels,
        blank=blank,
        digest="" if len(blank) == len(images) else "+".join(digests),
        waves=_waves(next(iter(planes.values()))[0]),
        small=small,
        features=np.concatenate([small, *shades, scale]).astype(np.float32),
        labels=labels,
        mask_shape=mask_shape,
        boxes=boxes,
    )


def _read(location: Location, dimensions: int | None) -> Image:
    """Read an image; of unknown dimensions, as what its name and content say."""
    if dimensions is not None:
        return read_image(location, dimensions)
    path = location.path
    volumes_first = path.is_dir() or path.name.lower().endswith((".nii", ".nii.gz"))
    first, second = (3, 2) if volumes_first else (2, 3)
    try:
        return read_image(location, first)
    except DataError as error:
        try:
            return read_image(location, second)
        except DataError:
            raise error from None


def _mask(
    location: Location | None, dimensions: int | None
) -> tuple[dict[float, int] | None, tuple[int, ...]]:
    if location is None:
        return None, ()
    stored = read_stored(location, dimensions or 3).values
    values, counts = np.unique(stored, return_counts=True)
    held = {float(value): int(count) for value, count in zip(values, counts, strict=True)}
    return held, tuple(size for size in stored.shape if size > 1)


def _planes(image: Image) -> list[Floats]:
    """Return the picture, or the three middle slices of a volume."""
    grey: Floats = image.array.mean(axis=0) if len(image.array) > 1 else image.array[0]
    if grey.ndim == 2:
        return [grey]
    return [np.take(grey, size // 2, axis=axis) for axis, size in enumerate(grey.shape)]


def _pooled(plane: Floats, side: int) -> Floats:
    whole = torch.from_numpy(np.ascontiguousarray(plane, np.float32))[None, None]
    pooled: Floats = adaptive_avg_pool2d(whole, side)[0, 0].numpy()
    return pooled


def _small(plane: Floats, side: int) -> Floats:
    """Return ``(side * side,)`` from 0 to 1: what is seen, whatever the window."""
    pooled = _pooled(plane, side).ravel()
    low, high = float(pooled.min()), float(pooled.max())
    return (pooled - low) / (high - low) if high > low else np.zeros_like(pooled)


def _levels(array: Floats) -> tuple[float, float, float]:
    low, middle, high = np.percentile(array, _PERCENTILES)
    return float(low), float(middle), float(high)


def _histogram(array: Floats, levels: tuple[float, float, float]) -> Floats:
    low, _, high = levels
    counts, _ = np.histogram(array, _HISTOGRAM, (low, high if high > low else low + 1))
    return (counts / array.size).astype(np.float32)


def _waves(plane: Floats) -> Floats:
    """Return on which side of their median the lowest frequencies are (pHash, Zauner 2010)."""
    waves = dctn(_pooled(plane, _HASH_SIDE), norm="ortho")[:_HASH_WAVES, :_HASH_WAVES].ravel()[1:]
    signs: Floats = np.where(waves > np.median(waves), 1.0, -1.0).astype(np.float32)
    return signs
