"""From stored numbers to values with a meaning: Hounsfield units, rescaled numbers, brightness.

The window of the viewer (VOI LUT) is never applied: it is a reader's setting, and differs from file
to file of a series.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.dicom import kinds
from wardround.client.data.reading.dicom.frames import Header, first
from wardround.client.data.reading.image import UnreadableError

AIR = -1024  # Hounsfield units; what lies outside a scanner's field of view is air, too
_HOUNSFIELD = ("", "HU", "US", "HU_MOD")  # "US": unspecified, as old scanners write


def valued(stored: NDArray[Any], header: Header, uptake: float | None = None) -> NDArray[Any]:
    """Return the values of a frame.

    Modality LUT, else rescale slope and intercept (of the frame, of all frames, of the file). CT
    comes in Hounsfield units, from -1024 on; what its PixelPaddingValue marks is -1024. In other
    images padding is the smallest value, and MONOCHROME1 is turned so that higher is brighter.

    Args:
        stored: ``(rows, columns)``, or ``(rows, columns, 3)`` of colour, which is left as it is.
        header: Of the frame.
        uptake: What the rescaled values of a PET are multiplied by.

    Raises:
        UnreadableError: It is a CT that does not say how its numbers become Hounsfield units.
    """
    if stored.ndim == 3:
        return stored
    hounsfield = _is_hounsfield(header)
    has_unit = hounsfield or uptake is not None
    if has_unit or header.dataset.get("PhotometricInterpretation") != "MONOCHROME1":
        values = rescaled(stored, header)
    else:
        values = _turned(stored, header)
    if uptake is not None:
        values = values.astype(np.float32) * np.float32(uptake)
    padding = _padding(stored, header.dataset)
    if padding is not None and padding.any():
        values = _padded(values, padding, hounsfield)
    if hounsfield and values.min(initial=0) < AIR:
        values = np.maximum(values, values.dtype.type(AIR))
    return values


def _padded(values: NDArray[Any], padding: NDArray[np.bool_], hounsfield: bool) -> NDArray[Any]:
    """Return values with air, or the darkest of them, where the file holds no image.

    Zeros below all others stay: they are how the air of an MR is known.
    """
    darkest = values[~padding].min(initial=values.max())
    if not hounsfield and not values[padding].any() and darkest >= 0:
        return values
    values = values.copy()
    values[padding] = AIR if hounsfield else darkest
    return values


def rescaled(stored: NDArray[Any], header: Header) -> NDArray[Any]:
    """Return the stored numbers after the modality LUT, or after slope and intercept.

    Raises:
        UnreadableError: The slope is 0, or not finite.
    """
    table = first(kinds.element(header.dataset, "ModalityLUTSequence"))
    if table is not None:
        return _looked_up(stored, table, header.dataset)
    slope = _number(header, "RescaleSlope", 1.0)
    intercept = _number(header, "RescaleIntercept", 0.0)
    if not np.isfinite([slope, intercept]).all() or (slope == 0 and stored.any()):
        msg = (
            f"its RescaleSlope is {slope:g} and its RescaleIntercept {intercept:g}, which leaves "
            "no image: export the series again."
        )
        raise UnreadableError(msg)
    if (slope, intercept) == (1.0, 0.0):
        return stored
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _looked_up(stored: NDArray[Any], table: Any, dataset: Any) -> NDArray[Any]:
    """Return what a modality LUT gives each number; those before and after it, its first and last.

    Raises:
        UnreadableError: The table has fewer entries than it says.
    """
    count, lowest, bits = (int(value) for value in table.LUTDescriptor)
    count = count or 2**16
    if int(dataset.get("PixelRepresentation") or 0) and lowest >= 2**15:
        lowest -= 2**16  # written without the sign of the pixels
    data = table.LUTData
    little = getattr(dataset, "original_encoding", (None, True))[1] is not False
    if isinstance(data, bytes):
        width = "u1" if bits <= 8 and len(data) < 2 * count else "u2"
        entries = np.frombuffer(data, ("<" if little else ">") + width)
    else:
        entries = np.atleast_1d(np.asarray(data, dtype=np.int64))
        if bits <= 8 and len(entries) < count:  # two bytes in a word
            entries = entries.astype("<u2").view(np.uint8)
    if len(entries) < count:
        msg = f"its modality LUT says {count} entries and has {len(entries)}: export it again."
        raise UnreadableError(msg)
    places = np.clip(stored.astype(np.int64) - lowest, 0, count - 1)
    return np.asarray(entries[:count].astype(np.int32)[places])


def _number(header: Header, name: str, default: float) -> float:
    value = header.get("PixelValueTransformationSequence", name)
    return default if value is None or value == "" else float(value)


def _is_hounsfield(header: Header) -> bool:
    """Return whether the values are Hounsfield units.

    Raises:
        UnreadableError: It is a CT of more than 8 bits without a sign and without an intercept.
    """
    dataset = header.dataset
    if not kinds.is_ct(dataset):
        return False
    kind = header.get("PixelValueTransformationSequence", "RescaleType")
    if str(kind or "").strip().upper() not in _HOUNSFIELD:
        return False
    if dataset.get("ModalityLUTSequence"):
        return True
    intercept = header.get("PixelValueTransformationSequence", "RescaleIntercept")
    if intercept not in (None, "") or int(dataset.get("PixelRepresentation") or 0):
        return True
    if kinds.is_localiser(dataset) or int(dataset.get("BitsStored") or 8) <= 8:
        return False
    msg = (
        "it is a CT that does not say its RescaleIntercept, so its Hounsfield units are unknown: "
        "export it again from the scanner or the archive."
    )
    raise UnreadableError(msg)


def _turned(stored: NDArray[Any], header: Header) -> NDArray[Any]:
    """Return MONOCHROME1 so that higher is brighter, in the range that its bits can hold."""
    dataset = header.dataset
    table = first(dataset.get("ModalityLUTSequence"))
    if table is not None:
        highest = 2 ** int(table.LUTDescriptor[2]) - 1
        return np.asarray(highest - rescaled(stored, header).astype(np.int64))
    if stored.dtype.kind == "f":
        return rescaled(stored.max() + stored.min() - stored, header)
    top = 2 ** int(dataset.BitsStored) - 1
    turned: NDArray[Any] = -1 - stored if dataset.PixelRepresentation else top - (stored & top)
    return rescaled(turned, header)


def _padding(stored: NDArray[Any], dataset: Any) -> NDArray[np.bool_] | None:
    value = kinds.element(dataset, "PixelPaddingValue")
    if value in (None, "") or stored.dtype.kind == "f":
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    low = _as_stored(int(value), dataset)
    high = low if limit in (None, "") else _as_stored(int(limit), dataset)
    low, high = min(low, high), max(low, high)
    return (stored >= low) & (stored <= high)


def _as_stored(value: int, dataset: Any) -> int:
    """Return a padding value as the pixels hold it: some files write it with the other sign."""
    bits = int(dataset.get("BitsAllocated") or 16)
    if int(dataset.get("PixelRepresentation") or 0):
        return int(value - 2**bits) if value >= 2 ** (bits - 1) else value
    return int(value % 2**bits)
