"""Hospitals with images of bright and dark blocks in noise, and a box about each."""

from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ["dark", "bright"]


def blob_study(dimensions: int = 2, **sections: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a study that looks for the blocks."""
    content: dict[str, Any] = {
        "study": {"name": "blobs", "task": "detection"},
        "data": {
            "classes": CLASSES,
            "dimensions": dimensions,
            "size": [48, 40] if dimensions == 2 else [24, 16, 24],
        },
        "model": {"network": "retinanet", "features": [8, 8, 16]},
        "training": {"learning_rate": 0.003, "local_epochs": 6, "batch_size": 4},
        "federation": {"rounds": 2, "minimum_sites": 2},
    }
    for name, keys in sections.items():
        content[name] = {**content.get(name, {}), **keys}
    return content


def write_blob_site(
    folder: Path, patients: int, seed: int, size: tuple[int, ...], private: bool = False
) -> Path:
    """Write a site whose first images hold nothing; a third is for validation, a third for tests.

    Args:
        size: Of each image; blocks have sides of 8 to 12.
    """
    folder.mkdir(parents=True)
    random, rows = np.random.default_rng(seed), ["patient,image,boxes,split"]
    for number in range(patients):
        image = random.normal(0, 0.1, size).astype(np.float32)
        cells = [_block(image, random) for _ in range(number % 3)] or ["none"]
        np.save(folder / f"{number}.npy", image)
        split = ("train", "validation", "test")[number // 3 % 3]
        rows.append(f"p{number},{number}.npy,{';'.join(cells)},{split}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    (folder / "site.toml").write_text(f'name = "{folder.name}"')
    (folder / "policy.toml").write_text(
        'tasks = ["detection"]\napproved = "any"\nsimulated = true\nprivacy_required = false\n'
        'smallest_cohort = 2\nsmallest_cell = 1\nmetrics = "sums"\n'
        + "study_epsilon = 1e6\nlifetime_epsilon = 1e6\nlifetime_delta = 0.01\n"
        * private
    )
    return folder


def _block(image: np.ndarray, random: np.random.Generator) -> str:
    sides = random.integers(8, 13, image.ndim)
    low = [
        int(random.integers(0, size - side + 1))
        for size, side in zip(image.shape, sides, strict=True)
    ]
    high = [int(start + side) for start, side in zip(low, sides, strict=True)]
    kind = int(random.integers(2))
    image[tuple(map(slice, low, high))] += 3.0 * kind - 1.5
    if image.ndim == 2:  # the axes of a picture are (y, x), and a cell writes x first
        low, high = low[::-1], high[::-1]
    return " ".join(map(str, (CLASSES[kind], *low, *high)))
