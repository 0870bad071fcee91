"""Stored pixels, decoded: grey as stored, every kind of colour as red, green and blue."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.dicom import kinds
from wardround.client.data.reading.image import UnreadableError
from wardround.common.errors import install_command

MOST_BYTES = 8 * 2**30  # of one file, decoded; a header may claim anything
_AS_IT_IS = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")  # little endian, either way to write it
_GREY = ("MONOCHROME1", "MONOCHROME2", "")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def decoded(dataset: Any, as_indices: bool = False) -> NDArray[Any]:
    """Return the pixels as (frames, rows, columns[, 3]).

    Overlays and other bits beside the stored ones are taken out, YBR is turned to RGB, and the
    colours of a palette, whatever their depth, come on the scale of 8 bits.

    Args:
        dataset: With pixels.
        as_indices: Whether to keep the numbers of a palette, which are the labels of a mask.

    Raises:
        UnreadableError: No decoder can read them, they are damaged, or of an unknown colour.
    """
    photometric = str(dataset.get("PhotometricInterpretation") or "").strip()
    if photometric not in (*_GREY, *_COLOURS, "PALETTE COLOR"):
        msg = (
            "its colours are stored in a way that is not read (PhotometricInterpretation other "
            "than grey, RGB, YBR_FULL or a palette): export the images in RGB."
        )
        raise UnreadableError(msg)
    frames = _frame_count(dataset)
    if _is_compressed(dataset.file_meta.TransferSyntaxUID):
        _check_size(dataset, frames)  # of the others there must be as many bytes as they claim
    values = _shifted(dataset)
    if photometric == "PALETTE COLOR" and not as_indices:
        values = _coloured(values, dataset)
    return values if frames > 1 else values[np.newaxis]


def _frame_count(dataset: Any) -> int:
    text = kinds.element(dataset, "NumberOfFrames")
    try:
        return max(1, int(text or 1))
    except (TypeError, ValueError):
        msg = "its NumberOfFrames is no number: export the series again."
        raise UnreadableError(msg) from None


def _check_size(dataset: Any, frames: int) -> None:
    sizes = [int(dataset.get(name) or 0) for name in ("Rows", "Columns", "BitsAllocated")]
    claimed = frames * sizes[0] * sizes[1] * int(dataset.get("SamplesPerPixel") or 1)
    if claimed * max(1, sizes[2] // 8) > MOST_BYTES:
        msg = (
            f"its header claims {frames} frames of {sizes[0]} x {sizes[1]} pixels, more than "
            f"{MOST_BYTES // 2**30} GiB: export it in parts."
        )
        raise UnreadableError(msg)


def _shifted(dataset: Any) -> NDArray[Any]:
    """Return the stored values where they do not begin at the lowest bit, as of old scanners."""
    allocated, stored = (int(dataset.get(name) or 0) for name in ("BitsAllocated", "BitsStored"))
    high = int(dataset.get("HighBit") or 0) if stored < allocated else 0
    shift = high + 1 - stored
    if not (shift > 0 and stored and high < allocated) or "PixelData" not in dataset:
        return _array(dataset)
    dataset.BitsStored = high + 1
    try:
        return np.asarray(_array(dataset) >> shift)
    finally:
        dataset.BitsStored = stored


def _array(dataset: Any) -> NDArray[Any]:
    from pydicom.pixels import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        values = _plain(dataset, syntax)
        if values is None:
            values = pixel_array(dataset)
    except Exception as error:
        if not _is_compressed(syntax):
            msg = (
                f"its pixels are damaged or cut short ({type(error).__name__}): replace the file, "
                "or export the series again."
            )
            raise UnreadableError(msg) from None
        raise _undecoded(syntax, error, kinds.in_words(dataset)) from None
    return values


def _plain(dataset: Any, syntax: Any) -> NDArray[Any] | None:
    """Return one frame of grey that lies in the file as it is; None for anything else.

    So lie most slices of a series, and this takes a tenth of the time that a general decoder does.
    """
    if syntax not in _AS_IT_IS or "NumberOfFrames" in dataset or "PixelData" not in dataset:
        return None
    bits, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    signed = bool(dataset.PixelRepresentation)
    if bits not in (8, 16) or int(dataset.SamplesPerPixel) != 1 or (signed and stored < bits):
        return None
    size = (int(dataset.Rows), int(dataset.Columns))
    byte_count = size[0] * size[1] * bits // 8
    data = dataset.PixelData
    if not byte_count or len(data) != byte_count + byte_count % 2:
        return None
    kind = ("<i" if signed else "<u") + str(bits // 8)
    # A copy, since what lies at an odd place of memory is slow to stack.
    values = np.frombuffer(data[:byte_count], kind).reshape(size).copy()
    return values if stored >= bits else np.asarray(values & values.dtype.type(2**stored - 1))


def _is_compressed(syntax: Any) -> bool:
    try:
        return bool(syntax.is_compressed)
    except ValueError:  # of a vendor's own syntax nothing is known
        return True


def _undecoded(syntax: Any, error: Exception, name: str) -> UnreadableError:
    from pydicom.pixels import get_decoder

    known = "" if syntax.is_private or syntax.name == str(syntax) else f" ({syntax.name})"
    if known and ("MPEG" in known or "HEVC" in known):
        return UnreadableError(
            f"it is a video{known}, which is not read: save its frames as pictures."
        )
    try:
        has_decoder = get_decoder(syntax).is_available
    except NotImplementedError:
        has_decoder = False
    if has_decoder:
        return UnreadableError(
            f"its compressed pixels{known} cannot be decoded ({type(error).__name__}): they are "
            f"damaged or of a rare variant; export the {name} again, uncompressed."
        )
    return UnreadableError(
        f"the pixels are compressed{known or ' in a private way'} and no decoder could read them: "
        f"{install_command('dicom')}, or store the series uncompressed."
    )


def _coloured(values: NDArray[Any], dataset: Any) -> NDArray[np.uint8]:
    """Return the colours that a palette gives its numbers, as bytes.

    A palette of 16 bits holds 8-bit colours times 256 or 257, so that its upper byte is the colour;
    some files say 16 bits and hold bytes.
    """
    from pydicom.pixels import apply_color_lut

    colours: NDArray[Any] = apply_color_lut(values, dataset)[..., :3]
    if colours.dtype == np.uint8:
        return colours
    tables = [
        dataset.get(f"{name}PaletteColorLookupTableData") for name in ("Red", "Green", "Blue")
    ]
    if all(tables) and all(len(t) % 2 == 0 and _is_of_bytes(t) for t in tables):
        return np.asarray(colours, np.uint8)
    return np.asarray(colours >> 8, np.uint8)


def _is_of_bytes(table: bytes) -> bool:
    return bool((np.frombuffer(table, "<u2") < 256).all())
