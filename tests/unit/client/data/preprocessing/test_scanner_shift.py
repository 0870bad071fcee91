from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng
from scipy.ndimage import gaussian_filter

from wardround.client.data.manifest.examination import Examination, Location
from wardround.client.data.preprocessing.scanner_shift import SHIFTS, generator_of, shift_image
from wardround.client.site.folder import Scanner
from wardround.common.study.sections.simulation import Shift

IMAGE = default_rng(1).uniform(10, 200, (1, 24, 20)).astype(np.float32)
VOLUME = default_rng(2).uniform(10, 200, (1, 8, 9, 10)).astype(np.float32)


@pytest.mark.parametrize("kind", SHIFTS)
@pytest.mark.parametrize("image", [IMAGE, VOLUME], ids=["2D", "3D"])
def test_strength_zero_changes_nothing_and_one_does(kind: str, image: np.ndarray) -> None:
    def shifted(strength: float) -> np.ndarray:
        shift = Shift.model_validate({"kind": kind, "strength": strength})
        return shift_image(image, [shift], default_rng(0))

    before = image.copy()
    np.testing.assert_array_equal(shifted(0.0), image)
    assert np.abs(shifted(1.0) - image).max() > 1
    assert shifted(1.0).dtype == np.float32
    assert shifted(1.0).shape == image.shape
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("kind", SHIFTS)
def test_the_same_generator_state_gives_the_same_image(kind: str) -> None:
    shift = Shift.model_validate({"kind": kind})
    images = [shift_image(IMAGE, [shift], default_rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(*images)


def test_contrast_bends_the_curve_within_the_range() -> None:
    image = np.array([[[0.0, 25.0, 100.0]]], dtype=np.float32)
    bent = shift_image(image, [Shift(kind="contrast", strength=2 * np.log(2))], default_rng(0))
    np.testing.assert_allclose(bent, [[[0.0, 6.25, 100.0]]], rtol=1e-5)  # 100 * 0.25 ** 2


def test_blur_is_a_gaussian_of_so_many_pixels() -> None:
    blurred = shift_image(IMAGE, [Shift(kind="blur", strength=1.5)], default_rng(0))
    np.testing.assert_allclose(blurred[0], gaussian_filter(IMAGE[0], 1.5), rtol=1e-4)


def test_noise_in_a_picture_is_a_tenth_of_its_deviation() -> None:
    image = default_rng(4).normal(0, 50, (1, 200, 200)).astype(np.float32)
    added = shift_image(image, [Shift(kind="noise")], default_rng(0)) - image
    assert added.std() == pytest.approx(5, rel=0.03)
    assert abs(added.mean()) < 0.15


def test_noise_in_a_magnitude_volume_is_rician() -> None:
    faint = np.full((1, 40, 40, 40), 0.01, dtype=np.float32)
    faint[0, :20] = 100.0
    noisy = shift_image(faint, [Shift(kind="noise")], default_rng(0))
    sigma = 0.1 * faint.std()
    # Without signal Rician noise is Rayleigh: its mean is sigma sqrt(pi / 2).
    assert noisy[0, 20:].mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.02)
    assert noisy.min() >= 0


def test_a_bias_field_is_smooth_and_bounded() -> None:
    flat = np.full((1, 64, 64), 100.0, dtype=np.float32)
    field = np.log(shift_image(flat, [Shift(kind="bias-field")], default_rng(5)) / 100)
    assert np.abs(field).max() == pytest.approx(0.4, rel=1e-3)
    # A quadratic: its third differences vanish.
    assert np.abs(np.diff(field, n=3, axis=1)).max() < 1e-5


def test_scaling_multiplies_and_adds() -> None:
    shifted = shift_image(IMAGE, [Shift(kind="scaling")], default_rng(0))
    np.testing.assert_allclose(shifted, 1.5 * IMAGE + 0.2 * IMAGE.std(), rtol=1e-5)


@pytest.mark.parametrize("kind", SHIFTS)
def test_what_was_cut_away_stays_zero(kind: str) -> None:
    stripped = VOLUME.copy()
    stripped[:, :3] = 0
    shifted = shift_image(stripped, [Shift.model_validate({"kind": kind})], default_rng(0))
    assert not shifted[:, :3].any()
    assert shifted[:, 3:].all()


def test_an_examination_looks_the_same_in_another_folder_and_row() -> None:
    def draw(folder: str, row: int, patient: str = "p", seed: int = 1) -> float:
        place = Location(Path(folder) / "set.npz", "train_images", 4)
        examination = Examination(row, patient, (place,))
        return float(generator_of(examination, Scanner(seed=seed)).random())

    assert draw("/a", 2) == draw("/b/c", 9)
    assert draw("/a", 2) != draw("/a", 2, patient="q")
    assert draw("/a", 2) != draw("/a", 2, seed=2)
