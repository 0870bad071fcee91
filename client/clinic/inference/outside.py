"""Is a new image one that a model was made for? If not, why not, in words."""

from collections.abc import Iterator, Sequence

from wardround.client.clinic.inference.seen import Looks, look_at
from wardround.client.data.reading.image import Image
from wardround.common.models.contract import Contract, Seen, SeenIntensities, Spread
from wardround.common.study.sections.data import AS_STORED, DataSection, Intensity

# DICOM's modalities, by the preset that normalises them.
_MODALITIES: dict[Intensity, tuple[str, ...]] = {
    "ct": ("CT",),
    "mr": ("MR",),
    "xray": ("CR", "DX", "RG", "XA", "RF", "MG", "IO", "PX"),
    "ultrasound": ("US", "IVUS"),
    "dermoscopy": ("XC", "ES", "GM", "OT"),
    "histology": ("SM", "GM", "XC", "OT"),
}
_SIZE_FACTOR = 2.0  # beyond the smallest and the largest of the training images
_SPACING_FACTOR = 2.0
_RESAMPLED_FACTOR = 4.0  # of the voxel size, where the study resamples
_MARGIN = 0.5  # of the training images' range of values, on either side
_LOWEST_HU = -32_768.0
_NAMES = ("darkest 1 %", "median", "brightest 1 %")


def reasons_outside(
    channels: Sequence[Image],
    contract: Contract,
    data: DataSection,
    modality: str | None = None,
) -> tuple[str, ...]:
    """Return why an examination is not one that a model was made for; empty if it is.

    Args:
        channels: Its images as they were read.
        contract: Of the model.
        data: Of the model's study.
        modality: As its DICOM file says; None where nothing says so.
    """
    found = [*_wrong_modality(modality, data), *_wrong_kind(channels, data)]
    if contract.seen is not None and not found:
        found.extend(_unlike(look_at(channels), contract.seen, data))
    return tuple(found)


def _wrong_modality(modality: str | None, data: DataSection) -> Iterator[str]:
    wanted = _MODALITIES.get(data.intensity)
    if modality and wanted and modality not in wanted:
        yield (
            f"its modality is {modality[:16]}, and the model was trained on {data.intensity} "
            f"images ({', '.join(wanted)})"
        )


def _wrong_kind(channels: Sequence[Image], data: DataSection) -> Iterator[str]:
    if len(channels) != len(data.channels):
        yield (
            f"it has {len(channels)} channels, and the model takes {len(data.channels)}: "
            f"{', '.join(data.channels)}"
        )
    for image in channels:
        if image.is_absent:
            continue
        if data.intensity == "ct" and image.eight_bit:
            yield "it holds grey values of 8 bits, and the model takes Hounsfield units"
        elif data.intensity == "ct" and (low := float(image.array.min())) < _LOWEST_HU:
            yield f"its values begin at {low:g}, below any Hounsfield unit"
        first, last = image.array.item(0), image.array.item(-1)
        if first == last and bool((image.array == first).all()):
            yield f"it has one value only ({first:g}), so it shows nothing"


def _unlike(one: Looks, seen: Seen, data: DataSection) -> Iterator[str]:
    if seen.eight_bit is not None and one.eight_bit != seen.eight_bit and data.intensity == "none":
        bits = ("more than 8 bits", "8 bits")
        yield (
            f"its values have {bits[bool(one.eight_bit)]}, those of the training images had "
            f"{bits[seen.eight_bit]}"
        )
    if None not in (one.coloured, seen.coloured) and one.coloured != seen.coloured:
        kinds = ("grey", "coloured")
        yield f"it is {kinds[bool(one.coloured)]}, the training images {kinds[bool(seen.coloured)]}"
    yield from _far_apart(one.size, seen.size, "voxels", _SIZE_FACTOR)
    if one.spacing is not None and seen.spacing is not None:
        factor = _SPACING_FACTOR if data.spacing is None else _RESAMPLED_FACTOR
        yield from _far_apart(one.spacing, seen.spacing, "mm a voxel", factor)
    turned = data.orientation == AS_STORED and seen.orientations and one.orientation
    if turned and one.orientation not in seen.orientations:
        yield (
            f"its axes point to {one.orientation}, those of the training images to "
            f"{' or '.join(seen.orientations)}"
        )
    for name, new, known in zip(data.channels, one.intensities, seen.channels, strict=True):
        if new is None or known is None:  # absent here, or in all images that were looked at
            continue
        which = "" if len(data.channels) == 1 else f" of channel {name}"
        yield from _unlike_values(new, known, which)


def _unlike_values(
    new: tuple[float, float, float], known: SeenIntensities, which: str
) -> Iterator[str]:
    margin = _MARGIN * max(known.bright.high - known.dark.low, 1e-6)
    spreads = (known.dark, known.middle, known.bright)
    for name, value, spread in zip(_NAMES, new, spreads, strict=True):
        if not spread.low - margin <= value <= spread.high + margin:
            yield (
                f"its intensities are out of distribution: the {name}{which} is at {value:.4g}, "
                f"in the training images from {spread.low:.4g} to {spread.high:.4g}"
            )


def _far_apart(
    new: Sequence[float], known: Sequence[Spread], unit: str, factor: float
) -> Iterator[str]:
    """Compare along each axis, where no axis says which it is; say the first that is far off."""
    for axis, (one, spread) in enumerate(zip(new, known, strict=True), start=1):
        if not spread.low / factor <= one <= spread.high * factor:
            yield (
                f"it has {one:g} {unit} along axis {axis}, the training images "
                f"{spread.low:g} to {spread.high:g}"
            )
            return
