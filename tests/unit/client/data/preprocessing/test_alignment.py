"""Images, channels and masks of one examination lie on one grid, or are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from wardround.client.data.manifest.examination import Examination, Location
from wardround.client.data.preprocessing.case import Case
from wardround.client.data.preprocessing.preprocessing import prepare_case
from wardround.client.site.folder import Site, SiteFile
from wardround.common.errors import DataError
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

SIZE = (10, 12, 14)
GENERATOR = np.random.default_rng(0)
IMAGE = GENERATOR.normal(100, 20, SIZE).astype(np.float32)
ORGAN = np.zeros(SIZE, np.uint8)
ORGAN[2:5, 3:9, 4:12] = 1
IMAGE[ORGAN == 1] += 500


def study_of(channels: int = 1, dimensions: int = 3, **data: Any) -> Study:
    names = ["t1", "flair"][:channels]
    return parse_study(
        {
            "study": {"name": "organ", "task": "segmentation"},
            "data": {
                "classes": ["background", "organ"],
                "dimensions": dimensions,
                "channels": names,
                **data,
            },
            "model": {"network": "unet"},
        }
    )


def saved(path: Path, values: np.ndarray, affine: np.ndarray) -> Location:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return Location(path)


def prepared(folder: Path, study: Study, mask: Location, *images: Location) -> Case:
    return prepare_case(
        Examination(7, "p", images, mask=mask), Site(folder, SiteFile(name="ward")), study
    )


def moved(x: float = 0, y: float = 0, z: float = 0) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, 3] = x, y, z
    return affine


def turned(degrees: float) -> np.ndarray:
    affine, angle = np.eye(4), np.deg2rad(degrees)
    affine[0, 0] = affine[1, 1] = np.cos(angle)
    affine[0, 1], affine[1, 0] = -np.sin(angle), np.sin(angle)
    return affine


DRIFTING = np.eye(4)
DRIFTING[:3] += 1e-4


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (moved(z=60), r"up to 60 mm apart and differ in origin \(60 mm\)"),
        (moved(x=0.5, y=0.5, z=0.5), r"up to 0.866 mm apart and differ in origin"),
        (moved(x=0.01), "up to 0.01 mm apart"),
        (np.diag([1, 1, 1.01, 1]), r"differ in spacing \(1 x 1 x 1.01 and 1 x 1 x 1 mm\)"),
        (np.diag([1, 1, 3.0, 1]), r"differ in spacing \(1 x 1 x 3 and 1 x 1 x 1 mm\)"),
        (turned(10), r"differ in direction \(10 degrees\)"),
        (turned(0.1), r"differ in direction \(0.1 degrees\)"),
        # The same shape beside the image, at the other side of the first voxel.
        (np.diag([-1.0, 1, 1, 1]), "up to 9 mm apart"),
    ],
)
def test_a_mask_and_a_channel_elsewhere_are_refused_with_row_distance_and_remedy(
    tmp_path: Path, affine: np.ndarray, words: str
) -> None:
    image = saved(tmp_path / "image.nii", IMAGE, np.eye(4))
    mask = saved(tmp_path / "mask.nii", ORGAN, np.eye(4))
    other_mask = saved(tmp_path / "other.nii", ORGAN, affine)
    other = saved(tmp_path / "flair.nii", IMAGE, affine)
    remedy = r".*data.resample_to = 'image'"
    with pytest.raises(DataError, match=f"^row 7, column mask: .*{words}{remedy}"):
        prepared(tmp_path, study_of(), other_mask, image)
    with pytest.raises(DataError, match=f"^row 7, column image.flair: .*{words}{remedy}"):
        prepared(tmp_path, study_of(2), mask, image, other)


@pytest.mark.parametrize("affine", [np.eye(4), DRIFTING, moved(x=1e-4), turned(1e-4)])
def test_what_headers_in_single_precision_lose_is_no_distance(
    tmp_path: Path, affine: np.ndarray
) -> None:
    image = saved(tmp_path / "image.nii", IMAGE, np.eye(4))
    case = prepared(tmp_path, study_of(), saved(tmp_path / "mask.nii", ORGAN, affine), image)
    assert case.mask is not None
    np.testing.assert_array_equal(case.mask.numpy(), ORGAN)


def test_a_quaternion_after_half_a_turn_is_as_exact_as_its_header_can_be(tmp_path: Path) -> None:
    half = turned(180.03)
    half[2, 1] = half[1, 2] = 3e-4
    affine = np.diag([0.4, 0.4, 3.0, 1.0]) @ half
    affine[:3, :3] = np.linalg.qr(half[:3, :3])[0] @ np.diag([0.4, 0.4, 3.0])
    size = (256, 256, 40)
    volume = np.zeros(size, np.uint8)
    volume[100:140, 100:140, 10:20] = 1
    image = saved(tmp_path / "image.nii", volume, affine)
    mask = nibabel.Nifti1Image(volume, None)
    mask.header.set_qform(affine, code=1)
    for place, wrong in ((0.0, False), (0.2, True)):
        mask.header["qoffset_x"] = affine[0, 3] + place
        nibabel.save(mask, tmp_path / "mask.nii")
        study, lying = study_of(orientation="stored"), Location(tmp_path / "mask.nii")
        if wrong:
            with pytest.raises(DataError, match=r"up to 0\.2"):
                prepared(tmp_path, study, lying, image)
        else:
            assert prepared(tmp_path, study, lying, image).mask is not None


OBLIQUE = turned(44) @ np.diag([0.9, 1.1, 2.5, 1.0])


@pytest.mark.parametrize("codes", ["LPS", "PSR", "SAL", "IRP"])
@pytest.mark.parametrize("own", [np.eye(4), moved(5, -80, 3) @ OBLIQUE])
@pytest.mark.parametrize("orientation", [None, "LPI", "stored"])
def test_a_mask_in_any_order_of_the_same_grid_lies_on_its_image(
    tmp_path: Path, codes: str, own: np.ndarray, orientation: str | None
) -> None:
    image = saved(tmp_path / "image.nii", IMAGE, own)
    mask = nibabel.Nifti1Image(ORGAN, own)
    order = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(own), nibabel.orientations.axcodes2ornt(codes)
    )
    nibabel.save(mask.as_reoriented(order), tmp_path / "mask.nii")
    study = study_of(orientation=orientation)
    case = prepared(tmp_path, study, Location(tmp_path / "mask.nii"), image)
    assert case.mask is not None
    np.testing.assert_array_equal(case.mask.numpy() == 1, case.image[0].numpy() > 300)


def test_two_hospitals_that_store_left_and_right_differently_see_the_same(tmp_path: Path) -> None:
    cases = []
    for codes in ("RAS", "LPS", "ASR"):
        stored = nibabel.Nifti1Image(IMAGE, moved(-4, 7, 2))
        order = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(stored.affine), nibabel.orientations.axcodes2ornt(codes)
        )
        nibabel.save(stored.as_reoriented(order), tmp_path / "image.nii")
        nibabel.save(nibabel.Nifti1Image(ORGAN, moved(-4, 7, 2)), tmp_path / "mask.nii")
        mask = Location(tmp_path / "mask.nii")
        cases.append(prepared(tmp_path, study_of(), mask, Location(tmp_path / "image.nii")))
    for case in cases:
        np.testing.assert_array_equal(case.image[0].numpy(), IMAGE)


def test_a_volume_that_does_not_say_how_it_lies_is_refused_unless_the_study_accepts_it(
    tmp_path: Path,
) -> None:
    for name, values in (("image", IMAGE), ("mask", ORGAN)):
        nibabel.save(nibabel.Nifti1Image(values, None), tmp_path / f"{name}.nii")
    image, mask = Location(tmp_path / "image.nii"), Location(tmp_path / "mask.nii")
    with pytest.raises(DataError, match=r"column image: .*write its sform or qform, or set data"):
        prepared(tmp_path, study_of(), mask, image)
    case = prepared(tmp_path, study_of(orientation="stored"), mask, image)
    np.testing.assert_array_equal(case.image[0].numpy(), IMAGE)
    placed = saved(tmp_path / "placed.nii", IMAGE, np.eye(4))
    with pytest.raises(DataError, match="column mask: its header does not say how it lies"):
        prepared(tmp_path, study_of(), mask, placed)


def ball(affine: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return how deep each voxel lies in a ball of 5 mm around (6, 7, 8) mm, in millimetres."""
    places = np.indices(size).reshape(3, -1)
    at = affine[:3, :3] @ places + affine[:3, 3:]
    return (5 - np.linalg.norm(at - [[6], [7], [8]], axis=0)).reshape(size)


FINE = moved(-1.3, -0.7, -2.2) @ turned(20) @ np.diag([0.7, 0.8, 0.6, 1])


@pytest.mark.parametrize("affine", [FINE, moved(0.5, 0.5, 0.5), moved(-3, -2, -1)])
def test_masks_and_channels_are_brought_onto_the_first_images_grid_where_it_is_meant(
    tmp_path: Path, affine: np.ndarray
) -> None:
    size = (26, 28, 32)
    mask = saved(tmp_path / "mask.nii", (ball(affine, size) > 0).astype(np.uint8), affine)
    depth = ball(affine, size).astype(np.float32)
    flair = saved(tmp_path / "flair.nii", depth, affine)
    image = saved(tmp_path / "image.nii", IMAGE, np.eye(4))
    case = prepared(tmp_path, study_of(2, resample_to="image"), mask, image, flair)
    assert case.mask is not None
    wanted = ball(np.eye(4), SIZE)
    np.testing.assert_array_equal(case.image[0].numpy(), IMAGE)
    # Of the nearest voxel: wrong at most half a voxel's diagonal from the surface.
    clear = np.abs(wanted) > 0.9
    np.testing.assert_array_equal(case.mask.numpy()[clear], wanted[clear] > 0)
    inner = (slice(3, -3),) * 3
    away = np.abs(wanted - 5)[inner] > 1.5  # from the tip of the cone, which linear steps cut
    assert np.abs(case.image[1].numpy() - wanted)[inner][away].max() < 0.2


def test_what_lies_wholly_elsewhere_is_not_resampled_to_nothing(tmp_path: Path) -> None:
    image = saved(tmp_path / "image.nii", IMAGE, np.eye(4))
    mask = saved(tmp_path / "mask.nii", ORGAN, moved(z=60))
    with pytest.raises(DataError, match=r"wholly outside the image: .*60 mm"):
        prepared(tmp_path, study_of(resample_to="image"), mask, image)


def save_ct(path: Path, pixels: np.ndarray, **changes: Any) -> Location:
    from tests.unit.client.data.reading.test_readers import save_slice

    save_slice(path, pixels, 30.0, **changes)
    return Location(path)


FLAT = (9, 13)  # rows and columns
BAR = np.zeros(FLAT, np.uint8)
BAR[1:3, 2:11] = 1


@pytest.mark.parametrize(
    "directions", [[1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, -1, 0], [1, 0, 0, 0, 0, -1]]
)
@pytest.mark.parametrize("codes", ["LPS", "RAS", "PLS"])
def test_a_mask_drawn_on_a_dicom_slice_and_saved_as_nifti_lies_on_what_was_drawn(
    tmp_path: Path, directions: list[float], codes: str
) -> None:
    image = save_ct(
        tmp_path / "ct.dcm", BAR.astype(np.uint16) * 700, ImageOrientationPatient=directions
    )
    # As ITK-SNAP and 3D Slicer write it: (x, y, 1), with the slice's own geometry.
    along_row, along_column = np.array(directions[:3]), np.array(directions[3:])
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = along_row * 0.5, along_column * 0.8
    lps[:3, 2], lps[:3, 3] = np.cross(along_row, along_column), [10, 20, 30]
    affine = np.diag([-1.0, -1, 1, 1]) @ lps
    mask = nibabel.Nifti1Image(BAR.T[..., None], affine)
    if directions[5] == 0:
        order = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(codes)
        )
        mask = mask.as_reoriented(order)
    nibabel.save(mask, tmp_path / "mask.nii.gz")
    case = prepared(tmp_path, study_of(dimensions=2), Location(tmp_path / "mask.nii.gz"), image)
    assert case.mask is not None
    np.testing.assert_array_equal(case.mask.numpy() == 1, case.image[0].numpy() > 300)
    assert case.spacing == (0.8, 0.5)
    moved_mask = nibabel.Nifti1Image(BAR.T[..., None], moved(z=5) @ affine)
    nibabel.save(moved_mask, tmp_path / "other.nii.gz")
    with pytest.raises(DataError, match=r"column mask: .*up to 5 mm apart"):
        prepared(tmp_path, study_of(dimensions=2), Location(tmp_path / "other.nii.gz"), image)


def test_a_slice_without_directions_is_refused_where_a_mask_has_to_be_laid_on_it(
    tmp_path: Path,
) -> None:
    pixels = BAR.astype(np.uint16)
    image = save_ct(tmp_path / "ct.dcm", pixels, ImageOrientationPatient=[0, 0, 0, 0, 0, 0])
    mask = saved(tmp_path / "mask.nii.gz", BAR.T[..., None], np.diag([-1.0, -1, 1, 1]))
    with pytest.raises(DataError, match="column image: its ImageOrientationPatient is no pair"):
        prepared(tmp_path, study_of(dimensions=2), mask, image)


def test_a_mask_of_a_picture_saved_as_nifti_lies_on_the_picture(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(BAR * 200).save(tmp_path / "photo.png")
    mask = saved(tmp_path / "mask.nii.gz", BAR.T[..., None], np.diag([-1.0, -1, 1, 1]))
    study = study_of(dimensions=2)
    case = prepared(tmp_path, study, mask, Location(tmp_path / "photo.png"))
    assert case.mask is not None
    np.testing.assert_array_equal(case.mask.numpy() == 1, case.image[0].numpy() > 0.5)
    # With its axes to the right and the front the header turns it, and nobody knows the picture's.
    other = saved(tmp_path / "other.nii.gz", BAR.T[..., None], np.eye(4))
    with pytest.raises(DataError, match="row 7, column mask: one of image and mask is NIfTI"):
        prepared(tmp_path, study, other, Location(tmp_path / "photo.png"))
    Image.fromarray(BAR).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match="row 7, column mask: one of image and mask is NIfTI"):
        prepared(tmp_path, study, Location(tmp_path / "mask.png"), other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h.__setitem__("xyzt_units", 3), "0.01 mm long along an axis, and nothing"),
        (lambda h: h["pixdim"].__setitem__(slice(1, 4), 1e-4), "nothing of it is left"),
    ],
)
def test_a_volume_of_which_nothing_is_left_at_the_studys_spacing_is_refused(
    tmp_path: Path, change: Callable[[Any], None], words: str
) -> None:
    image = nibabel.Nifti1Image(IMAGE, None)
    image.header.set_qform(np.eye(4), code=1)
    change(image.header)
    nibabel.save(image, tmp_path / "image.nii")
    place = Location(tmp_path / "image.nii")
    with pytest.raises(DataError, match=f"^row 7, column image: it is .*{words}"):
        prepared(tmp_path, study_of(spacing=[1, 1, 1]), place, place)


def test_a_spacing_that_asks_for_more_than_memory_holds_is_refused(tmp_path: Path) -> None:
    place = saved(tmp_path / "image.nii", IMAGE, np.eye(4))
    with pytest.raises(DataError, match=r"more than 2,147,483,648 voxels: take a larger spacing"):
        prepared(tmp_path, study_of(spacing=[1e-7, 1e-7, 1e-7]), place, place)
