"""Sample predictions as pictures: PNG in data URIs, masks drawn over the image."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.html.palette import colour_of, red_green_blue
from wardround.simulations.report.samples import Samples

Mask = NDArray[np.bool_]
Pixels = NDArray[np.uint8]
SHOWN_LABELS = 12
SHOWN_MASKS = 8  # three panels each
_SIDE_PIXELS = 240
_FILL = 0.35


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: its label, its text alternative and its data URI."""

    label: str
    alternative: str
    source: str


@dataclass(frozen=True, slots=True)
class Picture:
    """One test image with what the model made of it.

    Attributes:
        verdict: "right" or "wrong" for a classification, "" for a segmentation.
    """

    site: str
    panels: tuple[Panel, ...]
    caption: str
    verdict: str = ""


def draw_samples(samples: Samples, classes: Sequence[str]) -> tuple[Picture, ...]:
    """Return some of the pictures, taken from the sites in turn."""
    if samples.is_segmentation:
        draw, count = _segmentation, SHOWN_MASKS
    else:
        draw, count = _classification, SHOWN_LABELS
    return tuple(draw(samples, index, classes) for index in _in_turn(samples.site, count))


def _in_turn(sites: NDArray[np.str_], count: int) -> list[int]:
    seen: dict[str, int] = {}
    turns = []
    for index, site in enumerate(sites):
        seen[str(site)] = seen.get(str(site), -1) + 1
        turns.append((seen[str(site)], index))
    chosen = [index for _, index in sorted(turns)[:count]]
    names = list(seen)
    return sorted(chosen, key=lambda index: (names.index(str(sites[index])), index))


def _segmentation(samples: Samples, index: int, classes: Sequence[str]) -> Picture:
    site, score = str(samples.site[index]), float(samples.score[index])
    image = _to_pixels(samples.images[index])
    what = f"test image {index + 1}, of {site}"
    sources = {
        "image": image,
        "truth": _overlay(image, samples.truth[index]),
        "prediction": _overlay(image, samples.prediction[index]),
    }
    present = sorted({int(k) for k in np.unique(samples.truth[index])} - {0})
    seen = ", ".join(class_name(k, classes) for k in present) or "no foreground class"
    panels = tuple(
        Panel(label, f"{label} of {what}; truth: {seen}", _to_uri(pixels))
        for label, pixels in sources.items()
    )
    caption = site if math.isnan(score) else f"{site}, Dice {score:.3f}"
    return Picture(site, panels, caption)


def _classification(samples: Samples, index: int, classes: Sequence[str]) -> Picture:
    site, score = str(samples.site[index]), float(samples.score[index])
    truth = _name(samples.truth[index], classes)
    prediction = _name(samples.prediction[index], classes)
    chance = "" if math.isnan(score) else f" ({score:.0%})"
    caption = f"truth: {truth}; model: {prediction}{chance}"
    panel = Panel(
        "",
        f"test image {index + 1}, of {site}; {caption}",
        _to_uri(_to_pixels(samples.images[index])),
    )
    right = bool(np.array_equal(samples.truth[index], samples.prediction[index]))
    return Picture(site, (panel,), caption, "right" if right else "wrong")


def class_name(index: int, classes: Sequence[str]) -> str:
    """Return the name of a class index."""
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def _name(label: NDArray[np.integer], classes: Sequence[str]) -> str:
    if label.ndim == 0:
        return class_name(int(label), classes)
    names = [class_name(int(k), classes) for k in np.flatnonzero(label)]
    return ", ".join(names) or "none"


def picture_uri(image: NDArray[np.float32]) -> str:
    """Return the data URI of an image ``(H, W)`` or ``(H, W, 3)`` in [0, 1]."""
    return _to_uri(_to_pixels(image))


def _to_pixels(image: NDArray[np.float32]) -> Pixels:
    """Return ``(H', W', 3)`` pixels, brought to about the size they are shown in."""
    from PIL import Image

    grey = np.clip(np.nan_to_num(image), 0, 1) * 255
    picture = Image.fromarray(np.round(grey).astype(np.uint8)).convert("RGB")
    width, height = _shown_size(image.shape[1], image.shape[0])
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


def _shown_size(width: int, height: int) -> tuple[int, int]:
    factor = _SIDE_PIXELS / max(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _overlay(image: Pixels, mask: NDArray[np.integer]) -> Pixels:
    """Return the image with each foreground class filled thinly and outlined."""
    from PIL import Image

    height, width = image.shape[:2]
    large = np.asarray(
        Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    )
    drawn = image.astype(np.float32)
    for index in sorted({int(k) for k in np.unique(large)} - {0}):
        colour = np.array(red_green_blue(colour_of(index)), np.float32)
        inside = large == index
        drawn[inside] = (1 - _FILL) * drawn[inside] + _FILL * colour
        drawn[_outline(inside)] = colour
    return np.round(drawn).astype(np.uint8)


def _outline(inside: Mask) -> Mask:
    """Return the pixels of a region that touch its outside, two pixels thick."""
    core = inside
    for _ in range(2):
        padded = np.pad(core, 1)
        core = core & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    return inside & ~core


def _to_uri(pixels: Pixels) -> str:
    from PIL import Image

    picture = Image.fromarray(pixels)
    if (pixels == pixels[..., :1]).all():  # grey takes a seventh of the time, and less room
        picture = picture.convert("L")
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
