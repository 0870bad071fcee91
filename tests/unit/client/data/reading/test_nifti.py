"""NIfTI headers of real archives: read as they are meant, or refused with what is wrong."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.image import Image, UnreadableError
from wardround.client.data.reading.readers import read_image, read_mask

VOLUME = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def saved(
    path: Path,
    values: np.ndarray = VOLUME,
    affine: np.ndarray | None = None,
    change: Callable[[Any], None] | None = None,
    kind: Any = nibabel.Nifti1Image,
) -> Location:
    """Write a file and change its header as it lies on the disk: nibabel itself would mend it."""
    image = kind(values, np.eye(4) if affine is None else affine)
    nibabel.save(image, path)
    if change is not None:
        content = bytearray(path.read_bytes())
        header = type(image.header)(bytes(content[: image.header.sizeof_hdr]), check=False)
        change(header)
        content[: len(header.binaryblock)] = header.binaryblock
        path.write_bytes(content)
    return Location(path)


def read(place: Location, dimensions: int = 3) -> Image:
    return read_image(place, dimensions)


def set_qform_only(header: Any) -> None:
    header.set_qform(np.diag([-2.0, -3.0, 4.0, 1.0]), code=1)
    header["sform_code"] = 0
    header["srow_x"] = header["srow_y"] = header["srow_z"] = 0


def test_a_header_with_a_qform_alone_says_how_the_volume_lies(tmp_path: Path) -> None:
    image = read(saved(tmp_path / "a.nii", change=set_qform_only))
    assert image.spacing == (2.0, 3.0, 4.0)
    assert image.affine is not None
    np.testing.assert_allclose(image.affine, np.diag([-2.0, -3.0, 4.0, 1.0]))


def test_the_sform_says_the_voxel_size_where_it_says_the_orientation(tmp_path: Path) -> None:
    def change(header: Any) -> None:
        header.set_sform(np.diag([2.0, 2.0, 2.0, 1.0]), code=2)
        header.set_qform(np.eye(4), code=1)

    image = read(saved(tmp_path / "a.nii", change=change))
    assert image.spacing == (2.0, 2.0, 2.0)
    assert image.affine is not None
    assert image.affine[0, 0] == 2


def test_sform_and_qform_that_say_left_and_right_are_refused(tmp_path: Path) -> None:
    def change(header: Any) -> None:
        header.set_sform(LPS, code=2)
        header.set_qform(np.eye(4), code=1)

    with pytest.raises(UnreadableError, match="sform says that the axes point to LPS, its qform"):
        read(saved(tmp_path / "a.nii", change=change))


def test_without_sform_and_qform_nothing_says_how_a_volume_lies(tmp_path: Path) -> None:
    def change(header: Any) -> None:
        header["sform_code"] = header["qform_code"] = 0
        header["pixdim"][1:4] = 2, 3, 4

    image = read(saved(tmp_path / "a.nii", change=change))
    assert image.affine is None
    assert image.is_unplaced
    assert image.spacing == (2.0, 3.0, 4.0)


def set_pixdim(value: float) -> Callable[[Any], None]:
    def change(header: Any) -> None:
        header["sform_code"] = 0
        header["qform_code"] = 1
        header["pixdim"][2] = value

    return change


def no_code(value: float) -> Callable[[Any], None]:
    def change(header: Any) -> None:
        header["sform_code"] = header["qform_code"] = 0
        header["pixdim"][2] = value

    return change


def set_unit(code: int) -> Callable[[Any], None]:
    def change(header: Any) -> None:
        header["xyzt_units"] = code

    return change


def set_sform(affine: list[list[float]]) -> Callable[[Any], None]:
    def change(header: Any) -> None:
        header.set_sform(np.array(affine), code=2)
        header["qform_code"] = 0

    return change


SHEARED = [[1, 0, 0.2, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]
FLAT = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1.0]]


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (set_pixdim(0.0), r"pixdim\[2\] is 0"),
        (no_code(0.0), r"pixdim\[2\] is 0"),
        (no_code(np.nan), r"pixdim\[2\] is nan"),
        (no_code(-1.0), "no positive voxel size but -1"),
        (set_pixdim(-1.0), "no positive voxel size but -1"),
        (set_unit(5), "unit 5 of lengths"),
        (set_unit(1), "voxels are 1000 mm large"),
        (set_sform(SHEARED), r"meet at 7\d\.\d degrees and not at 90"),
        (set_sform(FLAT), "no usable orientation"),
    ],
)
def test_a_header_that_cannot_be_meant_is_refused(
    tmp_path: Path, change: Callable[[Any], None], fact: str
) -> None:
    with pytest.raises(UnreadableError, match=fact):
        read(saved(tmp_path / "a.nii", change=change))


@pytest.mark.parametrize(("code", "spacing"), [(0, 1.0), (2, 1.0), (3, 0.001)])
def test_lengths_are_in_millimetres_whatever_their_unit(
    tmp_path: Path, code: int, spacing: float
) -> None:
    image = read(saved(tmp_path / "a.nii", change=set_unit(code)))
    assert image.spacing == pytest.approx((spacing,) * 3)
    assert image.affine is not None
    np.testing.assert_allclose(np.abs(np.diag(image.affine)[:3]), spacing)


def test_bytes_in_either_order_and_both_versions_are_read(tmp_path: Path) -> None:
    big = nibabel.Nifti1Image(VOLUME.astype(">i2"), LPS, nibabel.Nifti1Header(endianness=">"))
    nibabel.save(big, tmp_path / "big.nii.gz")
    second = saved(tmp_path / "second.nii.gz", affine=LPS, kind=nibabel.Nifti2Image)
    for place in (Location(tmp_path / "big.nii.gz"), second):
        image = read(place)
        np.testing.assert_array_equal(image.array[0], VOLUME)
        np.testing.assert_allclose(image.affine, LPS)
        assert image.array.dtype == np.float32


def test_what_is_packed_twice_is_said_to_be_so(tmp_path: Path) -> None:
    place = saved(tmp_path / "a.nii.gz")
    place.path.write_bytes(gzip.compress(place.path.read_bytes()))
    with pytest.raises(UnreadableError, match="packed twice"):
        read(place)


@pytest.mark.parametrize(
    ("dtype", "fact"),
    [(np.complex64, "complex numbers"), ([("R", "u1"), ("G", "u1"), ("B", "u1")], "colours")],
)
def test_voxels_that_are_no_real_numbers_are_refused(tmp_path: Path, dtype: Any, fact: str) -> None:
    with pytest.raises(UnreadableError, match=fact):
        read(saved(tmp_path / "a.nii", np.zeros((4, 5, 6), dtype)))


def test_a_header_that_claims_more_than_any_memory_holds_is_refused_unread(tmp_path: Path) -> None:
    def change(header: Any) -> None:
        header["dim"][1:4] = 30_000

    with pytest.raises(UnreadableError, match="30000x30000x30000 voxels"):
        read(saved(tmp_path / "a.nii", change=change))


def test_axes_of_length_one_at_the_end_are_no_axes(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        read(saved(tmp_path / "a.nii", VOLUME[..., None])).array[0], VOLUME
    )
    flat = read(saved(tmp_path / "b.nii", VOLUME[:, :, :1, None], LPS), 2)
    np.testing.assert_array_equal(flat.array[0], VOLUME[:, :, 0].T)


@pytest.mark.parametrize("slices", [2, 3, 4, 5])
def test_slices_of_a_volume_are_never_the_colours_of_a_picture(tmp_path: Path, slices: int) -> None:
    place = saved(tmp_path / "a.nii", np.ones((32, 32, slices), np.int16))
    for colour in (False, True):
        with pytest.raises(UnreadableError, match=f"32x32x{slices} for a 2D study"):
            read_image(place, 2, colour)
    with pytest.raises(UnreadableError, match=f"32x32x{slices} for a 2D study"):
        read_mask(place, 2, 2)


# A left hand that points to the head, in the patient's axes: to the right, the front, the head.
WORLD = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("signs", [(1, 1), (-1, -1), (1, -1)])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_slice_is_upright_however_its_file_stores_it(
    tmp_path: Path, plane: str, signs: tuple[int, int], swapped: bool
) -> None:
    across, up, through = WORLD[plane]
    axes = (up, across) if swapped else (across, up)
    sizes = (7, 5)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, world in enumerate((*axes, through)):
        affine[world, axis] = (*signs, 1)[axis] * 2.0
    # Each voxel holds its own place, so that the picture says what lies where.
    x, y = np.meshgrid(range(sizes[0]), range(sizes[1]), indexing="ij")
    at = affine @ np.stack([x, y, 0 * x, 0 * x + 1]).reshape(4, -1)
    for world in (across, up):
        values = at[world].reshape(sizes).astype(np.float32)
        image = read(saved(tmp_path / f"{world}.nii.gz", values[..., None], affine), 2)
        rows, columns = np.diff(image.array[0], axis=0), np.diff(image.array[0], axis=1)
        assert (rows == (-2 if world == up else 0)).all(), "rows run down from front or head"
        assert (columns == (-2 if world == across else 0)).all(), "columns from right, or front"
        assert image.affine is not None
        assert image.affine[world] @ [1, 2, 0, 1] == image.array[0, 1, 2]


def test_one_slice_may_be_cut_along_any_axis_of_the_file(tmp_path: Path) -> None:
    sagittal = read(saved(tmp_path / "a.nii", VOLUME[1:2]), 2)
    np.testing.assert_array_equal(sagittal.array[0], VOLUME[1, ::-1, ::-1].T)
    coronal = read(saved(tmp_path / "b.nii", VOLUME[:, 1:2]), 2)
    np.testing.assert_array_equal(coronal.array[0], VOLUME[::-1, 1, ::-1].T)


def test_volumes_of_one_file_are_channels_by_number(tmp_path: Path) -> None:
    several = np.stack([VOLUME, VOLUME + 1000], axis=3)
    place = saved(tmp_path / "a.nii.gz", several)
    second = read(Location(place.path, None, 1, 2))
    np.testing.assert_array_equal(second.array[0], VOLUME + 1000)
    with pytest.raises(UnreadableError, match="holds 2 volumes: list 2 channels"):
        read(place)
    with pytest.raises(UnreadableError, match="2 volumes for 3 channels"):
        read(Location(place.path, None, 1, 3))
    with pytest.raises(UnreadableError, match="no volume 2"):
        read(Location(place.path, None, 2))
    with pytest.raises(UnreadableError, match="1 volumes for 2 channels"):
        read(Location(saved(tmp_path / "b.nii", VOLUME).path, None, 0, 2))


def test_labels_that_are_almost_whole_are_rounded_and_others_refused(tmp_path: Path) -> None:
    def scaled(slope: float) -> Callable[[Any], None]:
        def change(header: Any) -> None:
            header["scl_slope"], header["scl_inter"] = slope, 0

        return change

    stored = np.zeros((4, 5, 6), np.uint8)
    stored[1:3] = 255
    mask = read_mask(saved(tmp_path / "a.nii", stored, change=scaled(1 / 255)), 3, 2)
    np.testing.assert_array_equal(mask.array[0], stored > 0)
    with pytest.raises(UnreadableError, match=r"not whole numbers \(0\.5"):
        read_mask(saved(tmp_path / "b.nii", stored, change=scaled(0.5 / 255)), 3, 2)
