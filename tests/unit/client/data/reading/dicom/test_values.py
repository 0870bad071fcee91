"""Stored numbers become values with a meaning: Hounsfield units, brightness, colours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    MRImageStorage,
    RLELossless,
    UltrasoundImageStorage,
)
from tests.support.clinic.dicom_objects import ct_slice, picture, save, sequence

from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.image import Image, MaskTarget, UnreadableError
from wardround.client.data.reading.readers import read_image, read_mask

SIGNED = np.array([[-2000, -1000, 0], [40, 1000, 3000]], np.int16)


def read(path: Path, colour: bool = False) -> Image:
    return read_image(Location(path), 2, colour)


def values_of(tmp_path: Path, dataset: Any) -> np.ndarray:
    return read(save(dataset, tmp_path / "x.dcm")).array[0]


@pytest.mark.parametrize(
    ("stored", "elements", "wanted"),
    [
        # Signed, in Hounsfield units as stored; the scanner's circle of -2000 is air.
        (SIGNED, {}, [[-1024, -1000, 0], [40, 1000, 3000]]),
        # Unsigned with an offset, as most scanners write it.
        ((SIGNED + 2000).astype(np.uint16), {"RescaleIntercept": -2000}, None),
        ((SIGNED + 2000).astype(np.uint16), {"RescaleIntercept": -2000, "RescaleType": "HU"}, None),
        # A slope of a half.
        (SIGNED // 2 * 2, {"RescaleSlope": 0.5}, [[-1000, -500, 0], [20, 500, 1500]]),
        # Signed without a rescale: the numbers are the units.
        (SIGNED, {"RescaleSlope": None, "RescaleIntercept": None}, None),
        # Padding, written with the sign of the pixels and with the other one.
        (SIGNED, {"PixelPaddingValue": -2000}, None),
        (
            (SIGNED + 2000).astype(np.uint16),
            {"PixelPaddingValue": 0, "RescaleIntercept": -2000},
            None,
        ),
        # Padding inside the range of the body, up to a limit.
        (
            np.array([[3000, 3001, 40]], np.int16),
            {"PixelPaddingValue": 3000, "PixelPaddingRangeLimit": 3001},
            [[-1024, -1024, 40]],
        ),
        # Grey the other way round is for the screen: units stay units.
        (SIGNED, {"PhotometricInterpretation": "MONOCHROME1"}, None),
        # A window of the viewer is not applied.
        (SIGNED, {"WindowCenter": 40, "WindowWidth": 400}, None),
    ],
)
def test_a_ct_comes_in_hounsfield_units(
    tmp_path: Path, stored: np.ndarray, elements: dict[str, Any], wanted: list[list[int]] | None
) -> None:
    found = values_of(tmp_path, ct_slice(stored, (0, 0, 0), **elements))
    np.testing.assert_array_equal(found, np.maximum(SIGNED, -1024) if wanted is None else wanted)


def test_a_ct_that_does_not_say_its_units_is_refused(tmp_path: Path) -> None:
    dataset = ct_slice(
        (SIGNED + 2000).astype(np.uint16), (0, 0, 0), RescaleSlope=None, RescaleIntercept=None
    )
    with pytest.raises(UnreadableError, match="RescaleIntercept, so its Hounsfield units are unk"):
        values_of(tmp_path, dataset)


def test_a_ct_in_other_units_is_left_in_them(tmp_path: Path) -> None:
    dataset = ct_slice(SIGNED, (0, 0, 0), RescaleType="Z_EFF", RescaleSlope=1, RescaleIntercept=0)
    np.testing.assert_array_equal(values_of(tmp_path, dataset), SIGNED)


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_modality_lut_is_applied(tmp_path: Path, photometric: str, as_bytes: bool) -> None:
    stored = np.array([[0, 1], [2, 3]], np.uint8)
    table = np.array([0, 10, 400, 4095], np.uint16)
    lut = {"LUTDescriptor": [4, 0, 12], "ModalityLUTType": "OD", "LUTData": table.tobytes()}
    dataset = picture(
        stored,
        ComputedRadiographyImageStorage,
        PhotometricInterpretation=photometric,
        ModalityLUTSequence=sequence(lut),
    )
    if not as_bytes:
        dataset.ModalityLUTSequence[0].add_new("LUTData", "US", table.tolist())
    wanted = table[stored].astype(int)
    if photometric == "MONOCHROME1":
        wanted = 4095 - wanted
    np.testing.assert_array_equal(values_of(tmp_path, dataset), wanted)


def test_padding_of_a_radiograph_is_its_darkest_value(tmp_path: Path) -> None:
    stored = np.array([[4095, 100], [200, 300]], np.uint16)
    dataset = picture(
        stored, ComputedRadiographyImageStorage, BitsStored=12, HighBit=11, PixelPaddingValue=4095
    )
    np.testing.assert_array_equal(values_of(tmp_path, dataset), [[100, 100], [200, 300]])
    # Burnt white in MONOCHROME1, where 0 is white.
    dark = picture(
        np.array([[0, 100], [200, 300]], np.uint16),
        ComputedRadiographyImageStorage,
        BitsStored=12,
        HighBit=11,
        PhotometricInterpretation="MONOCHROME1",
        PixelPaddingValue=0,
    )
    np.testing.assert_array_equal(values_of(tmp_path, dark), [[3795, 3995], [3895, 3795]])


def test_rescale_of_each_slice_is_its_own(tmp_path: Path) -> None:
    for number in range(3):
        dataset = ct_slice(
            SIGNED,
            (0, 0, number),
            RescaleSlope=1 + number,
            SOPClassUID=MRImageStorage,
            Modality="MR",
        )
        save(dataset, tmp_path / "s" / f"{number}.dcm")
    image = read_image(Location(tmp_path / "s"), 3)
    for number in range(3):
        np.testing.assert_array_equal(image.array[0, :, :, number], SIGNED.T * (1 + number))


@pytest.mark.parametrize("signed", [False, True])
def test_bits_of_an_overlay_are_no_part_of_the_values(tmp_path: Path, signed: bool) -> None:
    wanted = np.array([[-5, 7], [-2048, 2047]]) if signed else np.array([[0, 7], [4095, 99]])
    stored = (wanted & 0x0FFF) | np.array([[0xF000, 0x1000], [0x0000, 0x8000]])
    dataset = picture(
        stored.astype(np.uint16),
        MRImageStorage,
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=int(signed),
    )
    np.testing.assert_array_equal(values_of(tmp_path, dataset), wanted)


@pytest.mark.parametrize("signed", [False, True])
def test_values_that_begin_at_a_higher_bit_are_moved_down(tmp_path: Path, signed: bool) -> None:
    wanted = np.array([[-5, 7], [-2048, 2047]]) if signed else np.array([[0, 7], [4095, 99]])
    stored = ((wanted & 0x0FFF) << 4) | np.array([[0xF, 0x1], [0x0, 0x8]])
    dataset = picture(
        stored.astype(np.uint16),
        MRImageStorage,
        BitsStored=12,
        HighBit=15,
        PixelRepresentation=int(signed),
    )
    np.testing.assert_array_equal(values_of(tmp_path, dataset), wanted)


RGB = np.random.default_rng(2).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def palette(bits: int, scale: int, held_as_bytes: bool = False) -> Any:
    """Return a picture of 4 colours by a palette."""
    indices = np.array([[0, 1], [2, 3]], np.uint8)
    dataset = picture(indices, UltrasoundImageStorage, PhotometricInterpretation="PALETTE COLOR")
    for name, table in zip(("Red", "Green", "Blue"), COLOURS.T, strict=True):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [4, 0, bits])
        data = table.astype(np.uint8 if held_as_bytes else "<u2") * scale
        setattr(dataset, f"{name}PaletteColorLookupTableData", data.tobytes())
    return dataset


COLOURS = np.array([[0, 0, 0], [255, 0, 17], [128, 64, 32], [1, 254, 255]])


@pytest.mark.parametrize(
    ("bits", "scale", "held_as_bytes"),
    [(16, 256, False), (16, 257, False), (16, 1, False), (8, 1, True)],
)
def test_colours_of_a_palette_are_on_the_scale_of_bytes(
    tmp_path: Path, bits: int, scale: int, held_as_bytes: bool
) -> None:
    path = save(palette(bits, scale, held_as_bytes), tmp_path / "p.dcm")
    image = read(path, colour=True)
    np.testing.assert_array_equal(image.array.transpose(1, 2, 0).reshape(-1, 3), COLOURS)
    assert image.eight_bit
    grey = read(path)
    np.testing.assert_allclose(grey.array.ravel(), COLOURS @ [0.299, 0.587, 0.114], rtol=1e-5)


def test_a_palette_of_a_mask_is_left_as_labels(tmp_path: Path) -> None:
    path = save(palette(16, 256), tmp_path / "p.dcm")
    mask = read_mask(Location(path), 2, 4, target=MaskTarget(("a", "b", "c", "d")))
    assert mask.array[0].tolist() == [[0, 1], [2, 3]]


def test_planes_of_colour_may_follow_each_other(tmp_path: Path) -> None:
    dataset = picture(RGB, UltrasoundImageStorage, PlanarConfiguration=1)
    dataset.PixelData = RGB.transpose(2, 0, 1).tobytes()
    image = read(save(dataset, tmp_path / "x.dcm"), colour=True)
    np.testing.assert_array_equal(image.array.transpose(1, 2, 0), RGB)


def ybr(rgb: np.ndarray) -> np.ndarray:
    """Return full-range YCbCr (PS3.3 C.7.6.3.1.2)."""
    matrix = np.array(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    )
    return np.clip(np.round(rgb @ matrix.T + [0, 128, 128]), 0, 255).astype(np.uint8)


def test_luminance_and_colour_differences_become_red_green_and_blue(tmp_path: Path) -> None:
    full = picture(ybr(RGB), UltrasoundImageStorage, PhotometricInterpretation="YBR_FULL")
    image = read(save(full, tmp_path / "f.dcm"), colour=True)
    np.testing.assert_allclose(image.array.transpose(1, 2, 0), RGB, atol=3)
    # 4:2:2: two pixels share their colour differences.
    pairs = np.repeat(RGB[:, ::2], 2, axis=1)
    halved = ybr(pairs).reshape(-1, 2, 3)
    bytes_ = np.stack([halved[:, 0, 0], halved[:, 1, 0], halved[:, 0, 1], halved[:, 0, 2]], axis=1)
    half = picture(pairs, UltrasoundImageStorage, PhotometricInterpretation="YBR_FULL_422")
    half.PixelData = bytes_.tobytes()
    image = read(save(half, tmp_path / "h.dcm"), colour=True)
    np.testing.assert_allclose(image.array.transpose(1, 2, 0), pairs, atol=3)


def test_other_kinds_of_colour_are_refused(tmp_path: Path) -> None:
    dataset = picture(RGB, UltrasoundImageStorage, PhotometricInterpretation="HSV")
    with pytest.raises(UnreadableError, match="stored in a way that is not read"):
        values_of(tmp_path, dataset)


def test_a_header_that_claims_too_much_asks_for_no_memory(tmp_path: Path) -> None:
    dataset = ct_slice(SIGNED, (0, 0, 0), NumberOfFrames=10_000_000)
    dataset.Rows = dataset.Columns = 65_000
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00abcd"
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(UnreadableError, match="claims 10000000 frames"):
        values_of(tmp_path, dataset)


def test_the_spacing_of_an_ultrasound_is_that_of_its_one_region(tmp_path: Path) -> None:
    region = {
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.02,
        "PhysicalDeltaY": 0.03,
    }
    dataset = picture(RGB, UltrasoundImageStorage, SequenceOfUltrasoundRegions=sequence(region))
    assert read(save(dataset, tmp_path / "x.dcm")).spacing == pytest.approx((0.3, 0.2))


def test_the_sop_class_tells_a_ct_where_the_modality_is_missing(tmp_path: Path) -> None:
    dataset = ct_slice(SIGNED, (0, 0, 0), Modality=None)
    assert dataset.SOPClassUID == CTImageStorage
    assert values_of(tmp_path, dataset).min() == -1024


@pytest.mark.parametrize(
    ("stored", "padding", "wanted"),
    [
        # Zeros are the air of an MR, and stay.
        ([[0, 0], [50, 900]], 0, [[0, 0], [50, 900]]),
        ([[-2000, 0], [50, 900]], -2000, [[0, 0], [50, 900]]),
        ([[0, -5], [50, 900]], 0, [[-5, -5], [50, 900]]),
        ([[7, 7], [7, 7]], 7, [[7, 7], [7, 7]]),
    ],
)
def test_padding_of_an_mr_is_no_hole_in_its_air(
    tmp_path: Path, stored: list[list[int]], padding: int, wanted: list[list[int]]
) -> None:
    dataset = picture(
        np.array(stored, np.int16), MRImageStorage, Modality="MR", PixelPaddingValue=padding
    )
    np.testing.assert_array_equal(values_of(tmp_path, dataset), wanted)


def test_pixels_of_floating_point_are_read(tmp_path: Path) -> None:
    wanted = np.array([[0.5, -1.25], [3.0, 1e6]], np.float32)
    dataset = picture(np.zeros((2, 2), np.uint16), "1.2.840.10008.5.1.4.1.1.30")
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, name)
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = wanted.tobytes()
    np.testing.assert_array_equal(values_of(tmp_path, dataset), wanted)
