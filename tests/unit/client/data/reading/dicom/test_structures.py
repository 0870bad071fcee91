"""Structure sets are filled on the image's slices."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tests.support.clinic.dicom_objects import save, save_ct, structures

from wardround.client.data.manifest.examination import Location
from wardround.client.data.preprocessing.geometry import reorient
from wardround.client.data.reading.dicom.reader import read_dicom_mask
from wardround.client.data.reading.dicom.structures import fill
from wardround.client.data.reading.image import Image, MaskTarget, UnreadableError
from wardround.client.data.reading.readers import read_image, read_mask

CLASSES = ("background", "liver", "tumour")
VOLUME = np.random.default_rng(4).integers(-1000, 1000, (6, 10, 12)).astype(np.int16)
Outlines = Mapping[str, Sequence[Sequence[Sequence[float]]]]


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return read_image(Location(save_ct(tmp_path / "ct", VOLUME)), 3)


def box(x: tuple[float, float], y: tuple[float, float], z: float) -> list[list[float]]:
    return [[x[0], y[0], z], [x[1], y[0], z], [x[1], y[1], z], [x[0], y[1], z]]


def read(
    tmp_path: Path, outlines: Outlines, image: Image | None, classes: Sequence[str] = CLASSES
) -> Image:
    path = save(structures(outlines), tmp_path / "rt.dcm")
    return read_mask(Location(path), 3, len(classes), target=MaskTarget(tuple(classes), image))


def refusal(
    tmp_path: Path, outlines: Outlines, image: Image | None, classes: Sequence[str] = CLASSES
) -> str:
    with pytest.raises(UnreadableError) as caught:
        read(tmp_path, outlines, image, classes)
    assert "Canary" not in str(caught.value)
    return str(caught.value)


def test_outlines_are_filled_on_their_slices_by_name(tmp_path: Path, image: Image) -> None:
    outlines = {
        "Liver": [box((1.5, 6.5), (2.5, 5.5), z) for z in (2.0, 4.0)],
        "TUMOUR": [box((8.0, 10.0), (1.0, 3.0), 4.0)],
        "External": [box((-5, 50), (-5, 50), 6.0)],
    }
    mask = read(tmp_path, outlines, image)
    expected = np.zeros((12, 10, 6), int)
    expected[2:7, 3:6, 1:3] = 1
    expected[8:10, 1:3, 2] = 2  # of a border through centres, one side
    np.testing.assert_array_equal(mask.array[0], expected)
    np.testing.assert_array_equal(mask.affine, image.affine)
    assert "1 of 3 structures" in mask.notes[0]


def test_an_outline_inside_another_is_a_hole(tmp_path: Path, image: Image) -> None:
    outlines = {"liver": [box((0.5, 8.5), (0.5, 8.5), 2.0), box((3.5, 5.5), (3.5, 5.5), 2.0)]}
    mask = read(tmp_path, outlines, image, CLASSES[:2])
    assert mask.array.sum() == 8 * 8 - 2 * 2
    assert not mask.array[0, 4:6, 4:6].any()


def test_an_outline_that_is_written_twice_is_no_hole_of_itself(
    tmp_path: Path, image: Image
) -> None:
    outlines = {"liver": [box((0.5, 4.5), (0.5, 4.5), 2.0)] * 2}
    assert read(tmp_path, outlines, image, CLASSES[:2]).array.sum() == 16


def test_a_circle_has_the_area_of_a_circle(tmp_path: Path) -> None:
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    points = np.stack([30.3 + 20 * np.sin(angles), 31.7 + 20 * np.cos(angles)], -1)
    area = fill([points], (64, 64))
    assert area.sum() == pytest.approx(np.pi * 400, rel=0.01)
    centre = np.argwhere(area).mean(0)
    np.testing.assert_allclose(centre, [30.3, 31.7], atol=0.05)


def test_every_centre_is_inside_or_not_whatever_the_way_round(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    for _ in range(20):
        points = generator.uniform(-3, 12, (7, 2))
        area = fill([points], (9, 9))
        np.testing.assert_array_equal(area, fill([points[::-1]], (9, 9)))
        for u in range(9):
            for v in range(9):
                assert area[u, v] == is_inside(points, u, v)


def is_inside(points: np.ndarray, u: float, v: float) -> bool:
    """Count the edges that a ray from a point crosses (the textbook's way)."""
    inside = False
    for (u0, v0), (u1, v1) in zip(points, np.roll(points, 1, axis=0), strict=True):
        if (u0 > u) != (u1 > u) and v < (v1 - v0) * (u - u0) / (u1 - u0) + v0:
            inside = not inside
    return inside


def test_outlines_lie_right_on_an_image_that_was_turned_or_is_nifti(
    tmp_path: Path, image: Image
) -> None:
    outlines = {"liver": [box((1.5, 6.5), (2.5, 5.5), z) for z in (2.0, 4.0)]}
    straight = read(tmp_path, outlines, image, CLASSES[:2])
    for orientation in ("RAS", "SAR", "AIL"):
        turned = reorient(image, orientation)
        mask = read(tmp_path, outlines, turned, CLASSES[:2])
        assert mask.array.sum() == straight.array.sum()
        bright = image.array[straight.array > 0]
        assert sorted(turned.array[mask.array > 0]) == sorted(bright)
    nibabel.save(nibabel.Nifti1Image(image.array[0], image.affine), tmp_path / "i.nii.gz")
    stored = read_image(Location(tmp_path / "i.nii.gz"), 3)
    np.testing.assert_array_equal(
        read(tmp_path, outlines, stored, CLASSES[:2]).array, straight.array
    )


@pytest.mark.parametrize(
    ("outlines", "words"),
    [
        ({"liver": [box((1, 6), (1, 6), 3.0)]}, "1 of 1 outlines of a structure lie between"),
        ({"liver": [box((1, 6), (1, 6), 30.0)]}, "on 1 slices that the image does not have"),
        ({"liver": [box((100, 160), (1, 6), 2.0)]}, "lie beside the image"),
        (
            {"liver": [[(1, 1, 2), (6, 1, 2), (6, 6, 4), (1, 6, 4)]]},
            "do not lie in the planes of the image",
        ),
        (
            {"liver": [box((1, 6), (1, 6), z) for z in (0.0, 4.0, 8.0)]},
            "drawn on every 2nd slice only",
        ),
        (
            {"liver": [box((1, 6), (1, 6), 2.0)], "tumour": [box((5, 9), (5, 9), 2.0)]},
            "1 voxels lie in structures of two classes",
        ),
        ({"livr": [box((1, 6), (1, 6), 2.0)], "Canary": [box((5, 9), (5, 9), 2.0)]}, "2 of its 2"),
        ({"liver": []}, "no closed outline"),
        ({"liver": [[(float("nan"), 1, 2), (6, 1, 2), (6, 6, 2)]]}, "no number"),
    ],
)
def test_outlines_that_do_not_fit_are_refused(
    tmp_path: Path, image: Image, outlines: Outlines, words: str
) -> None:
    assert words in refusal(tmp_path, outlines, image)


def test_two_lesions_on_slices_apart_are_no_gap(tmp_path: Path, image: Image) -> None:
    outlines = {"liver": [box((1.5, 6.5), (2.5, 5.5), z) for z in (0.0, 2.0, 6.0, 8.0)]}
    assert read(tmp_path, outlines, image).array.sum() == 4 * 15


def test_a_structure_set_of_another_examination_is_refused(tmp_path: Path, image: Image) -> None:
    dataset = structures({"liver": [box((1, 6), (1, 6), 2.0)]})
    dataset.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.9"
    path = save(dataset, tmp_path / "rt.dcm")
    with pytest.raises(UnreadableError, match="another system of coordinates"):
        read_mask(Location(path), 3, 3, target=MaskTarget(CLASSES, image))


def test_a_structure_set_needs_an_image_in_space(tmp_path: Path) -> None:
    outlines = {"liver": [box((1, 6), (1, 6), 2.0)]}
    assert "3D image that says how it lies" in refusal(tmp_path, outlines, None)
    flat = Image(np.zeros((1, 10, 12), np.float32))
    path = save(structures(outlines), tmp_path / "rt.dcm")
    with pytest.raises(UnreadableError, match="3D image that says how it lies"):
        read_mask(Location(path), 2, 3, target=MaskTarget(CLASSES, flat))


def test_points_are_no_outlines(tmp_path: Path, image: Image) -> None:
    dataset = structures({"liver": [box((1.5, 6.5), (2.5, 5.5), 2.0)], "isocentre": [[(1, 1, 2)]]})
    point = dataset.ROIContourSequence[1].ContourSequence[0]
    point.ContourGeometricType = "POINT"
    mask = read_mask(
        Location(save(dataset, tmp_path / "rt.dcm")), 3, 3, target=MaskTarget(CLASSES, image)
    )
    assert mask.array.sum() == 15
    assert mask.notes == ()


def test_outlines_can_be_looked_at_without_an_image(tmp_path: Path) -> None:
    path = save(structures({"liver": [box((1, 6), (1, 6), 2.0)]}), tmp_path / "rt.dcm")
    assert read_dicom_mask(path, 3, MaskTarget()).values.shape == (1, 1, 1)
    path = save(structures({"liver": [[(float("nan"), 0, 0)] * 3]}), tmp_path / "bad.dcm")
    with pytest.raises(UnreadableError, match="no number"):
        read_dicom_mask(path, 3, MaskTarget())
