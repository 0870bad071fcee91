"""Sample predictions as pictures: PNG in data URIs, masks as pictures of their own on top.

A mask apart from its image is a few flat colours, and the image needs no more pixels than it has:
together they take a sixth of the room of one picture of both.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wardround.common.html.palette import COLOURS, red_green_blue
from wardround.simulations.report.samples import Samples

if TYPE_CHECKING:
    from PIL.Image import Image

Mask = NDArray[np.bool_]
SHOWN_LABELS = 12
SHOWN_MASKS = 8  # three panels each
_SIDE_PIXELS = 240
_FILL = 0.35
_SURE = 0.5  # score from which on a box is drawn


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture.

    Attributes:
        label: Stands above it.
        alternative: Its text for who does not see it.
        source: Its data URI.
        mask: The data URI of what lies over it, of the same shape; "" for nothing.
    """

    label: str
    alternative: str
    source: str
    mask: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """One test image with what the model made of it.

    Attributes:
        verdict: "right" or "wrong" for a classification, "" for a segmentation.
        edges: What lies at its left and at its right edge, e.g. "RL"; "" where nothing says so.
    """

    site: str
    panels: tuple[Panel, ...]
    caption: str
    verdict: str = ""
    edges: str = ""


def draw_samples(samples: Samples, classes: Sequence[str]) -> tuple[Picture, ...]:
    """Return some of the pictures, taken from the sites in turn."""
    if samples.is_segmentation:
        draw, count = _segmentation, SHOWN_MASKS
    elif samples.is_detection:
        draw, count = _detection, SHOWN_MASKS
    else:
        draw, count = _classification, SHOWN_LABELS
    return tuple(draw(samples, index, classes) for index in _in_turn(samples.site, count))


def draw_failures(samples: Samples, classes: Sequence[str]) -> tuple[Picture, ...]:
    """Return every picture of a segmentation as one panel: truth at the left, found at the right.

    Args:
        samples: Of a segmentation; few.
        classes: Background first.
    """
    return tuple(
        Picture(
            str(samples.site[index]),
            (
                Panel(
                    "",
                    f"one of the worst test images of {samples.site[index]}: image, truth, found",
                    side_by_side(
                        [
                            _rgb(samples.images[index]),
                            _marked(samples.images[index], samples.truth[index]),
                            _marked(samples.images[index], samples.prediction[index]),
                        ]
                    ),
                ),
            ),
            f"{samples.site[index]}, Dice {float(samples.score[index]):.3f}: image, truth, found",
        )
        for index in range(len(samples))
    )


def overlay_uri(image: NDArray[np.float32], strength: NDArray[np.float32], outline: Mask) -> str:
    """Return an image and, beside it, the same with a map over it and a region outlined.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` in [0, 1].
        strength: ``(H, W)`` in [0, 1]: how red each pixel is made.
        outline: ``(H, W)``.
    """
    plain = _rgb(image)
    opacity = 0.7 * np.clip(np.nan_to_num(strength), 0, 1)[..., None]
    heat = np.stack([np.ones_like(strength), 0.85 - 0.85 * strength, np.zeros_like(strength)], -1)
    over = plain * (1 - opacity) + heat * opacity
    return side_by_side([plain, over], outline)


def side_by_side(panels: Sequence[NDArray[np.float32]], outline: Mask | None = None) -> str:
    """Return pictures ``(H, W, 3)`` in [0, 1] in one row; a region is outlined in the last one."""
    from PIL import Image

    height, width = panels[0].shape[:2]
    size = _shown_size(width, height, largest_factor=2.0)
    drawn = []
    for place, panel in enumerate(panels):
        pixels = Image.fromarray(np.round(np.clip(panel, 0, 1) * 255).astype(np.uint8))
        large = np.array(pixels.resize(size, Image.Resampling.BICUBIC))
        if outline is not None and outline.any() and place == len(panels) - 1:
            mask = Image.fromarray(outline.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
            large[_outline(np.asarray(mask) > 0)] = (255, 255, 255)
        drawn.append(large)
    gap = np.full((size[1], 4, 3), 255, np.uint8)
    row = [part for panel in drawn for part in (panel, gap)][:-1]
    return _jpeg_uri(Image.fromarray(np.concatenate(row, axis=1)))


def _rgb(image: NDArray[np.float32]) -> NDArray[np.float32]:
    clipped = np.clip(np.nan_to_num(image), 0, 1)
    return clipped if clipped.ndim == 3 else np.repeat(clipped[..., None], 3, axis=-1)


def _marked(image: NDArray[np.float32], mask: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return a picture with each foreground class in its colour."""
    picture = _rgb(image).copy()
    for k in sorted({int(one) for one in np.unique(mask)} - {0}):
        colour = np.array(red_green_blue(COLOURS[k % len(COLOURS)]), np.float32) / 255
        picture[mask == k] = picture[mask == k] * 0.5 + colour * 0.5
    return picture


def _jpeg_uri(picture: "Image") -> str:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


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
    image = picture_uri(samples.images[index])
    what = f"test image {index + 1}, of {site}"
    masks = {
        "image": "",
        "truth": _mask_uri(samples.truth[index]),
        "prediction": _mask_uri(samples.prediction[index]),
    }
    present = sorted({int(k) for k in np.unique(samples.truth[index])} - {0})
    seen = ", ".join(class_name(k, classes) for k in present) or "no foreground class"
    panels = tuple(
        Panel(label, f"{label} of {what}; truth: {seen}", image, mask)
        for label, mask in masks.items()
    )
    caption = site if math.isnan(score) else f"{site}, Dice {score:.3f}"
    return Picture(site, panels, caption, edges=samples.edges(index))


def _detection(samples: Samples, index: int, classes: Sequence[str]) -> Picture:
    """Return an image, its true boxes, and those that the model is rather sure of than not."""
    site, image = str(samples.site[index]), samples.images[index]
    found = samples.prediction[index]
    shown = {"truth": samples.truth[index], "prediction": found[found[:, 5] >= _SURE]}
    source, (height, width) = picture_uri(image), image.shape[:2]
    what = f"test image {index + 1}, of {site}"
    panels = [Panel("image", f"image of {what}", source)]
    counts = []
    for label, boxes in shown.items():
        real = boxes[boxes[:, 0] >= 0]
        counts.append(len(real))
        said = f"{label} of {what}: {_counted(real, classes)}"
        panels.append(Panel(label, said, source, _boxes_uri(real, height, width)))
    caption = f"{site}: {counts[0]} true boxes, {counts[1]} found (score from {_SURE:g})"
    return Picture(site, tuple(panels), caption, edges=samples.edges(index))


def _counted(boxes: NDArray[np.generic], classes: Sequence[str]) -> str:
    counts = {int(k): int((boxes[:, 0] == k).sum()) for k in np.unique(boxes[:, 0])}
    return ", ".join(f"{n} {class_name(k, classes)}" for k, n in counts.items()) or "no box"


def _boxes_uri(boxes: NDArray[np.generic], height: int, width: int) -> str:
    """Return boxes in pixels of an image as a clear picture with their outlines."""
    from PIL import Image, ImageDraw

    size = _shown_size(width, height, largest_factor=math.inf)
    picture = Image.new("P", size)
    pen = ImageDraw.Draw(picture)
    across, down = size[0] / width, size[1] / height
    for kind, top, left, bottom, right, _ in boxes.astype(float):
        corner = (round(left * across), round(top * down))
        last = (round(right * across) - 1, round(bottom * down) - 1)
        if last[0] >= corner[0] and last[1] >= corner[1]:
            colour = 1 + (int(kind) + 1) % len(COLOURS)
            pen.rectangle([corner, last], outline=colour, width=2)
    picture.putpalette([0, 0, 0, *(part for one in COLOURS for part in red_green_blue(one))])
    return _png_uri(picture, bytes([0, *(255,) * len(COLOURS)]))


def _classification(samples: Samples, index: int, classes: Sequence[str]) -> Picture:
    site, score = str(samples.site[index]), float(samples.score[index])
    truth = _name(samples.truth[index], classes)
    prediction = _name(samples.prediction[index], classes)
    chance = "" if math.isnan(score) else f" ({score:.0%})"
    caption = f"truth: {truth}; model: {prediction}{chance}"
    panel = Panel(
        "",
        f"test image {index + 1}, of {site}; {caption}",
        picture_uri(samples.images[index]),
    )
    right = bool(np.array_equal(samples.truth[index], samples.prediction[index]))
    verdict = "right" if right else "wrong"
    return Picture(site, (panel,), caption, verdict, samples.edges(index))


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
    from PIL import Image

    grey = np.clip(np.nan_to_num(image), 0, 1) * 255
    picture = Image.fromarray(np.round(grey).astype(np.uint8)).convert("RGB")
    # The browser enlarges a small picture as well as this could, and the page stays small.
    size = _shown_size(picture.width, picture.height, largest_factor=1.0)
    pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
    if (pixels == pixels[..., :1]).all():  # grey takes a seventh of the time, and less room
        pixels = pixels[..., 0]
    return _png_uri(Image.fromarray(pixels))


def _shown_size(width: int, height: int, largest_factor: float) -> tuple[int, int]:
    factor = min(_SIDE_PIXELS / max(width, height), largest_factor)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _mask_uri(mask: NDArray[np.integer]) -> str:
    """Return a mask ``(H, W)`` as a picture: each foreground class filled thinly and outlined."""
    from PIL import Image

    size = _shown_size(mask.shape[1], mask.shape[0], largest_factor=math.inf)
    large = np.asarray(
        Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    )
    indices = np.zeros(large.shape, np.uint8)  # into the palette: 0 is clear, then two a colour
    for index in sorted({int(k) for k in np.unique(large)} - {0}):
        inside = large == index
        first = 1 + 2 * (index % len(COLOURS))
        indices[inside] = first
        indices[_outline(inside)] = first + 1
    picture = Image.fromarray(indices)
    picture.putpalette([0, 0, 0, *(part for one in COLOURS for part in red_green_blue(one) * 2)])
    return _png_uri(picture, bytes([0, *(round(255 * _FILL), 255) * len(COLOURS)]))


def _outline(inside: Mask) -> Mask:
    """Return the pixels of a region that touch its outside, two pixels thick."""
    core = inside
    for _ in range(2):
        padded = np.pad(core, 1)
        core = core & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    return inside & ~core


def _png_uri(picture: "Image", opacity: bytes | None = None) -> str:
    stream = io.BytesIO()
    clear = {} if opacity is None else {"transparency": opacity}
    picture.save(stream, "PNG", optimize=True, **clear)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
