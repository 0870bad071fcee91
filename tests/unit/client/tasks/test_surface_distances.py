import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.ndimage import binary_erosion, distance_transform_edt

from wardround.client.tasks.surface_distances import measure_surfaces


def distances_on_a_map(truth, found, spacing):
    """Return the distances both ways, each read off a map of every voxel of the image."""
    surfaces = [mask & ~binary_erosion(mask) for mask in (truth, found)]
    to_truth, to_found = (distance_transform_edt(~s, sampling=spacing) for s in surfaces)
    return to_found[surfaces[0]], to_truth[surfaces[1]]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_surface_metrics_equal_those_of_whole_distance_maps_and_monais_own(dimensions):
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    rng = np.random.default_rng(dimensions)
    spacing = (0.8, 1.5, 3.0)[:dimensions]
    for _ in range(4):
        masks = []
        for _ in range(2):
            corner = rng.integers(0, 5, dimensions)
            mask = np.zeros((16,) * dimensions, dtype=bool)
            mask[tuple(slice(c, c + rng.integers(3, 9)) for c in corner)] = True
            masks.append(mask & (rng.random(mask.shape) < 0.9))
        truth, found = masks
        tensors = [torch.tensor(mask)[None, None] for mask in (found, truth)]

        measured = measure_surfaces(truth, found, spacing)

        hd95 = compute_hausdorff_distance(
            *tensors, include_background=True, percentile=95, spacing=spacing
        )
        surface_dice = compute_surface_dice(
            *tensors, class_thresholds=[1.5], include_background=True, spacing=spacing
        )
        from_truth, from_prediction = distances_on_a_map(truth, found, spacing)
        assert_allclose(measured.from_truth, from_truth, rtol=1e-6)
        assert_allclose(measured.from_prediction, from_prediction, rtol=1e-6)
        assert measured.hd95 == pytest.approx(float(hd95), rel=1e-5)
        assert measured.surface_dice(1.5) == pytest.approx(float(surface_dice), rel=1e-5)


def test_cubes_lie_as_far_apart_as_a_ruler_says():
    truth, found = np.zeros((2, 12, 12, 12), dtype=bool)
    truth[2:6, 2:6, 2:6] = True
    found[5:9, 2:6, 2:6] = True

    measured = measure_surfaces(truth, found, (2.0, 1.0, 1.0))

    # Surface of a 4-cube: 64 - 8 voxels. 3 steps of 2 mm apart along the first axis.
    assert len(measured.from_truth) == len(measured.from_prediction) == 56
    assert measured.hd95 == pytest.approx(6.0)
    assert measured.surface_dice(0.0) == pytest.approx(16 / 56)  # the face that they share
    assert measured.surface_dice(6.0) == 1.0


def test_equal_masks_have_distance_zero():
    mask = np.random.default_rng(0).random((9, 9)) < 0.5

    measured = measure_surfaces(mask, mask, (1.0, 1.0))

    assert (measured.hd95, measured.surface_dice(0.0)) == (0.0, 1.0)
