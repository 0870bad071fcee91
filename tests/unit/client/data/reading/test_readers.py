import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image as Picture
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    MediaStorageDirectoryStorage,
    generate_uid,
)

from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.array_files import open_array
from wardround.client.data.reading.image import UnreadableError
from wardround.client.data.reading.readers import read_image, read_mask

GENERATOR = np.random.default_rng(0)
PATIENT = "Doe^Jane-4711"


def save_slice(path: Path, pixels: np.ndarray, depth: float, **changes: Any) -> None:
    """Write one slice of a CT of columns 0.5 mm and rows 0.8 mm apart, lying on the x-y plane."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PatientName = PATIENT
    dataset.SeriesInstanceUID = "1.2.3"
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [10, 20, depth]
    dataset.PixelSpacing = [0.8, 0.5]
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelRepresentation = 0
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.PixelData = pixels.tobytes()
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


def save_series(folder: Path, volume: np.ndarray, depths: list[float], **changes: Any) -> Location:
    folder.mkdir()
    for place, (pixels, depth) in enumerate(zip(volume, depths, strict=True)):
        # File names in another order than the slices.
        save_slice(folder / f"{(place * 7) % 10}.dcm", pixels, depth, **changes)
    return Location(folder)


VOLUME = GENERATOR.integers(0, 4000, (4, 5, 6), dtype=np.uint16)
DEPTHS = [-3.0, -1.0, 1.0, 3.0]


def test_a_nifti_file_is_read_with_its_geometry(tmp_path: Path) -> None:
    affine = np.diag([-2.0, 1.5, 3.0, 1.0])
    values = GENERATOR.normal(size=(4, 5, 6)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "a.nii.gz")
    image = read_image(Location(tmp_path / "a.nii.gz"), 3)
    np.testing.assert_array_equal(image.array, values[np.newaxis])
    assert image.spacing == (2.0, 1.5, 3.0)
    np.testing.assert_allclose(image.affine, affine)


def test_a_series_is_sorted_rescaled_and_placed_in_ras(tmp_path: Path) -> None:
    location = save_series(tmp_path / "s", VOLUME, DEPTHS, RescaleSlope=2, RescaleIntercept=-1024)
    image = read_image(location, 3)
    np.testing.assert_array_equal(image.array[0], VOLUME.transpose(2, 1, 0) * 2.0 - 1024)
    assert image.spacing == (0.5, 0.8, 2.0)
    assert image.affine is not None
    # Column 3, row 2, slice 1 lies in LPS at (10 + 3 * 0.5, 20 + 2 * 0.8, -3 + 2).
    np.testing.assert_allclose(image.affine @ [3, 2, 1, 1], [-11.5, -21.6, -1.0, 1.0])


def test_higher_is_brighter_in_either_photometric_interpretation(tmp_path: Path) -> None:
    pixels = np.array([[0, 10], [250, 255]], dtype=np.uint8)
    path = tmp_path / "x.dcm"
    save_slice(
        path,
        pixels,
        0.0,
        PhotometricInterpretation="MONOCHROME1",
        SOPClassUID=ComputedRadiographyImageStorage,
    )
    image = read_image(Location(path), 2)
    np.testing.assert_array_equal(image.array[0], [[255, 245], [5, 0]])
    assert image.eight_bit
    assert image.spacing == (0.8, 0.5)


def test_many_frames_in_one_file_are_a_volume(tmp_path: Path) -> None:
    path = tmp_path / "m.dcm"
    save_slice(path, VOLUME, 0.0, NumberOfFrames=4, SpacingBetweenSlices=2.5)
    image = read_image(Location(path), 3)
    np.testing.assert_array_equal(image.array[0], VOLUME.transpose(2, 1, 0))
    assert image.spacing == (0.5, 0.8, 2.5)


@pytest.mark.parametrize(
    ("depths", "changes", "fact"),
    [
        ([0.0, 1.0, 2.0, 4.0], {}, "gaps between slices go from 1.000 to 2.000 mm"),
        ([0.0, 1.0, 1.0, 2.0], {}, "4 slices lie at 3 places, each 1 to 2 times"),
        ([0.0, 1.0, 2.0, 3.0], {"SeriesInstanceUID": "9"}, "mixes 2 series"),
        ([0.0, 1.0, 2.0, 3.0], {"PixelSpacing": [0.8, 0.6]}, "differ in pixel spacing"),
        ([0.0, 1.0, 2.0, 3.0], {"ImageOrientationPatient": [1, 0, 0, 0, 0, 1]}, "orientation"),
    ],
)
def test_what_is_not_one_regular_series_is_refused(
    tmp_path: Path, depths: list[float], changes: dict[str, Any], fact: str
) -> None:
    location = save_series(tmp_path / "s", VOLUME, depths)
    if changes:
        save_slice(tmp_path / "s" / "0.dcm", VOLUME[0], depths[0], **changes)
    with pytest.raises(UnreadableError, match=fact):
        read_image(location, 3)


def test_compressed_pixels_that_are_damaged_are_called_so(tmp_path: Path) -> None:
    path = tmp_path / "c.dcm"
    save_slice(path, VOLUME[0], 0.0)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = pydicom.encaps.encapsulate([b"\x00" * 16])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    with pytest.raises(UnreadableError, match=r"compressed pixels \(JPEG 2000.*damaged"):
        read_image(Location(path), 2)


def test_a_series_is_no_image_of_a_flat_study(tmp_path: Path) -> None:
    location = save_series(tmp_path / "s", VOLUME, DEPTHS)
    with pytest.raises(UnreadableError, match="4 frames for a 2D study"):
        read_image(location, 2)


RGB = GENERATOR.integers(0, 256, (7, 5, 3), dtype=np.uint8)


def test_pictures_are_read_in_colour_or_as_pillow_makes_them_grey(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Picture.fromarray(RGB).save(path)
    colour = read_image(Location(path), 2, colour=True)
    np.testing.assert_array_equal(colour.array, RGB.transpose(2, 0, 1))
    assert colour.eight_bit
    grey = read_image(Location(path), 2)
    wanted = np.asarray(Picture.fromarray(RGB).convert("L"), dtype=float)
    np.testing.assert_allclose(grey.array[0], wanted, atol=1)


def test_a_grey_picture_is_repeated_in_a_colour_study_and_alpha_is_dropped(tmp_path: Path) -> None:
    Picture.fromarray(RGB[..., 0]).save(tmp_path / "grey.png")
    grey = read_image(Location(tmp_path / "grey.png"), 2, colour=True)
    np.testing.assert_array_equal(grey.array, np.repeat(RGB[np.newaxis, ..., 0], 3, axis=0))
    Picture.fromarray(RGB).convert("RGBA").save(tmp_path / "alpha.png")
    alpha = read_image(Location(tmp_path / "alpha.png"), 2, colour=True)
    np.testing.assert_array_equal(alpha.array, RGB.transpose(2, 0, 1))


def test_sixteen_bits_of_a_png_are_kept(tmp_path: Path) -> None:
    pixels = GENERATOR.integers(0, 2**16, (6, 4), dtype=np.uint16)
    Picture.fromarray(pixels).save(tmp_path / "deep.png")
    image = read_image(Location(tmp_path / "deep.png"), 2)
    np.testing.assert_array_equal(image.array[0], pixels)
    assert not image.eight_bit


def test_a_photograph_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    exif = Picture.Exif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise for display
    Picture.fromarray(RGB).save(tmp_path / "p.png", exif=exif)
    image = read_image(Location(tmp_path / "p.png"), 2, colour=True)
    np.testing.assert_array_equal(image.array, np.rot90(RGB, k=-1).transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_items_of_array_files_are_read(tmp_path: Path, suffix: str) -> None:
    stack = GENERATOR.integers(0, 256, (4, 7, 5, 3), dtype=np.uint8)
    path = tmp_path / f"set.{suffix}"
    if suffix == "npy":
        np.save(path, stack)
    else:
        np.savez_compressed(path, images=stack, labels=np.arange(4))
    location = Location(path, "images" if suffix == "npz" else None, 2)
    image = read_image(location, 2, colour=True)
    np.testing.assert_array_equal(image.array, stack[2].transpose(2, 0, 1))
    with pytest.raises(UnreadableError, match="4 items, counted from 0, and no item 4"):
        read_image(Location(path, location.array, 4), 2, colour=True)


def test_a_member_is_read_once_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, images=np.zeros((2, 3, 3)))
    first = open_array(path, "images")
    assert open_array(path, "images") is first
    np.savez(path, images=np.ones((2, 3, 3, 1)))
    assert open_array(path, "images").shape == (2, 3, 3, 1)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_pickles_are_never_opened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bad.{suffix}"
    pickled = np.array([{"a": 1}], dtype=object)
    if suffix == "npy":
        np.save(path, pickled, allow_pickle=True)
    else:
        np.savez(path, pickled)
    with pytest.raises(UnreadableError):
        read_image(Location(path, None, 0), 2)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_header_that_claims_more_than_the_file_holds_is_refused(
    tmp_path: Path, suffix: str
) -> None:
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(stream, header)
    path = tmp_path / f"huge.{suffix}"
    if suffix == "npy":
        path.write_bytes(stream.getvalue() + bytes(800))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", stream.getvalue() + bytes(800))
    with pytest.raises(UnreadableError):
        read_image(Location(path, None, 0), 2)


def good_files(folder: Path) -> list[Path]:
    photograph = Picture.fromarray(GENERATOR.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    photograph.save(folder / "a.png")
    photograph.save(folder / "a.jpg")
    nibabel.save(nibabel.Nifti1Image(VOLUME[0], np.eye(4)), folder / "a.nii.gz")
    nibabel.save(nibabel.Nifti1Image(VOLUME[0], np.eye(4)), folder / "a.nii")
    save_slice(folder / "a.dcm", VOLUME[0], 0.0)
    np.save(folder / "a.npy", VOLUME[0])
    np.savez(folder / "a.npz", VOLUME[0])
    return sorted(folder.iterdir())


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9])
def test_a_damaged_file_is_refused_without_naming_it_or_the_patient(
    tmp_path: Path, kept: float
) -> None:
    for path in good_files(tmp_path):
        read_image(Location(path), 2)
        content = path.read_bytes()
        secret = path.with_name(f"SECRET-{path.name}")
        secret.write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(UnreadableError) as caught:
            read_image(Location(secret), 2)
        assert "SECRET" not in str(caught.value)
        assert "Doe" not in str(caught.value)
        assert str(caught.value.at(7, "image")).startswith("row 7, column image: ")


@pytest.mark.parametrize(
    ("array", "fact"),
    [
        (np.array([[0.0, np.nan]]), "not finite"),
        (np.array([[0.0, np.inf]]), "not finite"),
        (np.zeros((0, 5)), "no pixels"),
        (np.zeros((2, 3, 5)), "shape is 2x3x5 for a 2D study"),
        (np.zeros((2, 3), dtype=complex), "not real numbers"),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path: Path, array: np.ndarray, fact: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UnreadableError, match=fact):
        read_image(Location(tmp_path / "a.npy"), 2)


def test_missing_files_and_unknown_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="missing"):
        read_image(Location(tmp_path / "gone.png"), 2)
    (tmp_path / "a.docx").touch()
    with pytest.raises(UnreadableError, match="format is unknown"):
        read_image(Location(tmp_path / "a.docx"), 2)


def test_a_white_foreground_in_a_picture_is_class_one(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    Picture.fromarray(np.array([[0, 0, 255, 255]], dtype=np.uint8)).save(path)
    assert read_mask(Location(path), 2, 2).array.tolist() == [[[0, 0, 1, 1]]]
    with pytest.raises(UnreadableError, match=r"labels go from 0 to 255.* 0 to 2"):
        read_mask(Location(path), 2, 3)


def test_a_picture_of_indices_keeps_them(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2]], dtype=np.uint8)
    Picture.fromarray(labels).save(tmp_path / "grey.png")
    assert read_mask(Location(tmp_path / "grey.png"), 2, 3).array.tolist() == [labels.tolist()]
    indexed = Picture.new("P", (3, 1))
    indexed.putdata([0, 1, 2])
    indexed.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    indexed.save(tmp_path / "palette.png")
    assert read_mask(Location(tmp_path / "palette.png"), 2, 3).array.tolist() == [labels.tolist()]


def test_a_grey_picture_saved_in_colour_is_a_mask_but_a_coloured_one_is_not(
    tmp_path: Path,
) -> None:
    labels = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    Picture.fromarray(labels).convert("RGB").save(tmp_path / "m.png")
    assert read_mask(Location(tmp_path / "m.png"), 2, 2).array.tolist() == [[[0, 1], [1, 0]]]
    Picture.fromarray(RGB).save(tmp_path / "c.png")
    with pytest.raises(UnreadableError, match="coloured picture"):
        read_mask(Location(tmp_path / "c.png"), 2, 2)


@pytest.mark.parametrize(
    ("labels", "fact"),
    [
        ([[0.0, 1.5]], "not whole numbers .1.5"),
        ([[0.0, -1.0]], "0 to 2"),
        ([[0.0, 3.0]], "0 to 2"),
        ([[0.0, np.nan]], "1 of its labels are no numbers"),
    ],
)
def test_labels_that_the_study_does_not_have_are_refused(
    tmp_path: Path, labels: list[list[float]], fact: str
) -> None:
    np.save(tmp_path / "m.npy", np.array(labels))
    with pytest.raises(UnreadableError, match=fact):
        read_mask(Location(tmp_path / "m.npy"), 2, 3)


def test_real_series_have_the_size_and_the_voxels_of_their_description(shared_data: Path) -> None:
    image = read_image(Location(shared_data / "dicom_t1_studyforrest" / "dicoms"), 3)
    assert sorted(image.array.shape) == [1, 48, 274, 384]
    assert image.spacing == pytest.approx((0.7, 2 / 3, 2 / 3), abs=1e-4)
    hippocampus = shared_data / "msd_hippocampus"
    path = min((hippocampus / "images").glob("*.nii.gz"))
    image = read_image(Location(path), 3)
    mask = read_mask(Location(hippocampus / "labels" / path.name), 3, 3)
    assert mask.array.shape == image.array.shape
    assert np.unique(mask.array).tolist() == [0, 1, 2]


def test_an_index_of_a_disc_is_no_series_whatever_its_name(tmp_path: Path) -> None:
    location = save_series(tmp_path / "ct", np.zeros((3, 4, 5), np.int16), [0.0, 1.0, 2.0])
    index = pydicom.Dataset()
    index.file_meta = FileMetaDataset()
    index.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    index.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    index.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    index.DirectoryRecordSequence = []
    index.save_as(location.path / "DIRFILE", enforce_file_format=True)
    assert read_image(location, 3).array.shape[-1] == 3


def deep_colours(path: Path) -> None:
    """Write a PNG of 16-bit colours, which Pillow itself cannot."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    rows = b"".join(b"\0" + np.full((5, 3), 513, ">u2").tobytes() for _ in range(4))
    header = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_colours_of_sixteen_bits_are_refused_rather_than_cut_to_eight(tmp_path: Path) -> None:
    deep_colours(tmp_path / "deep.png")
    with pytest.raises(UnreadableError, match="16 bits, of which only 8 could be read"):
        read_image(Location(tmp_path / "deep.png"), 2, colour=True)


def tiff(path: Path, values: np.ndarray, kind: int, planes: int = 1, shown: int = 1) -> None:
    """Write a TIFF of one strip a plane, of kinds that Pillow itself cannot write.

    Args:
        kind: SampleFormat: 1 without a sign, 2 with one.
        planes: How many colours lie one after the other: ``values`` has them as its first axis.
        shown: 0 where the least value is white.
    """
    rows, columns = values.shape[-2:]
    size, first = values.nbytes // planes, 256
    offsets = [first + plane * size for plane in range(planes)]
    bits, kinds = [8 * values.itemsize] * planes, [kind] * planes
    told = {256: [columns], 257: [rows], 258: bits, 259: [1], 262: [shown], 273: offsets}
    told |= {277: [planes], 278: [rows], 279: [size] * planes, 284: [1 + (planes > 1)], 339: kinds}
    beside, entries = b"", b""
    for tag, numbers in told.items():
        inner = struct.pack(f"<{len(numbers)}H", *numbers)
        if len(inner) > 4:
            place = struct.pack("<I", 10 + 12 * len(told) + 4 + len(beside))
            beside, inner = beside + inner, place
        entries += struct.pack("<HHI", tag, 3, len(numbers)) + inner.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<IH", 8, len(told)) + entries + bytes(4) + beside
    assert len(head) <= first
    path.write_bytes(
        head.ljust(first, b"\0") + values.astype(values.dtype.newbyteorder("<")).tobytes()
    )


@pytest.mark.parametrize(
    ("values", "kind", "shown", "expected"),
    [
        ([[-9, 100]], 2, 1, [[-9, 100]]),
        ([[7, 4_000_000_000]], 1, 1, [[7, 4_000_000_000]]),
        ([[7, 65_000]], 1, 0, [[65_528, 535]]),
    ],
    ids=["signed bytes", "large numbers", "white is zero"],
)
def test_a_tiff_is_read_as_its_tags_say(values, kind, shown, expected, tmp_path: Path) -> None:
    stored_as = {(2, 1): np.int8, (1, 1): np.uint32, (1, 0): np.uint16}[kind, shown]
    tiff(tmp_path / "one.tif", np.array(values, stored_as), kind, shown=shown)
    image = read_image(Location(tmp_path / "one.tif"), 2)
    assert image.array[0].tolist() == np.float32(expected).tolist()


def test_deep_colours_whose_planes_lie_apart_are_refused_too(tmp_path: Path) -> None:
    tiff(tmp_path / "deep.tif", np.full((3, 4, 5), 513, np.uint16), 1, planes=3, shown=2)
    with pytest.raises(UnreadableError, match="16 bits, of which only 8 could be read"):
        read_image(Location(tmp_path / "deep.tif"), 2, colour=True)


def test_a_gif_may_be_a_mask_but_not_a_film(tmp_path: Path) -> None:
    white = np.zeros((6, 7), np.uint8)
    white[2:4] = 255
    frame = Picture.fromarray(white)
    frame.save(tmp_path / "mask.gif")
    mask = read_mask(Location(tmp_path / "mask.gif"), 2, 2)
    assert mask.array[0].tolist() == (white > 0).astype(int).tolist()
    other = Picture.fromarray(255 - white)
    frame.save(tmp_path / "film.gif", save_all=True, append_images=[other])
    with pytest.raises(UnreadableError, match="it holds 2 pictures"):
        read_mask(Location(tmp_path / "film.gif"), 2, 2)
