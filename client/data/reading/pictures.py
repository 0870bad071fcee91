"""Pictures: PNG, JPEG, BMP, TIFF and GIF, one picture a file."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.ImageOps
from numpy.typing import NDArray

from wardround.client.data.reading.image import Stored, UnreadableError

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF")
_KEPT = ("L", "I", "F", "RGB")
_CONVERTED = ("P", "RGBA", "RGBX", "CMYK", "YCbCr", "PA", "RGBa")
_LOSSY = ("JPEG", "MPO")
_OPAQUE = 255
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_BITS, _SHOWN, _KIND = 258, 262, 339  # tags of a TIFF: BitsPerSample, photometric, SampleFormat
_WHITE_IS_ZERO = 0
_UNSIGNED, _SIGNED = 1, 2

# Pillow refuses above twice its limit, in words of its own; below there is nothing to warn of.
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)


def read_picture(path: Path, is_mask: bool) -> Stored:
    """Return a picture as (rows, columns) or (rows, columns, 3), turned as its EXIF data say.

    Args:
        path: The file.
        is_mask: Whether indices into a palette are labels, and not colours.

    Raises:
        UnreadableError: It is not one picture that can be read as it is shown.
    """
    # Half a picture is none; other packages (WeasyPrint) allow it, for the whole process.
    PIL.ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        opened = PIL.Image.open(path, formats=_FORMATS)
    except PIL.Image.DecompressionBombError as error:
        raise _too_large(str(error)) from None
    with opened as picture:
        _check_depth(picture)
        if (count := getattr(picture, "n_frames", 1)) > 1:
            msg = f"it holds {count} pictures: save each as a file of its own, or all as one array."
            raise UnreadableError(msg)
        lossy = picture.format in _LOSSY or "jpeg" in str(picture.info.get("compression", ""))
        turned = PIL.ImageOps.exif_transpose(picture)
        if turned.has_transparency_data and turned.mode[0] not in "IF":
            _check_opaque(turned)
        if is_mask and turned.mode == "P":
            _check_palette(turned)
        values = np.asarray(_readable(turned, is_mask))
        return Stored(_numbers_of_tiff(picture, values), is_lossy=lossy)


def _readable(picture: PIL.Image.Image, is_mask: bool) -> PIL.Image.Image:
    """Return a picture of grey values, of three colours, or of indices that are labels."""
    mode = picture.mode
    if is_mask and mode in ("P", "1"):
        return picture
    if mode in ("1", "LA", "La"):
        return picture.convert("L")
    if mode in _KEPT or mode.startswith("I;16"):
        return picture
    if mode not in _CONVERTED:
        msg = f"its colours are stored as {mode}: save it in red, green and blue, or in grey."
        raise UnreadableError(msg)
    return picture.convert("RGB")


def _too_large(reason: str) -> UnreadableError:
    """Return the refusal of a picture that would take too much memory, as Pillow found it."""
    found = re.search(r"\((\d+) pixels\)", reason)
    size = f"{int(found[1]) / 1e6:.0f} megapixels" if found else "too many pixels"
    most = 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0) / 1e6
    return UnreadableError(
        f"it is a picture of {size}, and at most {most:.0f} can be read: save it smaller, or cut "
        "it into tiles."
    )


def _check_opaque(picture: PIL.Image.Image) -> None:
    """Refuse a picture of which a part is not to be seen: what lies beneath is not what is meant.

    Raises:
        UnreadableError: A pixel is transparent.
    """
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    if (alpha < _OPAQUE).any():
        share = float((alpha < _OPAQUE).mean())
        msg = f"{share:.0%} of its pixels are transparent: save it without transparency."
        raise UnreadableError(msg)


def _check_palette(picture: PIL.Image.Image) -> None:
    """Refuse a mask in black and white whose indices say the opposite of what is seen.

    Raises:
        UnreadableError: Index 0 is white and another black.
    """
    palette = picture.getpalette() or []
    used = [int(index) for index in np.unique(np.asarray(picture))]
    colours = {index: tuple(palette[3 * index : 3 * index + 3]) for index in used}
    if len(used) == 2 and colours.get(0) == _WHITE and _BLACK in colours.values():
        msg = (
            "its palette shows the index 0 in white and the other in black: save grey values, 0 "
            "for the background."
        )
        raise UnreadableError(msg)


def _check_depth(picture: PIL.Image.Image) -> None:
    """Refuse colours of 16 bits, of which Pillow would keep 8 without a word.

    Raises:
        UnreadableError: The file holds such colours.
    """
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return  # Pillow keeps all of one grey value
    tiles = getattr(picture, "tile", ())  # how the file's numbers lie, e.g. "RGB;16B"
    parts = [str(part) for tile in tiles for part in _arguments(tile[3])]
    deep = any(re.search(r";16[A-Z]", part) for part in parts)
    if deep or _tag(picture, _BITS, 8) > 8:  # planes apart have no such name
        msg = (
            "its colours have 16 bits, of which only 8 could be read: save it as an array "
            "(.npy, rows x columns x 3), or with 8 bits."
        )
        raise UnreadableError(msg)


def _numbers_of_tiff(picture: PIL.Image.Image, values: NDArray[Any]) -> NDArray[Any]:
    """Return what a TIFF's tags say of its numbers, where Pillow goes by their bits alone.

    Args:
        picture: As it was opened.
        values: As Pillow read them.
    """
    bits, kind = _tag(picture, _BITS, 8), _tag(picture, _KIND, _UNSIGNED)
    read_as = values.dtype.str[1:]  # in either order of the bytes
    if (bits, kind, read_as) == (8, _SIGNED, "u1"):
        return values.view(np.int8)
    if (bits, kind, read_as) == (32, _UNSIGNED, "i4"):
        return values.view(np.uint32)
    if read_as == "u2" and _tag(picture, _SHOWN, 1) == _WHITE_IS_ZERO:
        return np.asarray((1 << bits) - 1 - values)  # of 8 bits Pillow turns it itself
    return values


def _tag(picture: PIL.Image.Image, number: int, usual: int) -> int:
    """Return a tag of a TIFF, of its first sample; what is usual where the file has none."""
    value = getattr(picture, "tag_v2", {}).get(number, usual)
    return int(value[0] if isinstance(value, tuple) else value)


def _arguments(decoder: Any) -> tuple[Any, ...]:
    return decoder if isinstance(decoder, tuple) else (decoder,)
