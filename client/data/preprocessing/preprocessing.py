"""From examinations to what the network sees, the same way every time; done once and kept.

The instruction: read, simulated scanner, orientation, spacing, size (resize), denoising, intensity,
size (pad). Padding comes last, so that its border does not take part in the intensities.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.data.manifest.examination import Examination, Location
from wardround.client.data.preprocessing import geometry
from wardround.client.data.preprocessing.intensity import INTENSITIES
from wardround.client.data.preprocessing.scanner_shift import generator_of, scanner_of, shift_image
from wardround.client.data.reading import readers
from wardround.client.data.reading.array_files import open_array
from wardround.client.data.reading.image import Image, UnreadableError
from wardround.client.site.folder import Site
from wardround.common.study.sections import DataSection
from wardround.common.study.study import Study

ArrayNames = tuple[tuple[Path, str | None], ...]

_GENTLE_SIGMA = 0.5  # voxels


@dataclass(frozen=True, slots=True)
class StoredMask:
    """A mask as it was stored, where the one that the network is trained with has another grid.

    Attributes:
        labels: ``(*spatial)``; the axes are turned as the study asks, no voxel is changed.
        resampled: ``(*spatial)`` after resampling and resizing, before cropping and padding.
        spacing_mm: Millimetres a voxel; 1 where the files do not say.
    """

    labels: Tensor
    resampled: tuple[int, ...]
    spacing_mm: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One prepared examination.

    Attributes:
        image: ``(C, *spatial)`` float32.
        mask: ``(*spatial)`` uint8 or int16; None for a classification.
        spacing: Millimetres a voxel; 1 where the files do not say.
        stored: What predictions are scored against; None where that is the mask above.
    """

    image: Tensor
    mask: Tensor | None
    spacing: tuple[float, ...]
    stored: StoredMask | None = None

    @property
    def byte_count(self) -> int:
        """Memory it takes."""
        stored = None if self.stored is None else self.stored.labels
        return sum(part.nbytes for part in (self.image, self.mask, stored) if part is not None)


def prepare_case(examination: Examination, site: Site, study: Study) -> Case:
    """Read and prepare one examination.

    Raises:
        DataError: A file cannot be used; says the row and the column.
    """
    data = study.data
    channels: list[Image] = []
    finished: list[NDArray[np.float32]] = []
    scanner = scanner_of(examination, site)
    generator = generator_of(examination, scanner)
    for column, location in zip(image_columns(study), examination.images, strict=True):
        try:
            image = readers.read_image(location, data.dimensions, data.colour)
            shifted = shift_image(image.array, scanner.shift, generator)
            image = Image(shifted, image.spacing, image.affine, image.eight_bit)
            finished.append(prepare_channel(image, channels, data))
        except UnreadableError as error:
            raise error.at(examination.row, column) from None
    mask, stored = _prepare_mask(examination, channels, study)
    stacked = np.concatenate(finished) if len(finished) > 1 else finished[0]
    return Case(_tensor(stacked), mask, _final_spacing(channels[0], data), stored)


def prepare_channel(image: Image, channels: list[Image], data: DataSection) -> NDArray[np.float32]:
    """Return one channel ready for the network; its turned image joins the channels before it.

    Args:
        image: As it was read, ``(planes, *spatial)``.
        channels: Those before it, turned; the new one is added.
        data: The study's contract.

    Returns:
        ``(planes, *spatial)`` float32.

    Raises:
        UnreadableError: It cannot be used, or does not lie on the grid of the first channel.
    """
    turned = _oriented(image, data)
    _check_same_grid(turned, channels, data)
    channels.append(turned)
    block = _at_spacing(turned, data, is_mask=False)
    finished: NDArray[np.float32] = finish_images(block, turned.eight_bit, data)[0]
    return finished


def _prepare_mask(
    examination: Examination, channels: Sequence[Image], study: Study
) -> tuple[Tensor | None, StoredMask | None]:
    if examination.mask is None:
        return None, None
    data = study.data
    try:
        mask = readers.read_mask(examination.mask, data.dimensions, study.class_count)
        mask = _oriented(mask, data) if channels[0].affine is not None else mask
        _check_same_grid(mask, channels, data)
        mask = Image(mask.array, channels[0].spacing)
        prepared = _tensor(finish_masks(_at_spacing(mask, data, is_mask=True), data)[0, 0])
        stored = StoredMask(
            _tensor(mask.array[0]),
            resampled_size(mask, data),
            mask.spacing or (1.0,) * data.dimensions,
        )
        return prepared, _unless_same(stored, prepared)
    except UnreadableError as error:
        raise error.at(examination.row, "mask") from None


def _unless_same(stored: StoredMask, prepared: Tensor) -> StoredMask | None:
    """Return a stored mask unless the prepared one lies on its grid, voxel by voxel."""
    own = tuple(stored.labels.shape)
    return None if own == tuple(stored.resampled) == tuple(prepared.shape) else stored


def prepare_block(examinations: Sequence[Examination], site: Site, study: Study) -> list[Case]:
    """Prepare examinations that :func:`shared_arrays` says are items of the same arrays.

    Raises:
        UnreadableError: One of them cannot be used; :func:`prepare_case` says which.
    """
    data = study.data
    planes: list[NDArray[np.float32]] = []
    spatial: tuple[int, ...] = ()
    scanners = [scanner_of(e, site) for e in examinations]
    shifted = [
        (place, scanner, generator_of(examinations[place], scanner))
        for place, scanner in enumerate(scanners)
        if scanner.shift
    ]
    for channel in range(len(data.channels)):
        stored = _items([e.images[channel] for e in examinations])
        block = readers.sort_planes(stored, data.dimensions, data.colour)
        readers.check_finite(block)
        if spatial and block.shape[2:] != spatial:
            raise _mismatch(block.shape[2:], spatial)
        spatial = block.shape[2:]
        for place, scanner, generator in shifted:
            block[place] = shift_image(block[place], scanner.shift, generator)
        planes.append(finish_images(block, stored.dtype == np.uint8, data))
    images = _tensor(np.concatenate(planes, axis=1) if len(planes) > 1 else planes[0])
    masks: Sequence[Tensor | None] = [None] * len(examinations)
    stored_masks: list[StoredMask | None] = [None] * len(examinations)
    if examinations[0].mask is not None:
        stored = _items([e.mask for e in examinations if e.mask is not None])
        labels = readers.sort_labels(stored, data.dimensions)
        if labels.shape[2:] != spatial:
            raise _mismatch(labels.shape[2:], spatial)
        labels = readers.check_labels(labels, study.class_count)
        prepared = _tensor(finish_masks(labels, data)[:, 0]).unbind()
        size, unit = _resized(spatial, data), (1.0,) * data.dimensions
        stored_masks = [
            _unless_same(StoredMask(own, size, unit), mask)
            for own, mask in zip(_tensor(labels[:, 0]).unbind(), prepared, strict=True)
        ]
        masks = prepared
    spacing = tuple(have / now for have, now in zip(spatial, _resized(spatial, data), strict=True))
    parts = zip(images.unbind(), masks, stored_masks, strict=True)
    return [Case(image, mask, spacing, own) for image, mask, own in parts]


def shared_arrays(examination: Examination, data: DataSection) -> ArrayNames | None:
    """Return the arrays that an examination's images and mask are items of.

    Examinations of the same arrays can be prepared in one sweep. None where a file has to be
    opened for this examination alone, or where it has to be placed in space.
    """
    if data.orientation or data.spacing:
        return None
    masks = () if examination.mask is None else (examination.mask,)
    locations = (*examination.images, *masks)
    if any(location.index is None for location in locations):
        return None
    return tuple((location.path, location.array) for location in locations)


def image_columns(study: Study) -> tuple[str, ...]:
    """Return how messages call the image columns of a manifest."""
    names = study.data.channels
    if len(names) == 1:
        return ("image",)
    return tuple(name if name == "image" else f"image.{name}" for name in names)


def finish_images(
    block: NDArray[np.float32], eight_bit: bool, data: DataSection
) -> NDArray[np.float32]:
    """Resize, denoise, normalise and pad images ``(N, planes, *spatial)`` of one channel."""
    preset = INTENSITIES[data.intensity]
    block = geometry.resize_images(block, _resized(block.shape[2:], data))
    if data.denoise:
        block = denoised(block)
    block = preset.normalise(block, eight_bit, data)
    if data.size is not None:
        block = geometry.centre_fit(block, data.size, preset.background)
    return block.astype(np.float32, copy=False)


def finish_masks(block: NDArray[Any], data: DataSection) -> NDArray[Any]:
    """Resize and pad masks ``(N, 1, *spatial)`` as their images."""
    block = geometry.resize_masks(block, _resized(block.shape[2:], data))
    return block if data.size is None else geometry.centre_fit(block, data.size, 0)


def denoised(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take out isolated pixels: a median of 3x3 in 2D, a Gaussian of half a voxel in 3D.

    Args:
        block: ``(N, C, *spatial)``.

    Returns:
        The same shape.
    """
    from scipy.ndimage import gaussian_filter, median_filter

    smooth: NDArray[np.float32] = (
        median_filter(block, size=(1, 1, 3, 3))
        if block.ndim == 4
        else gaussian_filter(block, (0, 0, *(_GENTLE_SIGMA,) * 3))
    )
    return smooth


def _resized(spatial: tuple[int, ...], data: DataSection) -> tuple[int, ...]:
    return data.size if data.size is not None and data.fit == "resize" else spatial


def _oriented(image: Image, data: DataSection) -> Image:
    return geometry.reorient(image, data.orientation) if data.orientation else image


def _at_spacing(image: Image, data: DataSection, is_mask: bool) -> NDArray[Any]:
    block = image.array[np.newaxis]
    if data.spacing is None:
        return block
    if image.spacing is None:
        msg = (
            f"the file does not say its voxel size, but data.spacing = {list(data.spacing)}: "
            "store it as NIfTI or DICOM."
        )
        raise UnreadableError(msg)
    size = geometry.size_at_spacing(block.shape[2:], image.spacing, data.spacing)
    resize = geometry.resize_masks if is_mask else geometry.resize_images
    return resize(block, size)


def resampled_size(image: Image, data: DataSection) -> tuple[int, ...]:
    """Return the spatial size of a turned image after resampling and resizing, before padding."""
    size: tuple[int, ...] = image.array.shape[1:]
    if data.spacing is not None and image.spacing is not None:
        size = geometry.size_at_spacing(size, image.spacing, data.spacing)
    return _resized(size, data)


def _final_spacing(image: Image, data: DataSection) -> tuple[float, ...]:
    """Return the voxel size after resampling: the same millimetres over the new count."""
    spatial = image.array.shape[1:]
    spacing = image.spacing or (1.0,) * len(spatial)
    size = resampled_size(image, data)
    return tuple(step * have / now for step, have, now in zip(spacing, spatial, size, strict=True))


def _check_same_grid(image: Image, channels: Sequence[Image], data: DataSection) -> None:
    """Refuse an image or mask that does not lie on the grid of the first channel."""
    if not channels:
        return
    first = channels[0]
    if image.array.shape[1:] != first.array.shape[1:]:
        raise _mismatch(image.array.shape[1:], first.array.shape[1:])
    if image.affine is None or first.affine is None or data.dimensions == 2:
        return
    codes, wanted = geometry.axis_codes(image.affine), geometry.axis_codes(first.affine)
    if codes != wanted:
        msg = (
            f"its axes point to {codes} and those of the image to {wanted}: "
            "store both alike, or have the study set data.orientation."
        )
        raise UnreadableError(msg)


def _mismatch(shape: Iterable[int], wanted: Iterable[int]) -> UnreadableError:
    sizes = ["x".join(str(size) for size in sizes) for sizes in (shape, wanted)]
    return UnreadableError(
        f"its shape is {sizes[0]} and that of the image {sizes[1]}: give one of the same shape."
    )


def _items(locations: Sequence[Location]) -> NDArray[Any]:
    values = open_array(locations[0].path, locations[0].array)
    indices = np.array([location.index for location in locations])
    if values.ndim < 2 or indices.max() >= len(values):
        msg = "an item is not in the array: mend the number after '#'."
        raise UnreadableError(msg)
    return np.asarray(values[indices])


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
