"""Predictions are scored on the image's own grid: nothing is lost by a crop, nothing made by a pad."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from wardround.client.data.preprocessing import geometry
from wardround.client.tasks import own_grid
from wardround.client.tasks.own_grid import OwnGrid, brought_back, slabs

SIDES = st.integers(1, 9)


def prepared_sizes(sizes, data):
    """Return how large the image becomes, and how large it is cropped or padded to."""
    resampled = tuple(data.draw(SIDES) for _ in sizes)
    return resampled, tuple(data.draw(SIDES) for _ in sizes)


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(SIDES, min_size=2, max_size=3), data=st.data())
def test_a_prediction_goes_the_way_of_the_mask_backwards(sizes, data):
    """Each step of preparation is undone by the same step the other way round."""
    resampled, prepared = prepared_sizes(sizes, data)
    found = torch.randint(0, 5, prepared, dtype=torch.uint8)
    uncropped = geometry.centre_fit(found.numpy()[None, None], resampled, 0)
    wanted = F.interpolate(torch.from_numpy(uncropped).float(), sizes, mode="nearest-exact")[0, 0]
    seen = brought_back(found, OwnGrid(torch.zeros(sizes), resampled, (1.0,) * len(sizes)))
    assert seen.dtype == torch.uint8
    # torch divides in float32, which may miss the border between two voxels; we divide whole ones.
    places = [
        [(2 * v + 1) * r % (2 * o) == 0 for v in range(o)]
        for o, r in zip(sizes, resampled, strict=True)
    ]
    on_border = torch.zeros(sizes, dtype=torch.bool)
    for axis, borders in enumerate(places):
        shape = [1] * len(sizes)
        shape[axis] = -1
        on_border |= torch.tensor(borders).view(shape)
    assert torch.equal(seen[~on_border], wanted[~on_border].to(torch.uint8))


@pytest.mark.parametrize("voxels", [1, 7, 50, 10**6])
def test_slabs_of_any_thickness_are_the_same_labels(monkeypatch, voxels):
    found = torch.randint(0, 3, (6, 7, 8))
    grid = OwnGrid(torch.zeros(9, 5, 11), (7, 9, 10), (1.0, 1.0, 1.0))
    whole = brought_back(found, grid)
    monkeypatch.setattr(own_grid, "_VOXELS_OF_A_SLAB", voxels)
    parts = list(slabs(found, grid))
    assert torch.equal(torch.cat([labels for _, labels in parts]), whole)
    assert [rows.stop for rows, _ in parts][-1] == 9
    assert max(labels.numel() for _, labels in parts) <= max(voxels, 55)


def test_what_was_cropped_away_is_background_and_what_was_padded_is_left_out():
    grid = OwnGrid(torch.zeros(4, 2), (4, 2), (1.0, 1.0))
    seen = brought_back(torch.ones(2, 6, dtype=torch.int64), grid)
    assert seen.tolist() == [[0, 0], [1, 1], [1, 1], [0, 0]]
