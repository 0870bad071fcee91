"""The reference job's images: learnable, generated, the same for everybody who runs a benchmark."""

import csv
from pathlib import Path

import numpy as np

CLASSES = 10
SIZE = 28


def write_sites(folder: Path, sites: int, images_each: int, seed: int = 0) -> Path:
    """Write one array file and a manifest with ``sites`` times ``images_each`` training images.

    Every class is a smooth random pattern; an image is its class's pattern in noise. A tenth as
    many images again, of each site, are for validation, and a tenth for test.

    Returns:
        The manifest.
    """
    generator = np.random.default_rng(seed)
    coarse = generator.normal(size=(CLASSES, 7, 7))
    patterns = np.kron(coarse, np.ones((4, 4)))
    parts = {"train": images_each, "validation": images_each // 10, "test": images_each // 10}
    count = sites * sum(parts.values())
    labels = generator.integers(CLASSES, size=count)
    images = patterns[labels] + generator.normal(scale=6.0, size=(count, SIZE, SIZE))
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", images.astype(np.float32))
    np.save(folder / "labels.npy", labels.astype(np.int64))
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "image", "label", "split", "site"])
        row = 0
        for site in range(sites):
            for split, number in parts.items():
                for _ in range(number):
                    writer.writerow(
                        [f"p{row}", f"images.npy#{row}", labels[row], split, f"site-{site:02d}"]
                    )
                    row += 1
    return manifest


def write_study(path: Path, manifest: Path, rounds: int) -> None:
    """Write the reference study: two convolutions of 16 and 32, a linear layer, SGD."""
    classes = ", ".join(f'"c{number}"' for number in range(CLASSES))
    path.write_text(
        f"""
[study]
name = "reference-job"
task = "classification"
[data]
classes = [{classes}]
size = [{SIZE}, {SIZE}]
[model]
network = "small-cnn"
features = [16, 32]
normalisation = "none"
[training]
optimiser = "sgd"
learning_rate = 0.01
momentum = 0.9
batch_size = 32
local_epochs = 1
[federation]
rounds = {rounds}
[evaluation]
metric = "accuracy"
keep = "last"
[simulation]
data = "folder"
split = "natural"
[simulation.options]
manifest = "{manifest}"
"""
    )
