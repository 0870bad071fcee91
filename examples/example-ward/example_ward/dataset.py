"""A data set for simulations: made on the spot, so that nothing is downloaded."""

from pathlib import Path

import numpy as np


def discs(folder: Path, seed: int = 0, patients: int = 60, size: int = 16) -> list[dict[str, str]]:
    """Write noisy images, half of them with a bright disc, and return a row each.

    A row has the columns of a manifest: patient, a column a channel, label or mask.
    """
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    images, masks, rows = [], [], []
    for patient in range(patients):
        has_disc = patient % 2 == 1
        centre = random.uniform(size / 4, 3 * size / 4, 2)
        disc = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (size / 5) ** 2) & has_disc
        images.append(random.normal(100, 20, (size, size)) + 60 * disc)
        masks.append(disc)
        rows.append(
            {
                "patient": f"p{patient}",
                "image": f"{folder / 'images.npy'}#{patient}",
                "mask": f"{folder / 'masks.npy'}#{patient}",
                "label": "disc" if has_disc else "none",
            }
        )
    np.save(folder / "images.npy", np.stack(images).astype("float32"))
    np.save(folder / "masks.npy", np.stack(masks).astype("uint8"))
    return rows
