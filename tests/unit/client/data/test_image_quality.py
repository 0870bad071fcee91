"""How good an image is as an image, from its pixels alone."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from wardround.client.data.image_quality import quality_of


def picture(seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return gaussian_filter(generator.normal(size=(64, 64)), 1.0)[None] * 100


def test_a_blurred_image_is_less_sharp_and_a_noisy_one_more_noisy() -> None:
    image = picture()
    blurred = gaussian_filter(image, (0, 2, 2))
    noisy = image + np.random.default_rng(1).normal(scale=20, size=image.shape)
    assert quality_of(blurred).sharpness < quality_of(image).sharpness
    assert quality_of(noisy).noise > quality_of(image).noise
    assert quality_of(image * 0.5).contrast == pytest.approx(quality_of(image).contrast / 2)


def test_the_noise_of_a_flat_image_is_found() -> None:
    flat = np.random.default_rng(2).normal(scale=7, size=(1, 200, 200))
    assert quality_of(flat).noise == pytest.approx(7, rel=0.05)


def test_of_a_volume_the_middle_slice_counts_and_a_tiny_image_has_no_quality() -> None:
    volume = np.zeros((1, 16, 16, 5))
    volume[..., 2] = picture()[:, :16, :16]
    assert quality_of(volume) == quality_of(volume[..., 2])
    assert math.isnan(quality_of(np.zeros((1, 2, 2))).sharpness)
    assert quality_of(np.zeros((1, 8, 8))).sharpness == 0
