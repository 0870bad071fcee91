"""Slices become a volume that is straight, and never two volumes in one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, MRImageStorage
from tests.support.clinic.dicom_objects import at, ct_slice, enhanced, picture, save, save_ct

from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.image import Image, MaskTarget, UnreadableError
from wardround.client.data.reading.readers import read_image, read_mask

GENERATOR = np.random.default_rng(1)
VOLUME = GENERATOR.integers(0, 1000, (4, 5, 6)).astype(np.int16)
TILT = np.radians(18.5)


def read(path: Path, chosen: str | None = None) -> Image:
    return read_image(Location(path, chosen), 3)


def refusal(path: Path, chosen: str | None = None) -> str:
    with pytest.raises(UnreadableError) as caught:
        read(path, chosen)
    return str(caught.value)


def tilted_ball(folder: Path, size: int = 32, radius: float = 20.0, **elements: Any) -> Path:
    """Write a CT of a ball, of slices tilted about the x axis that follow each other along z."""
    rows = np.array([0.0, np.cos(TILT), -np.sin(TILT)])
    middle = (size - 1) / 2 * 3.0
    for number in range(24):
        first = np.array([-middle, -middle * rows[1], -middle * rows[2] + (number - 11.5) * 4.0])
        column, row = np.meshgrid(np.arange(size), np.arange(size))
        points = first + column[..., None] * [3.0, 0, 0] + row[..., None] * (3.0 * rows)
        inside = np.linalg.norm(points, axis=-1) < radius
        dataset = ct_slice(
            np.where(inside, 1000, -1000).astype(np.int16),
            first,
            ImageOrientationPatient=[1, 0, 0, *rows],
            PixelSpacing=[3.0, 3.0],
            GantryDetectorTilt=18.5,
            **elements,
        )
        save(dataset, folder / f"{number:02d}.dcm")
    return folder


def test_a_ball_under_a_tilted_gantry_stays_a_ball_where_it_is(tmp_path: Path) -> None:
    image = read(tilted_ball(tmp_path / "s"))
    assert image.affine is not None
    assert "gantry tilt of 18.5 degrees was taken out" in image.notes[0]
    axes = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    weight = np.clip((image.array[0] + 1000) / 2000, 0, 1)
    voxels = np.stack(np.meshgrid(*map(np.arange, weight.shape), indexing="ij"), -1)
    points = voxels @ image.affine[:3, :3].T + image.affine[:3, 3]
    centre = (weight[..., None] * points).sum((0, 1, 2)) / weight.sum()
    np.testing.assert_allclose(centre, 0, atol=0.3)
    spread = np.einsum("xyz,xyzi,xyzj->ij", weight, points - centre, points - centre)
    spread /= weight.sum()
    np.testing.assert_allclose(spread, np.eye(3) * 20.0**2 / 5, atol=6)
    volume = weight.sum() * abs(np.linalg.det(image.affine[:3, :3]))
    assert volume == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.03)


def test_nothing_but_air_falls_off_a_straightened_volume(tmp_path: Path) -> None:
    image = read(tilted_ball(tmp_path / "s", size=20, radius=500.0))
    assert image.array.shape[1] == 20
    assert image.array.shape[2] > 20  # it grew along the tilt
    inside = (image.array > 990).sum()
    assert inside >= 20 * 20 * 24 * 0.9


def test_a_mask_under_a_tilted_gantry_keeps_its_labels(tmp_path: Path) -> None:
    folder = tilted_ball(tmp_path / "s", RescaleSlope=0.0005, RescaleIntercept=0.5)
    mask = read_mask(Location(folder), 3, 2, target=MaskTarget(("background", "ball")))
    assert set(np.unique(mask.array)) == {0, 1}


def test_an_oblique_series_that_is_not_sheared_is_left_as_it_is(tmp_path: Path) -> None:
    rows = np.array([0.0, np.cos(TILT), -np.sin(TILT)])
    normal = np.cross([1.0, 0, 0], rows)
    for number, pixels in enumerate(VOLUME):
        dataset = ct_slice(pixels, normal * 2.5 * number, ImageOrientationPatient=[1, 0, 0, *rows])
        save(dataset, tmp_path / "s" / f"{number}.dcm")
    image = read(tmp_path / "s")
    np.testing.assert_array_equal(image.array[0], VOLUME.transpose(2, 1, 0))
    assert image.spacing == pytest.approx((1, 1, 2.5))
    assert image.notes == ()
    assert image.affine is not None
    np.testing.assert_allclose(image.affine[:3, 2], [0, -normal[1] * 2.5, normal[2] * 2.5])


def test_slices_are_sorted_along_their_normal_and_not_by_number(tmp_path: Path) -> None:
    # Sagittal slices: the normal is the x axis, and the numbers count the other way.
    for number, pixels in enumerate(VOLUME):
        dataset = ct_slice(
            pixels,
            (3.0 * number, 0, 0),
            ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
            InstanceNumber=100 - number,
        )
        save(dataset, tmp_path / "s" / f"{number}.dcm")
    image = read(tmp_path / "s")
    assert image.affine is not None
    first = image.affine @ [0, 0, 0, 1]
    index = round((0 - first[0]) / image.affine[0, 2])  # of the slice at x = 0
    np.testing.assert_array_equal(image.array[0][:, :, index], VOLUME[0].T)


def test_a_tilt_in_the_header_that_the_slices_do_not_have_is_refused(tmp_path: Path) -> None:
    folder = save_ct(tmp_path / "s", VOLUME, GantryDetectorTilt=20.0)
    assert "tilt of 20 degrees, but its slices lie straight" in refusal(folder)
    other = save_ct(
        tmp_path / "t", VOLUME, GantryDetectorTilt=20.0, ImageType=["DERIVED", "SECONDARY", "MPR"]
    )
    assert read(other).array.shape == (1, 6, 5, 4)


@pytest.mark.parametrize(
    ("name", "values", "word"),
    [
        ("EchoTime", (10.0, 2.0), "echo time"),
        ("AcquisitionNumber", (2, 1), "acquisition"),
        ("TriggerTime", (300.0, 20.0), "cardiac phase"),
        ("TemporalPositionIdentifier", (2, 1), "time point"),
        ("DiffusionBValue", (1000.0, 0.0), "diffusion weighting"),
        ("InversionTime", (900.0, 300.0), "inversion time"),
        ("ImageType", (["ORIGINAL", "PRIMARY", "P"], ["ORIGINAL", "PRIMARY", "M"]), "image type"),
        ("ConvolutionKernel", ("B70", "B30"), "reconstruction kernel"),
    ],
)
def test_two_volumes_in_a_series_are_never_one(
    tmp_path: Path, name: str, values: tuple[Any, Any], word: str
) -> None:
    for part, value in enumerate(values):
        for number, pixels in enumerate(VOLUME):
            dataset = ct_slice(
                pixels + part, (0, 0, number), SOPClassUID=MRImageStorage, Modality="MR"
            )
            setattr(dataset, name, value)
            save(dataset, tmp_path / "s" / f"{part}{number}.dcm")
    text = refusal(tmp_path / "s")
    assert f"2 volumes of 4 slices, which differ in {word}" in text
    assert "#volume=0" in text
    # The smaller value comes first.
    np.testing.assert_array_equal(
        read(tmp_path / "s", "volume=0").array[0], VOLUME.transpose(2, 1, 0) + 1
    )
    np.testing.assert_array_equal(
        read(tmp_path / "s", "volume=1").array[0], VOLUME.transpose(2, 1, 0)
    )
    assert "no volume 2" in refusal(tmp_path / "s", "volume=2")


def test_places_that_stand_twice_without_a_reason_are_counted(tmp_path: Path) -> None:
    for number, pixels in enumerate([*VOLUME, VOLUME[0] + 1]):
        save(ct_slice(pixels, (0, 0, number % 4)), tmp_path / "s" / f"{number}.dcm")
    assert "5 slices lie at 4 places, each 1 to 2 times" in refusal(tmp_path / "s")


@pytest.mark.parametrize(
    ("group", "values", "word"),
    [
        ({"FrameContentSequence": "StackID"}, ("1", "2"), "stack"),
        ({"FrameContentSequence": "TemporalPositionIndex"}, (1, 2), "time point"),
        ({"MREchoSequence": "EffectiveEchoTime"}, (2.0, 10.0), "echo time"),
        ({"MRDiffusionSequence": "DiffusionBValue"}, (0.0, 1000.0), "diffusion weighting"),
    ],
)
def test_two_volumes_in_an_enhanced_file_are_never_one(
    tmp_path: Path, group: dict[str, str], values: tuple[Any, Any], word: str
) -> None:
    ((sequence, name),) = group.items()
    places = [
        at(number * 2.0, **{sequence: {name: value}}) for value in values for number in range(4)
    ]
    both = np.concatenate([VOLUME, VOLUME + 1])
    path = save(enhanced(both, places, EnhancedMRImageStorage), tmp_path / "e.dcm")
    assert f"2 volumes of 4 slices, which differ in {word}" in refusal(path)
    np.testing.assert_array_equal(read(path, "volume=1").array[0], VOLUME.transpose(2, 1, 0) + 1)


def test_stacks_that_lie_beside_each_other_are_two_volumes_too(tmp_path: Path) -> None:
    places = [
        at(number * 2.0, FrameContentSequence={"StackID": str(number // 4)}) for number in range(8)
    ]
    both = np.concatenate([VOLUME, VOLUME])
    path = save(enhanced(both, places, EnhancedMRImageStorage), tmp_path / "e.dcm")
    assert "2 volumes of 4 slices, which differ in stack" in refusal(path)


def test_an_enhanced_file_is_sorted_and_each_frame_has_its_own_scale(tmp_path: Path) -> None:
    order = [2, 0, 3, 1]
    places = [
        at(
            number * 2.0,
            PixelValueTransformationSequence={
                "RescaleSlope": 1.0 + number,
                "RescaleIntercept": -100.0,
                "RescaleType": "HU",
            },
        )
        for number in order
    ]
    path = save(
        enhanced(VOLUME[order], places, EnhancedCTImageStorage, Modality="CT"), tmp_path / "e.dcm"
    )
    image = read(path)
    wanted = VOLUME.transpose(2, 1, 0) * (1.0 + np.arange(4)) - 100
    np.testing.assert_array_equal(image.array[0], wanted)
    assert image.spacing == (1.0, 1.0, 2.0)


def test_a_file_that_describes_other_frames_than_it_holds_is_refused(tmp_path: Path) -> None:
    places = [at(number) for number in range(3)]
    path = save(enhanced(VOLUME, places, EnhancedMRImageStorage), tmp_path / "e.dcm")
    assert "describes 3 frames and holds 4" in refusal(path)


def test_frames_without_a_place_or_a_gap_are_no_volume(tmp_path: Path) -> None:
    dataset = picture(VOLUME, MRImageStorage, Modality="MR", PixelSpacing=[1, 1], SliceThickness=2)
    assert "do not say where they lie" in refusal(save(dataset, tmp_path / "m.dcm"))
