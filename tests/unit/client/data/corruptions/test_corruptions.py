"""Every corruption: worse with severity, within the range, the same again, on its grid."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from wardround.client.data.corruptions.registry import (
    CORRUPTIONS,
    SEVERITIES,
    check_corruptions,
    corrupted,
    fitting_corruptions,
    generator_for_case,
)
from wardround.client.data.manifest.examination import Examination
from wardround.client.data.reading.image import Image
from wardround.common.errors import InputError
from wardround.common.study.sections.data import DataSection


def image(shape: tuple[int, ...], eight_bit: bool) -> Image:
    """Return a smooth picture with a bright square in it."""
    drawn = np.random.default_rng(0).normal(size=shape)
    smooth = gaussian_filter(drawn, (0, *(3.0,) * (len(shape) - 1)))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    middle = tuple(slice(side // 4, side // 2) for side in shape[1:])
    smooth[:, *middle] += 0.5
    smooth = np.clip(smooth, 0, 1)
    values = np.rint(smooth * 255) if eight_bit else smooth * 900 + 100
    return Image(values.astype(np.float32), eight_bit=eight_bit)


KINDS = {
    "photo": (image((3, 40, 50), True), DataSection(classes=("a", "b"), intensity="dermoscopy")),
    "xray": (image((1, 28, 28), True), DataSection(classes=("a", "b"), intensity="xray")),
    "mr": (
        image((1, 24, 28, 16), False),
        DataSection(classes=("a", "b"), intensity="mr", dimensions=3),
    ),
    "ct": (
        image((1, 24, 28, 16), False),
        DataSection(classes=("a", "b"), intensity="ct", dimensions=3, window=(500.0, 800.0)),
    ),
}


def worse(kind: str, name: str, severity: int, seed: int = 3) -> Image:
    given, data = KINDS[kind]
    return corrupted(given, name, severity, np.random.default_rng(seed), data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_worse_with_severity_and_keeps_range_grid_and_type(
    kind: str, name: str
) -> None:
    given, _ = KINDS[kind]
    before = given.array.copy()
    distances = []
    for severity in SEVERITIES:
        changed = worse(kind, name, severity)
        again = worse(kind, name, severity)
        assert changed.array.shape == given.array.shape
        assert changed.array.dtype == np.float32
        assert np.isfinite(changed.array).all()
        np.testing.assert_array_equal(changed.array, again.array)
        low, high = (0, 255) if given.eight_bit else (given.array.min(), given.array.max())
        assert changed.array.min() >= low
        assert changed.array.max() <= high
        if given.eight_bit:
            np.testing.assert_array_equal(changed.array, np.rint(changed.array))
        distances.append(float(np.abs(changed.array - given.array).mean()))
    assert distances[0] > 0
    assert all(np.diff(distances) > 0), distances
    np.testing.assert_array_equal(given.array, before)


def test_severity_0_and_a_flat_image_change_nothing() -> None:
    given, data = KINDS["mr"]
    assert corrupted(given, "motion", 0, np.random.default_rng(0), data) is given
    flat = Image(np.full((1, 8, 8, 8), 7.0, dtype=np.float32))
    for name in CORRUPTIONS:
        found = corrupted(flat, name, 5, np.random.default_rng(0), data)
        np.testing.assert_array_equal(found.array, flat.array)


def test_the_air_of_a_skull_stripped_image_stays_0() -> None:
    given, data = KINDS["mr"]
    array = given.array.copy()
    array[:, :8] = 0
    for name in fitting_corruptions(data):
        found = corrupted(Image(array), name, 5, np.random.default_rng(0), data)
        assert not found.array[:, :8].any(), name


def test_a_case_has_its_own_noise_and_the_same_at_every_site() -> None:
    one, other = (Examination(row=2, patient=name, images=()) for name in ("p1", "p2"))
    draw = [
        generator_for_case(e, "motion", s).random() for e, s in ((one, 0), (other, 0), (one, 1))
    ]
    assert len(set(draw)) == 3
    elsewhere = Examination(row=9, patient="p1", images=())
    assert generator_for_case(elsewhere, "motion", 0).random() == draw[0]


@pytest.mark.parametrize("intensity", ["none", "xray", "ct", "mr", "dermoscopy", "ultrasound"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_kind_of_image_has_corruptions_that_exist(intensity: str, dimensions: int) -> None:
    data = DataSection(classes=("a", "b"), intensity=intensity, dimensions=dimensions)
    names = fitting_corruptions(data)
    check_corruptions(names)
    assert len(names) == len(set(names)) >= 10


def test_pictures_of_the_skin_and_x_rays_have_thirteen() -> None:
    for intensity in ("xray", "dermoscopy"):
        data = DataSection(classes=("a", "b"), intensity=intensity)
        assert len(fitting_corruptions(data)) == 13


def test_an_unknown_corruption_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'jpg'. Did you mean 'jpeg'. Known: .*pixelate"):
        check_corruptions(["jpg"])
