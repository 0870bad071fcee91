"""Compressed pixels are those of the uncompressed file, and a missing decoder is named."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import get_decoder
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    RLELossless,
)
from tests.support.clinic.dicom_objects import ct_slice, picture, save, save_ct

from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.dicom.dates import examination_date
from wardround.client.data.reading.dicom.pixels import decoded
from wardround.client.data.reading.image import Image, UnreadableError
from wardround.client.data.reading.readers import read_image

PIXELS = np.random.default_rng(6).integers(-1000, 1000, (20, 30)).astype(np.int16)


def real(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    if found is None:
        pytest.skip(f"pydicom comes without {name}")
    return Path(str(found))


def read(path: Path, colour: bool = False) -> Image:
    return read_image(Location(path), 2, colour)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_lossless_files_have_the_pixels_of_their_original(name: str) -> None:
    np.testing.assert_array_equal(read(real(name)).array, read(real("MR_small.dcm")).array)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("SC_rgb_rle.dcm", 0),
        ("SC_rgb_jpeg_gdcm.dcm", 0),
        ("SC_rgb_gdcm_KY.dcm", 2),
        ("SC_ybr_full_422_uncompressed.dcm", 5),
        ("SC_rgb_jpeg_dcmtk.dcm", 5),
        ("SC_rgb_dcmtk_+eb+cr.dcm", 2),
        ("SC_rgb_dcmtk_+eb+cy+np.dcm", 5),
        ("SC_rgb_dcmtk_+eb+cy+s4.dcm", 5),
    ],
)
def test_colours_of_a_test_chart_are_right(name: str, tolerance: int) -> None:
    chart = [(255, 0, 0), (255, 128, 128), (0, 255, 0), (128, 255, 128), (0, 0, 255)]
    image = read(real(name), colour=True)
    found = image.array[:, [5, 15, 25, 35, 45], 50].T
    np.testing.assert_allclose(found, chart, atol=tolerance)
    assert image.eight_bit


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, ExplicitVRBigEndian],
)
def test_pixels_are_the_same_in_every_syntax(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    dataset = ct_slice(PIXELS, (0, 0, 0))
    path = tmp_path / "x.dcm"
    if syntax == RLELossless:
        dataset.compress(RLELossless)
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = PIXELS.astype(">i2").tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    save(dataset, path)
    np.testing.assert_array_equal(read(path).array[0], PIXELS)


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("stored", [0, 1, 4])
@pytest.mark.parametrize("size", [(3, 5), (4, 6)])
def test_plain_pixels_are_those_that_pydicom_reads(
    kind: str, stored: int, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(7).integers(0, 2**16, size).astype(kind)
    dataset = picture(pixels, MRImageStorage)
    dataset.BitsStored -= stored
    dataset.HighBit -= stored
    dataset.PixelData += b"\0" * (len(dataset.PixelData) % 2)
    found = decoded(dataset)[0]
    wanted = pydicom.pixels.pixel_array(dataset)
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == wanted.dtype


def test_a_missing_decoder_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    path = real("MR_small_jp2klossless.dcm")
    monkeypatch.setattr(get_decoder(JPEG2000Lossless), "_available", {})
    with pytest.raises(UnreadableError, match=r"JPEG 2000.*no decoder.*pip install .pylibjpeg"):
        read(path)


def test_a_video_is_called_so(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(real("MR_small_jp2klossless.dcm"))
    dataset.file_meta.TransferSyntaxUID = MPEG4HP41
    with pytest.raises(UnreadableError, match=r"it is a video .*MPEG"):
        read(save(dataset, tmp_path / "x.dcm"))


def test_a_private_syntax_is_refused_without_its_uid(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(real("MR_small_jp2klossless.dcm"))
    dataset.file_meta.TransferSyntaxUID = "1.2.840.113619.5.9"
    with pytest.raises(UnreadableError) as caught:
        read(save(dataset, tmp_path / "x.dcm"))
    assert "compressed in a private way" in str(caught.value)
    assert "1.2.840" not in str(caught.value)


def test_a_damaged_code_stream_is_not_taken_for_a_missing_decoder(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(real("MR_small_jp2klossless.dcm"))
    assert dataset.file_meta.TransferSyntaxUID == JPEG2000Lossless
    dataset.PixelData = dataset.PixelData[:200] + bytes(100)
    with pytest.raises(UnreadableError, match="cannot be decoded"):
        read(save(dataset, tmp_path / "x.dcm"))


@pytest.mark.parametrize(
    ("elements", "wanted"),
    [
        (
            {"StudyDate": "20260131", "StudyTime": "083015.5"},
            datetime(2026, 1, 31, 8, 30, 15, 500000),
        ),
        ({"StudyDate": "20260131"}, datetime(2026, 1, 31)),
        ({"StudyDate": "2026.01.31", "StudyTime": "08:30:15"}, datetime(2026, 1, 31, 8, 30, 15)),
        (
            {"AcquisitionDateTime": "20260131083015.5+0100"},
            datetime(2026, 1, 31, 8, 30, 15, 500000),
        ),
        ({"StudyDate": "", "SeriesDate": "20260201", "SeriesTime": "10"}, datetime(2026, 2, 1, 10)),
        ({"StudyDate": "99999999"}, None),
        ({}, None),
    ],
)
def test_an_examination_has_a_date(
    tmp_path: Path, elements: dict[str, str], wanted: datetime | None
) -> None:
    folder = save_ct(tmp_path / "s", PIXELS[np.newaxis], **elements)
    assert examination_date(folder) == wanted
    assert examination_date(next(folder.iterdir())) == wanted


def test_what_is_no_dicom_has_no_date(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"x" * 1000)
    assert examination_date(tmp_path / "x.dcm") is None
    assert examination_date(tmp_path / "absent") is None
