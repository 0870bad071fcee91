"""The intensity presets in torch: equal to those of NumPy, with a gradient to the grey values."""

import numpy as np
import pytest
import torch

from wardround.client.data.preprocessing.differentiable import network_input
from wardround.client.data.preprocessing.grey_values import grey_steps
from wardround.client.data.preprocessing.steps import finish_images
from wardround.client.data.reading.image import Image
from wardround.common.study.sections.data import DataSection

PRESETS = ("none", "xray", "ct", "mr", "dermoscopy", "ultrasound", "histology")


def contract(intensity: str, dimensions: int, **changes: object) -> DataSection:
    size = (12, 16, 8)[:dimensions]
    content = {"classes": ("a", "b"), "intensity": intensity, "dimensions": dimensions}
    return DataSection(**{**content, "size": size, "fit": "pad", **changes})


def block(planes: int, dimensions: int, eight_bit: bool) -> np.ndarray:
    shape = (2, planes, *(14, 11, 8)[:dimensions])
    values = np.random.default_rng(1).gamma(2.0, 40.0, shape)
    values[:, :, :2] = 0
    return (np.rint(np.clip(values, 0, 255)) if eight_bit else values * 3).astype(np.float32)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("eight_bit", [True, False])
@pytest.mark.parametrize("intensity", PRESETS)
def test_a_preset_in_torch_equals_that_of_numpy(
    intensity: str, eight_bit: bool, dimensions: int
) -> None:
    data = contract(intensity, dimensions)
    grey = block(3 if dimensions == 2 else 1, dimensions, eight_bit)
    expected = finish_images(grey, eight_bit, data)
    given = torch.from_numpy(grey).requires_grad_()
    found = network_input([given], [eight_bit], data)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=2e-5)
    (found**2).sum().backward()
    assert given.grad is not None
    assert given.grad.isfinite().all()
    assert given.grad.abs().sum() > 0


def test_a_ct_with_a_mean_and_deviation_equals_too() -> None:
    data = contract("ct", 3, window=(40.0, 400.0), scaling=(30.0, 90.0))
    grey = block(1, 3, False)
    found = network_input([torch.from_numpy(grey)], [False], data)
    np.testing.assert_allclose(found.numpy(), finish_images(grey, False, data), atol=2e-5)


@pytest.mark.parametrize("intensity", ["none", "xray", "ct", "mr", "dermoscopy"])
@pytest.mark.parametrize("eight_bit", [True, False])
def test_a_step_of_a_straight_preset_is_its_slope(intensity: str, eight_bit: bool) -> None:
    data = contract(intensity, 2, size=(14, 11))
    grey = block(1, 2, eight_bit)[0]
    unit = 1.0
    if not eight_bit:
        low, high = np.percentile(grey, (0.5, 99.5))
        unit = 400 / 255 if intensity == "ct" else (high - low) / 255
    seen = finish_images(grey[None], eight_bit, data)[0, 0]
    (step,) = grey_steps([Image(grey, eight_bit=eight_bit)], data)
    inside = (seen > seen.min()) & (seen < seen.max()) & (grey[0] != 0)
    first, second = grey[0][inside].argmin(), grey[0][inside].argmax()
    rise = seen[inside][second] - seen[inside][first]
    run = grey[0][inside][second] - grey[0][inside][first]
    assert step == pytest.approx(unit * rise / run, rel=1e-3)


def test_a_flat_image_has_no_step() -> None:
    flat = Image(np.full((1, 14, 11), 7.0, dtype=np.float32))
    for intensity in PRESETS:
        assert grey_steps([flat], contract(intensity, 2)) == pytest.approx(0.0, abs=1e-6)
