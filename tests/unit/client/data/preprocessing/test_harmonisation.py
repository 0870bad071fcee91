"""Images of scanners made alike: shading divided out, quantiles moved to a reference's."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from wardround.client.data.preprocessing import harmonisation, scanner_shift
from wardround.client.data.preprocessing.differentiable import network_input
from wardround.client.data.preprocessing.grey_values import grey_steps
from wardround.client.data.preprocessing.harmonisation import harmonised, quantiles, shading
from wardround.client.data.preprocessing.own_grid import prepare_alike, prepare_images
from wardround.client.data.preprocessing.steps import finish_images
from wardround.client.data.reading.image import Image
from wardround.common.study.sections.data import DataSection

RISING = tuple(float(v) for v in range(20, 240, 20))


def contract(dimensions: int = 2, intensity: str = "mr", **asked: object) -> DataSection:
    content = {"classes": ("a", "b"), "dimensions": dimensions, "intensity": intensity}
    return DataSection(**content, harmonisation=asked)


def brain(dimensions: int = 2, seed: int = 0) -> np.ndarray:
    """Return three tissues in smooth shapes within a ball, air 0: ``(1, *spatial)``."""
    generator = np.random.default_rng(seed)
    side = 96 if dimensions == 2 else 40
    shape = (side,) * dimensions
    smooth = gaussian_filter(generator.normal(size=shape), side / 16)
    tissue = np.digitize(smooth / smooth.std(), (-0.5, 0.6))
    values = np.array([60.0, 110.0, 160.0])[tissue] + generator.normal(0, 3, shape)
    axes = np.meshgrid(*(np.linspace(-1, 1, side),) * dimensions, indexing="ij")
    values[sum(axis**2 for axis in axes) > 0.9] = 0
    return values[None].astype(np.float32)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_shading_is_found_and_an_even_image_stays_nearly_even(dimensions: int) -> None:
    even = brain(dimensions)
    shaded = scanner_shift.bias_field(even, 1.0, np.random.default_rng(3))
    inside = even[0] > 0
    true = np.log(shaded[0][inside] / even[0][inside])
    found = np.log(shading(shaded[0])[inside])
    true -= true.mean()
    assert true.std() > 0.06
    assert (found - true).std() < 0.3 * true.std()
    assert np.log(shading(even[0])[inside]).std() < 0.02


def test_a_scanners_contrast_and_scale_are_taken_out() -> None:
    image, generator = brain(), np.random.default_rng(1)
    data = contract(landmarks=(tuple(quantiles(image[0], contract().harmonisation)),))
    strange = scanner_shift.scaling(scanner_shift.contrast(image, 1.5, generator), 1.0, generator)
    strange = np.where(image == 0, 0, strange).astype(np.float32)
    alike = harmonised(strange[None], data)[0]
    before, after = (np.abs(x - image)[image > 0].mean() for x in (strange, alike))
    assert after < 0.03 * before
    np.testing.assert_array_equal(alike == 0, image == 0)
    np.testing.assert_allclose(harmonised(image[None], data)[0], image, atol=1e-3)


def test_nothing_asked_changes_nothing_and_the_same_image_gives_the_same_numbers() -> None:
    block = brain()[None]
    assert harmonised(block, contract()) is block
    data = contract(bias_correction=True, landmarks=(RISING,))
    np.testing.assert_array_equal(harmonised(block, data), harmonised(block.copy(), data))


@pytest.mark.parametrize("foreground", ["nonzero", "above-mean", "all"])
@pytest.mark.parametrize(
    "plane",
    [
        np.zeros((8, 8)),
        np.full((8, 8), 7.0),
        np.eye(8),
        -np.arange(64.0).reshape(8, 8),
        np.where(np.arange(64).reshape(8, 8) < 60, 5.0, 1e30),
    ],
)
def test_odd_images_stay_finite(plane: np.ndarray, foreground: str) -> None:
    data = contract(bias_correction=True, landmarks=(RISING,), foreground=foreground)
    found = harmonised(plane[None, None].astype(np.float32), data)
    assert np.isfinite(found).all()


def test_each_plane_of_each_channel_has_its_own_landmarks() -> None:
    landmarks = tuple(tuple(v + 1000 * place for v in RISING) for place in range(2))
    data = contract(landmarks=landmarks, intensity="none").model_copy(
        update={"channels": ("t1", "t2")}
    )
    images = [Image(brain()), Image(brain(seed=1))]
    seen, _ = prepare_images(images, data)
    assert [float(seen[place].max()) > 1000 for place in range(2)] == [False, True]
    (alone, _), _ = prepare_alike([images, images], data)
    torch.testing.assert_close(alone, seen)


def test_the_reader_and_the_predictor_prepare_alike_in_torch_and_numpy() -> None:
    for intensity in ("none", "mr", "xray"):
        for foreground in ("nonzero", "above-mean", "all"):
            data = contract(
                intensity=intensity,
                bias_correction=True,
                landmarks=(RISING,),
                foreground=foreground,
            )
            grey = np.stack([brain(), brain(seed=2)])
            expected = finish_images(grey, False, data)
            given = torch.from_numpy(grey).requires_grad_()
            found = network_input([given], [False], data)
            np.testing.assert_allclose(found.detach().numpy(), expected, atol=2e-3)
            (found**2).sum().backward()
            assert given.grad is not None
            assert given.grad.isfinite().all()
            assert given.grad.abs().sum() > 0


def test_the_gradient_is_that_of_the_landmarks_curve() -> None:
    data = contract(intensity="none", landmarks=(RISING,), foreground="all")
    generator = np.random.default_rng(0)
    grey = torch.from_numpy(generator.gamma(2.0, 30.0, (1, 1, 9, 10))).requires_grad_()
    torch.autograd.gradcheck(lambda x: network_input([x], [False], data), grey, eps=1e-6, atol=1e-4)


def test_a_step_of_grey_is_that_of_the_harmonised_image() -> None:
    image = brain()
    plain, double = contract(intensity="none"), tuple(2 * v for v in RISING)
    same = tuple(float(v) for v in quantiles(image[0], plain.harmonisation))
    (step,) = grey_steps([Image(image)], plain)
    twice = contract(intensity="none", landmarks=(tuple(2 * v for v in same),))
    assert grey_steps([Image(image)], twice)[0] == pytest.approx(2 * step, rel=0.05)
    assert len(double) == len(harmonisation.LANDMARK_PERCENTS)
