"""The examinations of the year: drawn ones, or chest X-rays of a public data set."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

CLASSES = ("normal", "pneumonia")
SIDE, _SPOT = 28, 1.5  # pixels; a spot of infection is so wide
Scanner = Literal["A", "B"]
SCANNERS: dict[Scanner, str] = {"A": "DX-100", "B": "DX-200"}
Pictures = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Examination:
    """One image.

    Attributes:
        image: Where it lies, as a manifest writes it.
        label: What it truly shows.
    """

    patient: str
    image: str
    label: str
    scanner: Scanner


class Archive:
    """Images in a row, each handed out once; a scanner changes how they look."""

    def __init__(self, folder: Path, images: Pictures, labels: NDArray[np.int64]) -> None:
        folder.mkdir(parents=True)
        self._folder, self._images, self._labels = folder, images, labels
        self._taken = 0
        self._draw = np.random.default_rng(7)

    def take(self, count: int, scanner: Scanner) -> list[Examination]:
        """Return the next examinations; their images are written as one array file.

        Raises:
            RuntimeError: There are not as many left.
        """
        begin, end = self._taken, self._taken + count
        if end > len(self._images):
            msg = f"the year needs more than {len(self._images)} images: give fewer --weeks."
            raise RuntimeError(msg)
        self._taken = end
        path = self._folder / f"from-{begin:05d}.npz"
        np.savez(path, images=_seen(self._images[begin:end], scanner, self._draw))
        return [
            Examination(
                f"P{begin + place:05d}",
                f"{path}#images#{place}",
                CLASSES[self._labels[begin + place]],
                scanner,
            )
            for place in range(count)
        ]


def _seen(images: Pictures, scanner: Scanner, draw: np.random.Generator) -> Pictures:
    """Return images as a scanner shows them: B bends the grey values, and is noisier."""
    if scanner == "A":
        return images
    values = (images / 255.0) ** 1.7 + draw.normal(0, 0.08, images.shape)
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def drawn_images(count: int, seed: int = 1) -> tuple[Pictures, NDArray[np.int64]]:
    """Return images ``(N, 28, 28)`` like chest X-rays, and labels 0 or 1, drawn by a seed."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, count)
    rows, columns = np.mgrid[:SIDE, :SIDE] / (SIDE - 1.0)
    pictures = np.empty((count, SIDE, SIDE), np.uint8)
    for place, label in enumerate(labels):
        light = 0.62 + draw.normal(0, 0.03) + draw.normal(0, 0.05) * rows
        for side in (0.3, 0.7):
            middle = side + draw.normal(0, 0.015), 0.5 + draw.normal(0, 0.02)
            lung = ((columns - middle[0]) / 0.16) ** 2 + ((rows - middle[1]) / 0.34) ** 2
            light -= 0.32 / (1 + np.exp(8 * (lung - 1)))
        light += 0.03 * np.sin(rows * 34 + draw.uniform(0, 6))
        spots = np.zeros((SIDE, SIDE))
        for _ in range(int(draw.integers(2, 5)) if label else 0):
            at = draw.uniform(0.3, 0.7), draw.choice((0.3, 0.7)) + draw.normal(0, 0.04)
            spots[int(at[0] * SIDE), int(at[1] * SIDE)] += draw.uniform(0.15, 0.5)
        light += 2 * np.pi * 1.5**2 * gaussian_filter(spots, 1.5) + draw.normal(
            0, 0.04, light.shape
        )
        pictures[place] = np.rint(np.clip(light, 0, 1) * 255)
    return pictures, labels


def pneumonia_images(data_root: Path, seed: int = 3) -> tuple[Pictures, NDArray[np.int64]]:
    """Return PneumoniaMNIST in a drawn order, an image that is there twice once.

    Raises:
        RuntimeError: The folder does not hold it.
    """
    found = sorted(data_root.rglob("pneumoniamnist*.npz"))
    if not found:
        msg = f"{data_root} holds no pneumoniamnist*.npz."
        raise RuntimeError(msg)
    with np.load(found[-1]) as data:
        splits = [(data[f"{s}_images"], data[f"{s}_labels"]) for s in ("train", "val", "test")]
    images = np.concatenate([pair[0] for pair in splits])
    labels = np.concatenate([pair[1] for pair in splits]).ravel().astype(np.int64)
    _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
    order = np.random.default_rng(seed).permutation(first)
    return images[order], labels[order]


def write_inputs(path: Path, examinations: Sequence[Examination]) -> Path:
    """Write a table of images with their scanner and true label, and return it."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image", "scanner", "label"])
        writer.writerows((one.image, SCANNERS[one.scanner], one.label) for one in examinations)
    return path
