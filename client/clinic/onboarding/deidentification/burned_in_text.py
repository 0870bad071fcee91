"""Text in the pixels: found by rapidocr on this machine, and masked where the policy says so.

It finds what a camera would read: it can miss faint, tiny, turned or hand-written text, and text
that is only in frames that were not looked at. It is a net, not a guarantee.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from wardround.common.errors import InputError, install_command

Box: TypeAlias = tuple[int, int, int, int]
"""Rows from, to, columns from, to; the ends are not part of it."""
FindText: TypeAlias = Callable[[NDArray[np.uint8]], Sequence[Box]]
"""From a picture (rows, columns, 3) to the boxes of the text in it."""

# Measured on 48 clean MR slices, a CT and an X-ray: single letters, or two of a score of 0.61, are
# seen in anatomy; of three letters and more none was. 19 small characters are read with 1.0.
_FEWEST_LETTERS, _LOWEST_SCORE = 3, 0.6
_MARGIN = 3  # pixels around a box: smooth edges of letters
_MOST_FRAMES = 8  # of a film; text on its frame is in all of them
_SMALLEST_SIDE = 8  # pixels
# Devices that write on their images, and pictures of a screen.
_WRITING = frozenset(
    {"US", "IVUS", "XA", "RF", "SC", "OT", "XC", "ES", "GM", "OP", "OPT", "DG", "BDUS", "ECG", "PX"}
)
_CONVERTED = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture, single and multi-frame


@dataclass(frozen=True)
class TextCheck:
    """How images are looked at."""

    find: FindText
    mask: bool

    def boxes(self, dataset: Dataset) -> tuple[Box, ...]:
        """Return where text is in any of the frames that are looked at."""
        frames = _frames(dataset)
        places = np.unique(np.linspace(0, len(frames) - 1, _MOST_FRAMES).astype(int))
        found = [box for place in places for box in self.find(_picture(frames[place]))]
        return tuple(dict.fromkeys(found))


def always_looked_at(dataset: Dataset) -> bool:
    """Whether an image is of a kind that often has text; of other series a sample is looked at.

    That (0028,0301) is absent does not mean that there is none; where it says YES, there is.
    """
    said = str(dataset.get("BurnedInAnnotation", "") or "").upper()
    is_colour = int(dataset.get("SamplesPerPixel", 1) or 1) > 1
    is_capture = str(dataset.get("SOPClassUID", "")).startswith(_CONVERTED)
    is_written = str(dataset.get("Modality", "")) in _WRITING or said == "YES"
    return is_colour or is_capture or is_written


@lru_cache(maxsize=1)
def text_finder() -> FindText:
    """Return what finds text.

    Raises:
        InputError: The package is absent.
    """
    try:
        from rapidocr import RapidOCR
    except ImportError:
        msg = (
            "the rules ask for a search for text in the pixels, and rapidocr is not installed: "
            f'{install_command("ocr")}, or write burned_in_text = "unchecked" if you are sure that '
            "no image has any."
        )
        raise InputError(msg) from None
    engine = RapidOCR(params={"Global.log_level": "critical"})

    def find(picture: NDArray[np.uint8]) -> Sequence[Box]:
        if min(picture.shape[:2]) < _SMALLEST_SIDE:
            return ()
        seen = engine(picture, use_cls=False)
        texts, scores, corners = (getattr(seen, name, None) for name in ("txts", "scores", "boxes"))
        if texts is None or scores is None or corners is None:
            return ()
        rows = zip(texts, scores, corners, strict=True)
        return [_box(at, picture) for text, score, at in rows if _is_text(str(text), float(score))]

    return find


def mask_text(dataset: Dataset, boxes: Sequence[Box]) -> Dataset:
    """Return a data set whose pixels are background in the boxes, in all frames; uncompressed.

    Raises:
        Exception: The pixels cannot be decoded.
    """
    from copy import deepcopy

    result = deepcopy(dataset)
    if result.file_meta.TransferSyntaxUID.is_compressed:
        result.decompress()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stored = dataset.pixel_array
    frames = stored if int(dataset.get("NumberOfFrames", 1) or 1) > 1 else stored[np.newaxis]
    frames = np.array(frames)
    kind = str(result.PhotometricInterpretation)
    background = frames.max() if kind == "MONOCHROME1" else frames.min()
    for top, bottom, left, right in boxes:
        frames[:, top:bottom, left:right] = background
    if frames.ndim == 4:  # pydicom has made RGB of them, whatever they were
        result.PlanarConfiguration, result.PhotometricInterpretation = 0, "RGB"
    result.PixelData = np.ascontiguousarray(frames).tobytes()
    return result


def _frames(dataset: Dataset) -> NDArray[Any]:
    """Return the frames (frames, rows, columns[, 3])."""
    pixels: NDArray[Any] = dataset.pixel_array
    return pixels if int(dataset.get("NumberOfFrames", 1) or 1) > 1 else pixels[np.newaxis]


def _picture(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a frame as a screen shows it: text is among the brightest or darkest values."""
    values = frame.astype(np.float32)
    low, high = np.percentile(values, [0.5, 99.8])
    top = values.max()
    high = high if high > low else max(top, low + 1)
    scaled = np.clip((values - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    return np.repeat(scaled[..., np.newaxis], 3, axis=2) if scaled.ndim == 2 else scaled[..., :3]


def _is_text(text: str, score: float) -> bool:
    return score >= _LOWEST_SCORE and sum(sign.isalnum() for sign in text) >= _FEWEST_LETTERS


def _box(corners: Any, picture: NDArray[np.uint8]) -> Box:
    points = np.asarray(corners, dtype=float).reshape(-1, 2)
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    rows, columns = picture.shape[:2]
    return (
        max(int(top) - _MARGIN, 0),
        min(int(np.ceil(bottom)) + _MARGIN + 1, rows),
        max(int(left) - _MARGIN, 0),
        min(int(np.ceil(right)) + _MARGIN + 1, columns),
    )
