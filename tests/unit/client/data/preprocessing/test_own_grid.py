"""From the network's grid back to the image's own: turned, resampled, padded, cropped."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wardround.client.data.preprocessing import own_grid
from wardround.client.data.preprocessing.own_grid import labels_in_own_grid, prepare_images
from wardround.client.data.reading.image import Image
from wardround.client.tasks.segmentation import most_likely_classes
from wardround.common.study.sections.data import DataSection

MILLIMETRES = (1.0, 1.5, 2.0)


def data_of(**keys: object) -> DataSection:
    return DataSection(classes=("background", "organ"), dimensions=3, **keys)


def image_of(shape: tuple[int, int, int] = (20, 14, 12)) -> Image:
    """Return a box in an image whose axes point to P, L and S."""
    array = np.zeros((1, *shape), np.float32)
    array[:, 4:13, 3:9, 2:8] = 1
    affine = np.array([[0, -1.5, 0, 9], [-1.0, 0, 0, 7], [0, 0, 2, -3], [0, 0, 0, 1]], float)
    return Image(array, MILLIMETRES, affine)


def logits_of(prepared: torch.Tensor) -> torch.Tensor:
    return torch.stack([1 - prepared[0], prepared[0]])[None] - 0.5


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"orientation": "RAS"},
        {"orientation": "RAS", "spacing": (1.0, 1.0, 1.0)},
        {"orientation": "LPI", "spacing": (0.8, 0.8, 1.0), "size": (32, 24, 32), "fit": "pad"},
        {"size": (24, 24, 24), "fit": "resize"},
    ],
)
def test_what_the_network_marks_lies_where_it_was_in_the_image(keys: dict[str, object]) -> None:
    image = image_of()
    prepared, grid = prepare_images([image], data_of(**keys))
    labels = labels_in_own_grid(logits_of(prepared), grid, most_likely_classes, 2)
    truth = image.array[0] > 0.5
    assert labels.shape == truth.shape
    overlap = 2 * (truth & (labels == 1)).sum() / (truth.sum() + (labels == 1).sum())
    assert overlap == 1 if not {"spacing", "size"} & keys.keys() else overlap > 0.93


def test_what_was_cropped_away_was_not_seen_and_is_background() -> None:
    image = image_of()
    prepared, grid = prepare_images([image], data_of(size=(8, 8, 8), fit="pad"))
    everywhere = torch.stack([torch.zeros(8, 8, 8), torch.ones(8, 8, 8)])[None]
    labels = labels_in_own_grid(everywhere, grid, most_likely_classes, 2)
    assert prepared.shape == (1, 8, 8, 8)
    assert labels.sum() == 8**3
    assert labels[6:14, 3:11, 2:10].all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_parts_give_the_classes_of_the_whole_to_the_voxel(
    axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_of()
    data = data_of(spacing=(1.3, 0.9, 1.1), orientation="stored")
    _, grid = prepare_images([image], data)
    logits = torch.randn(1, 4, *grid.fitted, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(logits, grid.turned, mode="trilinear")
    expected = most_likely_classes(whole)[0].numpy()
    assert (labels_in_own_grid(logits, grid, most_likely_classes, 4) == expected).all()
    monkeypatch.setattr(own_grid, "_NUMBERS_OF_A_PART", 3_000)
    parts = []
    for start in range(0, grid.fitted[axis], 3):
        place = [slice(None)] * 5
        place[axis + 2] = slice(start, start + 3)
        parts.append((tuple(place), logits[tuple(place)]))
    place_of_last = parts[-1][0][axis + 2]
    assert place_of_last.stop >= grid.fitted[axis]
    assert (labels_in_own_grid(iter(parts), grid, most_likely_classes, 4) == expected).all()
