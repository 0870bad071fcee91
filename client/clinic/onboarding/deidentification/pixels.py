"""What hides in and behind the pixels: old overlays in unused bits, bytes after the last frame."""

import re

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

_JPEG = re.compile(r"1\.2\.840\.10008\.1\.2\.4\.(5\d|6\d|70|80|81|90|91)")
_START_OF_SCAN, _COMMENT = 0xDA, 0xFE
_START_OF_TILE, _COMMENT_OF_2000 = 0x90, 0x64  # of JPEG 2000
_NEEDED = (0xE0, 0xEE)  # JFIF and Adobe: the colours follow from them


class HiddenTextError(Exception):
    """Compressed pixels hold an overlay that cannot be taken out."""


def clean_pixels(source: Dataset, result: Dataset) -> None:
    """Take out of a result's pixels what is no pixel.

    Args:
        source: The data set as it came, whose overlays say where they lie.
        result: Has the pixels; is changed where they hide something.

    Raises:
        HiddenTextError: They are compressed, and an overlay lies in their unused bits.
    """
    if "PixelData" not in result:
        return
    syntax = source.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not syntax.is_deflated:
        if _has_overlay_in_pixels(source):
            raise HiddenTextError
        if _JPEG.fullmatch(syntax):
            _drop_comments(result)
        return
    expected = _expected_bytes(result)
    pixels = bytes(result.PixelData)
    if expected is not None and len(pixels) > expected:
        pixels = pixels[:expected] + b"\0" * (expected % 2)
    if _has_overlay_in_pixels(source):
        pixels = _without_unused_bits(pixels, result, syntax.is_little_endian)
    if pixels != result.PixelData:
        result.PixelData = pixels


def _has_overlay_in_pixels(source: Dataset) -> bool:
    """Whether an overlay says where it is and does not hold its bits itself (retired in 2004)."""
    groups = range(0x6000, 0x6020, 2)
    held = [group for group in groups if len(source.group_dataset(group))]
    return any((group, 0x3000) not in source for group in held)


def _expected_bytes(result: Dataset) -> int | None:
    try:
        values = int(result.Rows) * int(result.Columns) * int(result.get("SamplesPerPixel", 1) or 1)
        bits = values * int(result.get("NumberOfFrames", 1) or 1) * int(result.BitsAllocated)
    except (AttributeError, TypeError, ValueError):
        return None
    if str(result.get("PhotometricInterpretation", "")).endswith("422"):
        bits = bits * 2 // 3
    return (bits + 7) // 8


def _without_unused_bits(pixels: bytes, result: Dataset, is_little_endian: bool) -> bytes:
    allocated, stored = int(result.BitsAllocated), int(result.BitsStored)
    if allocated not in (8, 16, 32) or stored >= allocated:
        return pixels
    order = "<" if is_little_endian else ">"
    values = np.frombuffer(pixels, dtype=f"{order}u{allocated // 8}")
    kept = values & ((1 << stored) - 1)
    if int(result.get("PixelRepresentation", 0) or 0):
        sign = kept >> (stored - 1) & 1
        kept = kept | (sign * ((1 << allocated) - (1 << stored))).astype(kept.dtype)
    return kept.astype(values.dtype).tobytes()


def _drop_comments(result: Dataset) -> None:
    """Take comments and application segments out of JPEG frames: a name may stand in them."""
    frames = int(result.get("NumberOfFrames", 1) or 1)
    cleaned = [
        _without_comments(f) for f in generate_frames(result.PixelData, number_of_frames=frames)
    ]
    result.PixelData = encapsulate(cleaned)
    result["PixelData"].is_undefined_length = True
    for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if name in result:
            delattr(result, name)


def _without_comments(frame: bytes) -> bytes:
    if frame.startswith(b"\xff\x4f\xff\x51"):
        return _without_comments_of_2000(frame)
    if not frame.startswith(b"\xff\xd8"):
        return frame
    kept, place = [frame[:2]], 2
    while place + 4 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == _START_OF_SCAN:
            break
        end = place + 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
        is_application = 0xE0 <= marker <= 0xEF and marker not in _NEEDED
        if marker != _COMMENT and not is_application:
            kept.append(frame[place:end])
        place = end
    rest = frame[place:]
    end_of_image = rest.rfind(b"\xff\xd9")
    kept.append(rest if end_of_image < 0 else rest[: end_of_image + 2])
    return b"".join(kept)


def _without_comments_of_2000(frame: bytes) -> bytes:
    """Return a JPEG 2000 codestream with zeros for the text of its main header's comments."""
    content, place = bytearray(frame), 2
    while place + 6 <= len(content) and content[place] == 0xFF:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        if marker == _START_OF_TILE:
            break
        end = min(place + 2 + length, len(content))
        if marker == _COMMENT_OF_2000 and end > place + 6:
            content[place + 6 : end] = bytes(end - place - 6)
        place += 2 + length
    return bytes(content)
