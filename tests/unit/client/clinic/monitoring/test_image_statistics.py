import time

import numpy as np
import pytest

from wardround.client.clinic.monitoring.image_statistics import STATISTICS, measure, measure_images
from wardround.client.data.reading.image import Image, fill_absent


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 10, (1, *shape)).astype(np.float32)


@pytest.mark.parametrize("shape", [(64, 48), (40, 40, 20)])
def test_white_noise_has_the_noise_that_it_was_drawn_with(shape: tuple[int, ...]) -> None:
    found = measure(picture(*shape))
    assert found["noise"] == pytest.approx(10, rel=0.06)
    assert found["mean"] == pytest.approx(100, rel=0.02)
    assert found["spread"] == pytest.approx(10, rel=0.06)
    assert set(found) <= set(STATISTICS)


def test_a_darker_scanner_moves_brightness_and_leaves_sharpness() -> None:
    before, after = measure(picture(64, 64)), measure(picture(64, 64) * np.float32(0.9))
    assert after["brightest 1 %"] == pytest.approx(0.9 * before["brightest 1 %"], rel=1e-4)
    assert after["sharpness"] == pytest.approx(before["sharpness"], rel=1e-4)


@pytest.mark.parametrize("shape", [(2, 2), (1, 7), (2, 2, 30)])
def test_what_a_small_image_cannot_tell_is_left_out(shape: tuple[int, ...]) -> None:
    found = measure(picture(*shape))
    assert "noise" not in found
    assert np.isfinite(list(found.values())).all()


def test_an_image_of_one_value_has_no_sharpness() -> None:
    assert set(measure(np.full((1, 8, 8), 3, np.float32))) == {
        *("mean", "spread", "darkest 1 %", "median", "brightest 1 %", "peak", "noise")
    }


def test_colours_and_channels_are_named() -> None:
    coloured = np.concatenate([picture(8, 8), picture(8, 8) * 2, picture(8, 8)])
    assert measure(coloured)["red"] == pytest.approx(0.25)
    channels = fill_absent([Image(picture(8, 8), None, None, False), None])
    assert "t1: mean" in measure_images(channels, ("t1", "t2"))
    assert not any(name.startswith("t2") for name in measure_images(channels, ("t1", "t2")))


def test_a_large_volume_is_measured_in_a_blink() -> None:
    volume = picture(256, 256, 100)
    began = time.process_time()
    measure(volume)
    assert time.process_time() - began < 2
