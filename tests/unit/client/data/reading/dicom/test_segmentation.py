"""DICOM segmentations are masks on the grid of their image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.clinic.dicom_objects import (
    bare,
    ct_slice,
    save,
    save_ct,
    segmentation,
    sequence,
)

from wardround.client.data.manifest.examination import Location
from wardround.client.data.preprocessing.geometry import reorient
from wardround.client.data.reading.dicom.reader import read_dicom_mask
from wardround.client.data.reading.image import Image, MaskTarget, UnreadableError
from wardround.client.data.reading.readers import read_image, read_mask

CLASSES = ("background", "liver", "tumour")
LABELS = np.zeros((8, 5, 6), np.uint8)  # slices, rows, columns
LABELS[1:4, 1:3, 2:5] = 1
LABELS[3:6, 3:5, 0:2] = 2
GENERATOR = np.random.default_rng(3)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    volume = GENERATOR.integers(-1000, 1000, LABELS.shape).astype(np.int16)
    return read_image(Location(save_ct(tmp_path / "ct", volume)), 3)


def frames_of(labels: np.ndarray, numbers: Sequence[int]) -> list[Any]:
    """Return the frames that are not empty, the last first."""
    return [
        (number, (0, 0, 2.0 * z), labels[z] == number)
        for number in numbers
        for z in reversed(range(len(labels)))
        if (labels[z] == number).any()
    ]


def read(path: Path, image: Image | None, classes: Sequence[str] = CLASSES) -> Image:
    return read_mask(Location(path), 3, len(classes), target=MaskTarget(tuple(classes), image))


def refusal(path: Path, image: Image | None, classes: Sequence[str] = CLASSES) -> str:
    with pytest.raises(UnreadableError) as caught:
        read(path, image, classes)
    assert "Canary" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["Liver", "Tumour"], (1, 2)),
        (["tumour", "LIVER"], (2, 1)),
        (["Tumour 1", "tumour_2"], (2, 2)),
        (["Segment 1", "Segment_2"], (1, 2)),
        (["part 1", "part 2"], (1, 2)),
        (["2", "liver"], None),
        (["spleen", "kidney"], None),
        (["Segment 2", "Segment 1"], None),
        (["liver", "kidney"], None),
    ],
)
def test_segments_are_classes_by_their_names(
    tmp_path: Path, image: Image, labels: list[str], wanted: tuple[int, int] | None
) -> None:
    path = save(segmentation(frames_of(LABELS, (1, 2)), labels), tmp_path / "seg.dcm")
    if wanted is None:
        text = refusal(path, image)
        assert "of its 2 segments have a name that is no class" in text
        assert "kidney" not in text
        return
    mask = read(path, image)
    expected = np.select([LABELS == 1, LABELS == 2], wanted, 0)
    np.testing.assert_array_equal(mask.array[0], expected.transpose(2, 1, 0))
    np.testing.assert_array_equal(mask.affine, image.affine)


def test_a_coded_type_is_a_name_too(tmp_path: Path, image: Image) -> None:
    dataset = segmentation(frames_of(LABELS, (1, 2)), ["a", "b"])
    for segment, meaning in zip(dataset.SegmentSequence, ("Tumour", "Liver"), strict=True):
        segment.SegmentedPropertyTypeCodeSequence = sequence({"CodeMeaning": meaning})
    mask = read(save(dataset, tmp_path / "seg.dcm"), image)
    expected = np.select([LABELS == 1, LABELS == 2], (2, 1), 0)
    np.testing.assert_array_equal(mask.array[0], expected.transpose(2, 1, 0))


def test_other_segments_are_left_out_where_every_class_is_found(
    tmp_path: Path, image: Image
) -> None:
    three = LABELS.copy()
    three[7] = 3
    path = save(
        segmentation(frames_of(three, (1, 2, 3)), ["liver", "tumour", "spleen"]),
        tmp_path / "seg.dcm",
    )
    mask = read(path, image)
    np.testing.assert_array_equal(mask.array[0], LABELS.transpose(2, 1, 0))
    assert "1 of 3 segments have names of no class" in mask.notes[0]


def test_the_only_segment_is_the_only_class_and_that_is_said(tmp_path: Path, image: Image) -> None:
    path = save(segmentation(frames_of(LABELS, (1,)), ["Lesion"]), tmp_path / "seg.dcm")
    mask = read(path, image, ("background", "tumour"))
    np.testing.assert_array_equal(mask.array[0], (LABELS == 1).transpose(2, 1, 0))
    assert "taken as class 1" in mask.notes[0]


def test_segments_that_overlap_are_refused(tmp_path: Path, image: Image) -> None:
    frames = frames_of(LABELS, (1, 2))
    frames.append((2, (0, 0, 2.0), LABELS[1] == 1))
    path = save(segmentation(frames, ["liver", "tumour"]), tmp_path / "seg.dcm")
    assert "6 voxels lie in segments of two classes" in refusal(path, image)


def test_fractions_are_inside_from_a_half_on(tmp_path: Path, image: Image) -> None:
    values = np.zeros((5, 6))
    values[0, :4] = [99, 100, 101, 200]
    dataset = segmentation(
        [(1, (0, 0, 4), values)], ["liver"], "FRACTIONAL", MaximumFractionalValue=200
    )
    mask = read(save(dataset, tmp_path / "seg.dcm"), image)
    assert np.argwhere(mask.array[0]).tolist() == [[1, 0, 2], [2, 0, 2], [3, 0, 2]]


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "PALETTE COLOR"])
def test_a_label_map_holds_segment_numbers(tmp_path: Path, image: Image, photometric: str) -> None:
    frames = [(0, (0, 0, 2.0 * z), LABELS[z]) for z in (5, 1, 3, 2, 4)]
    dataset = segmentation(frames, ["tumour", "liver"], "LABELMAP")
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.7"
    dataset.PhotometricInterpretation = photometric
    mask = read(save(dataset, tmp_path / "seg.dcm"), image)
    expected = np.select([LABELS == 1, LABELS == 2], (2, 1), 0)
    np.testing.assert_array_equal(mask.array[0], expected.transpose(2, 1, 0))
    del dataset.SegmentSequence[1]
    assert "pixels of segment 2, which it does not describe" in refusal(
        save(dataset, tmp_path / "seg.dcm"), image, ("background", "tumour")
    )


def test_a_mask_lies_right_on_an_image_that_was_turned(tmp_path: Path, image: Image) -> None:
    path = save(segmentation(frames_of(LABELS, (1, 2)), ["liver", "tumour"]), tmp_path / "seg.dcm")
    straight = read(path, image)
    for orientation in ("RAS", "LPS", "SAR", "ILA"):
        turned = reorient(image, orientation)
        mask = read(path, turned)
        np.testing.assert_array_equal(mask.array, reorient(straight, orientation).array)


def test_frames_in_another_direction_are_placed_by_theirs(tmp_path: Path, image: Image) -> None:
    # Sagittal frames of the same voxels: rows go down, columns to the back.
    dataset = segmentation(
        [(1, (x, 0, 14.0), (LABELS == 1)[::-1, :, x]) for x in range(6)], ["liver"]
    )
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    shared.PixelMeasuresSequence[0].PixelSpacing = [2.0, 1.0]
    shared.PixelMeasuresSequence[0].SpacingBetweenSlices = 1.0
    mask = read(save(dataset, tmp_path / "seg.dcm"), image)
    np.testing.assert_array_equal(mask.array[0], (LABELS == 1).transpose(2, 1, 0))


def test_a_mask_of_another_grid_says_where_it_lies(tmp_path: Path, image: Image) -> None:
    frames = [(1, (0.5, 0, 2.0 * z), LABELS[z] == 1) for z in (1, 3)]
    path = save(segmentation(frames, ["liver"]), tmp_path / "seg.dcm")
    mask = read(path, image)
    assert mask.array.shape == (1, 6, 5, 3)  # the frame between them was left out as empty
    assert mask.affine is not None
    np.testing.assert_allclose(mask.affine @ [0, 0, 0, 1], [-0.5, 0, 2, 1])
    alone = read(path, None)
    np.testing.assert_array_equal(alone.affine, mask.affine)


def test_a_mask_beyond_the_image_is_not_cut(tmp_path: Path, image: Image) -> None:
    frames = [(1, (0, 0, 2.0 * z), LABELS[1] == 1) for z in range(4, 12)]
    mask = read(save(segmentation(frames, ["liver"]), tmp_path / "seg.dcm"), image)
    assert mask.array.sum() == 8 * 6
    assert not np.array_equal(mask.affine, image.affine)


def test_a_mask_of_another_examination_is_refused(tmp_path: Path, image: Image) -> None:
    dataset = segmentation(frames_of(LABELS, (1,)), ["liver"], FrameOfReferenceUID="1.9")
    text = refusal(save(dataset, tmp_path / "seg.dcm"), image)
    assert "another system of coordinates" in text


def test_a_mask_of_tilted_slices_is_placed_on_the_straightened_image(tmp_path: Path) -> None:
    rows = np.array([0.0, np.cos(0.3), -np.sin(0.3)])
    frames = []
    for number in range(8):
        pixels = np.full((12, 12), -1000, np.int16)
        pixels[4:8, 4:8] = 1000
        position = (0.0, 0.0, 2.0 * number)
        dataset = ct_slice(pixels, position, ImageOrientationPatient=[1, 0, 0, *rows])
        save(dataset, tmp_path / "ct" / f"{number}.dcm")
        frames.append((1, position, pixels > 0))
    dataset = segmentation(frames, ["bar"])
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, *rows]
    image = read_image(Location(tmp_path / "ct"), 3)
    mask = read(save(dataset, tmp_path / "seg.dcm"), image, ("background", "bar"))
    assert mask.array.shape == image.array.shape
    bright = image.array > 0
    overlap = 2 * (bright & (mask.array > 0)).sum() / (bright.sum() + mask.array.sum())
    assert overlap > 0.85


def test_an_empty_segmentation_is_an_empty_mask(tmp_path: Path, image: Image) -> None:
    frames = [(1, (0, 0, 4.0), np.zeros((5, 6)))]
    mask = read(save(segmentation(frames, ["liver"]), tmp_path / "seg.dcm"), image)
    assert mask.array.shape == image.array.shape
    assert not mask.array.any()


def test_a_flat_study_takes_segments_on_one_plane(tmp_path: Path) -> None:
    frames = [(number, (0, 0, 0), LABELS[3] == number) for number in (1, 2)]
    path = save(segmentation(frames, ["liver", "tumour"]), tmp_path / "seg.dcm")
    mask = read_mask(Location(path), 2, 3, target=MaskTarget(CLASSES))
    np.testing.assert_array_equal(mask.array[0], LABELS[3])
    path = save(segmentation(frames_of(LABELS, (1, 2)), ["liver", "tumour"]), tmp_path / "v.dcm")
    with pytest.raises(UnreadableError, match="on 5 planes for a 2D study"):
        read_mask(Location(path), 2, 3, target=MaskTarget(CLASSES))


def test_two_segmentations_are_no_mask_and_neither_is_a_report(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(segmentation(frames_of(LABELS, (1,)), ["liver"]), tmp_path / "s" / f"{name}.dcm")
    assert "holds 2 segmentations" in refusal(tmp_path / "s", None)
    report = save(bare("1.2.840.10008.5.1.4.1.1.88.11"), tmp_path / "sr.dcm")
    assert "no image but a DICOM Basic Text SR" in refusal(report, None)


def test_tiles_of_a_slide_are_refused(tmp_path: Path) -> None:
    dataset = segmentation(frames_of(LABELS, (1,)), ["liver"], TotalPixelMatrixRows=50)
    assert "slide in tiles" in refusal(save(dataset, tmp_path / "seg.dcm"), None)


def test_frames_that_lie_unevenly_are_refused(tmp_path: Path) -> None:
    frames = [(1, (0, 0, z), LABELS[1] == 1) for z in (0.0, 2.0, 5.0)]
    path = save(segmentation(frames, ["liver"]), tmp_path / "seg.dcm")
    assert "do not lie evenly, 2.000 mm apart" in refusal(path, None)


def test_real_segmentations_have_the_voxels_that_highdicom_reads(shared_data: Path) -> None:
    folder = shared_data / "highdicom_test_files" / "data" / "test_files"
    for name in ("binary", "binary_fractional", "true_fractional"):
        location = Location(folder / f"seg_image_ct_{name}.dcm")
        mask = read_mask(location, 3, 2, target=MaskTarget(("background", "lesion")))
        assert mask.affine is not None
        voxels = np.argwhere(mask.array[0])
        centre = mask.affine[:3, :3] @ voxels.mean(0) + mask.affine[:3, 3]
        assert len(voxels) == 638
        np.testing.assert_allclose(centre, [121.713, 124.417, 104.521], atol=1e-3)


def test_frames_without_a_spacing_are_refused(tmp_path: Path, image: Image) -> None:
    dataset = segmentation(frames_of(LABELS, (1,)), ["liver"])
    del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert "do not say where they lie" in refusal(save(dataset, tmp_path / "seg.dcm"), image)


def test_a_slice_and_its_mask_say_where_they_lie_in_a_flat_study(tmp_path: Path) -> None:
    pixels = LABELS[3].astype(np.int16)
    slice_ = ct_slice(pixels, (10, 20, 6), SpacingBetweenSlices=2.0)
    image = read_image(Location(save(slice_, tmp_path / "i.dcm")), 2)
    frames = [(1, (10, 20, 6), LABELS[3] == 1)]
    path = save(segmentation(frames, ["liver"]), tmp_path / "m.dcm")
    mask = read_mask(Location(path), 2, 3, target=MaskTarget(CLASSES, image))
    assert image.affine is not None
    np.testing.assert_allclose(mask.affine, image.affine)
    # Row 2, column 3 lies in LPS at (13, 22, 6).
    np.testing.assert_allclose(image.affine @ [2, 3, 0, 1], [-13, -22, 6, 1])


def test_without_classes_segments_keep_their_numbers(tmp_path: Path) -> None:
    path = save(segmentation(frames_of(LABELS, (1, 2)), ["a", "b"]), tmp_path / "seg.dcm")
    stored = read_dicom_mask(path, 3, MaskTarget())
    assert set(np.unique(stored.values)) == {0, 1, 2}
