"""A folder of DICOM is read by content, and no slice vanishes."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    BasicTextSRStorage,
    ComputedRadiographyImageStorage,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    NuclearMedicineImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)
from tests.support.clinic.dicom_objects import (
    PATIENT,
    bare,
    ct_slice,
    picture,
    save,
    save_ct,
    segmentation,
    structures,
)

from wardround.client.data.manifest.cells import parse_location
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.image import Image, UnreadableError
from wardround.client.data.reading.readers import read_image

VOLUME = np.random.default_rng(0).integers(-1000, 1000, (8, 5, 6)).astype(np.int16)


def read(path: Path, dimensions: int = 3, chosen: str | None = None) -> Image:
    return read_image(Location(path, chosen), dimensions)


def refusal(path: Path, dimensions: int = 3, chosen: str | None = None) -> str:
    with pytest.raises(UnreadableError) as caught:
        read(path, dimensions, chosen)
    text = str(caught.value)
    assert "Canary" not in text
    assert "CANARY" not in text
    assert "1.2.3" not in text
    assert str(path.parent) not in text
    return text


def is_volume(image: Image, volume: np.ndarray = VOLUME) -> None:
    np.testing.assert_array_equal(image.array[0], volume.transpose(2, 1, 0))


@pytest.mark.parametrize("suffix", ["", ".dcm", ".17"])
def test_slices_without_a_preamble_do_not_vanish(tmp_path: Path, suffix: str) -> None:
    for number, pixels in enumerate(VOLUME):
        path = tmp_path / "s" / f"I{number}{suffix}"
        save(ct_slice(pixels, (0, 0, number)), path, preamble=number < 5)
    is_volume(read(tmp_path / "s"))


def test_slices_without_any_header_group_are_read_as_they_are_written(tmp_path: Path) -> None:
    for number, pixels in enumerate(VOLUME):
        dataset = ct_slice(pixels, (0, 0, number))
        if number > 4:
            implicit = number % 2 == 0
            path = tmp_path / "s" / f"I{number}"
            path.parent.mkdir(exist_ok=True)
            pydicom.dcmwrite(
                path, pydicom.Dataset(dataset), implicit_vr=implicit, little_endian=True
            )
        else:
            save(dataset, tmp_path / "s" / f"I{number}")
    is_volume(read(tmp_path / "s"))


def test_what_a_mac_or_windows_leaves_in_a_folder_is_no_slice(tmp_path: Path) -> None:
    folder = save_ct(tmp_path / "s", VOLUME)
    for path in list(folder.iterdir()):
        (folder / f"._{path.name}").write_bytes(b"\x00\x05\x16\x07" + bytes(4092))
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" + bytes(100))
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100))
    (folder / "README").write_text("exported on a Monday", encoding="utf-8")
    (folder / "notes.txt").write_text("x", encoding="utf-8")
    save(bare("1.2.840.10008.1.3.10", DirectoryRecordSequence=[]), folder / "INDEXFILE")
    is_volume(read(folder))


@pytest.mark.parametrize("content", [b"", b"\0" * 600, b"<html>404 not found</html>"])
def test_a_damaged_file_among_slices_is_not_left_out(tmp_path: Path, content: bytes) -> None:
    folder = save_ct(tmp_path / "s", VOLUME[:7])
    (folder / "IM099.dcm").write_bytes(content)
    assert "1 of 8 files of the folder are damaged or empty" in refusal(folder)


def test_a_file_cut_in_its_header_is_not_left_out(tmp_path: Path) -> None:
    folder = save_ct(tmp_path / "s", VOLUME)
    path = folder / "IM000.dcm"
    path.write_bytes(path.read_bytes()[:150])
    assert "damaged" in refusal(folder)


@pytest.mark.parametrize("cut", [1, 30])
def test_a_file_cut_in_its_pixels_is_refused(tmp_path: Path, cut: int) -> None:
    folder = save_ct(tmp_path / "s", VOLUME)
    path = folder / "IM000.dcm"
    path.write_bytes(path.read_bytes()[:-cut])
    assert "damaged or cut short" in refusal(folder)


def test_reports_and_localisers_are_left_out_and_said(tmp_path: Path) -> None:
    folder = save_ct(tmp_path / "s", VOLUME)
    save(bare(KeyObjectSelectionDocumentStorage, SeriesInstanceUID="1.9"), folder / "kos.dcm")
    save(bare(BasicTextSRStorage, SeriesInstanceUID="1.8"), folder / "dose.dcm")
    scout = ct_slice(
        np.zeros((9, 9), np.int16),
        (0, 0, 0),
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
    )
    save(scout, folder / "scout.dcm")
    page = picture(
        np.zeros((20, 20, 3), np.uint8), SecondaryCaptureImageStorage, SeriesInstanceUID="1.7"
    )
    save(page, folder / "page.dcm")
    image = read(folder)
    is_volume(image)
    said = "; ".join(image.notes)
    assert "1 localiser left out" in said
    assert "1 screen page left out" in said
    assert "1 x Key Object Selection Document left out" in said
    assert "1 x Basic Text SR left out" in said


def test_several_series_are_counted_and_one_can_be_chosen(tmp_path: Path) -> None:
    folder = save_ct(tmp_path / "s", VOLUME)
    for number in range(3):
        dataset = ct_slice(VOLUME[number], (0, 0, number), SeriesInstanceUID="1.5", SeriesNumber=7)
        save(dataset, folder / f"other{number}.dcm")
    text = refusal(folder)
    assert "mixes 2 series (CT of 8 files, number 3; CT of 3 files, number 7)" in text
    assert "#series=4" in text
    is_volume(read(folder, chosen="series=3"))
    is_volume(read(folder, chosen="series=7"), VOLUME[:3])
    assert "no file of series 9" in refusal(folder, chosen="series=9")


def test_series_of_one_number_cannot_be_chosen_by_it(tmp_path: Path) -> None:
    folder = save_ct(tmp_path / "s", VOLUME)
    save(ct_slice(VOLUME[0], (0, 0, 0), SeriesInstanceUID="1.5"), folder / "other.dcm")
    assert "#series" not in refusal(folder)
    assert "there is 2 series of number 3 among 2" in refusal(folder, chosen="series=3")


def test_a_slice_that_stands_twice_is_read_once_and_its_twin_with_other_pixels_refused(
    tmp_path: Path,
) -> None:
    folder = save_ct(tmp_path / "s", VOLUME)
    (folder / "IM000 (1).dcm").write_bytes((folder / "IM000.dcm").read_bytes())
    image = read(folder)
    is_volume(image)
    assert "1 files that stand twice" in image.notes[0]
    twin = pydicom.dcmread(folder / "IM000.dcm")
    twin.PixelData = bytes(len(twin.PixelData))
    twin.save_as(folder / "IM000 (1).dcm")
    assert "same slice, but their pixels differ" in refusal(folder)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (segmentation([(1, (0, 0, 0), np.ones((4, 4)))], ["a"]), "segmentation (SEG): name it in"),
        (structures({"a": [[(0, 0, 0), (1, 0, 0), (1, 1, 0)]]}), "(RTSTRUCT): name it in"),
        (bare(BasicTextSRStorage), "no image but a DICOM Basic Text SR"),
        (bare("1.2.840.10008.5.1.4.1.1.11.1"), "Presentation State"),
        (bare(KeyObjectSelectionDocumentStorage), "Key Object Selection Document"),
        (bare("1.3.12.2.1107.5.9.1"), "object of a private kind"),
        (bare("1.2.840.10008.1.3.10"), "index of a disc (DICOMDIR)"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(
    tmp_path: Path, dataset: pydicom.Dataset, words: str
) -> None:
    assert words in refusal(save(dataset, tmp_path / "x.dcm"))


def test_a_folder_of_folders_says_so(tmp_path: Path) -> None:
    save_ct(tmp_path / "study" / "SE1", VOLUME)
    save_ct(tmp_path / "study" / "SE2", VOLUME)
    assert "no DICOM file of its own, but 2 folders" in refusal(tmp_path / "study")


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"FrameOfReferenceUID": "1.9"}, "2 systems of coordinates"),
        ({"ImageOrientationPatient": [0.99, 0.14, 0, -0.14, 0.99, 0]}, "differ in orientation"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "no pair of directions"),
        ({"PixelSpacing": [1, 1.1]}, "differ in pixel spacing"),
        ({"ImagePositionPatient": None}, "do not say where they lie"),
        ({"ImagePositionPatient": [0, 0, 15]}, "2 of 9 slices|gaps between slices"),
        ({"ImagePositionPatient": [0, 3, 14]}, "pixels beside each other without a rule"),
        ({"PixelData": None}, "1 of 8 files; CT Image"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"Rows": 6, "Columns": 5}, "different sizes"),
    ],
)
def test_one_slice_that_does_not_fit_is_found(
    tmp_path: Path, elements: dict[str, Any], words: str
) -> None:
    folder = save_ct(tmp_path / "s", VOLUME[:7])
    dataset = ct_slice(VOLUME[7], (0, 0, 14))
    for name, value in elements.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    save(dataset, folder / "last.dcm")
    with pytest.raises(UnreadableError, match=words):
        read(folder)


@pytest.mark.parametrize("lost", [2, 5])
def test_a_lost_slice_is_counted(tmp_path: Path, lost: int) -> None:
    folder = save_ct(tmp_path / "s", VOLUME)
    for path in folder.iterdir():
        if pydicom.dcmread(path).InstanceNumber == lost:
            path.unlink()
            break
    assert "1 of 8 slices seem to be missing" in refusal(folder)


def test_a_gap_that_grows_along_the_series_is_refused(tmp_path: Path) -> None:
    depths = np.cumsum([0.0, *[1.0] * 10, *[1.04] * 10])
    for number, depth in enumerate(depths):
        save(ct_slice(VOLUME[0], (0, 0, depth)), tmp_path / "s" / f"{number}.dcm")
    assert "gaps between slices go from 1.000 to 1.040 mm" in refusal(tmp_path / "s")


def test_positions_rounded_by_a_scanner_are_accepted(tmp_path: Path) -> None:
    for number in range(8):
        depth = round(number * 1.25, 1)
        save(ct_slice(VOLUME[number], (0, 0, depth)), tmp_path / "s" / f"{number}.dcm")
    is_volume(read(tmp_path / "s"))


def test_radiographs_in_a_folder_are_no_volume(tmp_path: Path) -> None:
    for number in range(3):
        dataset = picture(VOLUME[number].astype(np.uint16), ComputedRadiographyImageStorage)
        save(dataset, tmp_path / "s" / f"{number}.dcm")
    assert "3 images do not say where they lie" in refusal(tmp_path / "s")


def film(count: int = 5) -> pydicom.Dataset:
    frames = np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 6), np.uint8)
    return picture(
        frames, UltrasoundMultiFrameImageStorage, Modality="US", FrameTime=40.0, SliceThickness=1.0
    )


def test_a_film_is_no_volume_and_one_frame_of_it_can_be_chosen(tmp_path: Path) -> None:
    path = save(film(), tmp_path / "cine.dcm")
    text = refusal(path)
    assert "its 5 frames follow each other in time" in text
    assert "Ultrasound Multi-frame Image" in text
    assert "has 5 frames for a 2D study" in refusal(path, 2)
    assert (read(path, 2, "frame=middle").array == 2).all()
    assert (read(path, 2, "frame=4").array == 4).all()
    assert "there are 5 frames, counted from 0" in refusal(path, 2, "frame=5")


def test_a_frame_of_a_folder_is_chosen_by_its_place(tmp_path: Path) -> None:
    folder = save_ct(tmp_path / "s", VOLUME)
    np.testing.assert_array_equal(read(folder, 2, "frame=0").array[0], VOLUME[0])
    np.testing.assert_array_equal(read(folder, 2, "frame=middle").array[0], VOLUME[4])
    assert "one frame is no volume" in refusal(folder, 3, "frame=1")


@pytest.mark.parametrize("chosen", ["series=middle", "frame=x", "frame=1#frame=2"])
def test_a_choice_of_nothing_is_refused(tmp_path: Path, chosen: str) -> None:
    path = save(film(), tmp_path / "cine.dcm")
    assert "chooses nothing" in refusal(path, 2, chosen)


def test_a_cell_may_choose_and_other_signs_stay_in_the_name(tmp_path: Path) -> None:
    chosen = parse_location("study/#series=4#volume=0", tmp_path.joinpath)
    assert chosen == Location(tmp_path / "study", "series=4#volume=0")
    assert parse_location("study#4/x", tmp_path.joinpath) == Location(tmp_path / "study#4/x")
    assert parse_location("a.npz#train#3", tmp_path.joinpath) == Location(
        tmp_path / "a.npz", "train", 3
    )


def test_only_dicom_files_have_something_to_choose(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert "chooses among DICOM files" in refusal(tmp_path / "a.png", 2, "frame=1")


def test_warnings_of_a_file_are_not_printed(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    dataset = ct_slice(VOLUME[0], (0, 0, 0))
    path = save(dataset, tmp_path / "x.dcm")
    content = path.read_bytes()
    path.write_bytes(content.replace(PATIENT.encode(), PATIENT.encode()[:-4] + b"\xff\xfe47"))
    read(path)
    assert not [w for w in recwarn if "Canary" in str(w.message)]


def test_copies_of_uids_are_no_series(tmp_path: Path) -> None:
    uid = generate_uid()
    for number in range(2):
        dataset = ct_slice(VOLUME[number], (0, 0, number), SOPInstanceUID=uid, Modality="MR")
        dataset.SOPClassUID = MRImageStorage
        save(dataset, tmp_path / "s" / f"{number}.dcm")
    assert "pixels differ" in refusal(tmp_path / "s")


def test_slices_of_two_patients_are_no_series_whatever_its_uid(tmp_path: Path) -> None:
    folder = save_ct(tmp_path / "s", VOLUME)
    save(ct_slice(VOLUME[0], (0, 0, 16), PatientID="CANARY-other"), folder / "x.dcm")
    assert "files are of 2 patients" in refusal(folder)


def test_a_spacing_of_nothing_is_refused(tmp_path: Path) -> None:
    folder = save_ct(tmp_path / "s", VOLUME, PixelSpacing=[0, 1])
    assert "no positive pixel spacing" in refusal(folder)


def test_photographs_beside_slices_are_another_series_and_no_page(tmp_path: Path) -> None:
    folder = save_ct(tmp_path / "s", VOLUME)
    photograph = picture(
        np.zeros((4, 4, 3), np.uint8), "1.2.840.10008.5.1.4.1.1.77.1.4", SeriesInstanceUID="1.6"
    )
    save(photograph, folder / "x.dcm")
    assert "mixes 2 series" in refusal(folder)


def test_phases_at_one_place_are_chosen_in_a_flat_study(tmp_path: Path) -> None:
    for number in range(5):
        dataset = ct_slice(VOLUME[number], (0, 0, 0), TriggerTime=100.0 * (5 - number))
        save(dataset, tmp_path / "s" / f"{number}.dcm")
    assert "5 volumes of 1 slices, which differ in cardiac phase" in refusal(tmp_path / "s")
    image = read(tmp_path / "s", 2, "volume=0")
    np.testing.assert_array_equal(image.array[0], VOLUME[4])


@pytest.mark.parametrize(
    ("pointer", "is_volume_of_slices"),
    [
        (0x00540080, True),  # SliceVector
        ([0x00540010, 0x00540020], False),  # energies and detectors
        ([0x00540100, 0x00540080], False),  # time slots of a gated tomogram
    ],
)
def test_frames_of_nuclear_medicine_are_slices_only_where_they_say_so(
    tmp_path: Path, pointer: Any, is_volume_of_slices: bool
) -> None:
    dataset = picture(
        VOLUME.astype(np.uint16),
        NuclearMedicineImageStorage,
        SpacingBetweenSlices=3.0,
        PixelSpacing=[2.0, 2.0],
        FrameIncrementPointer=pointer,
    )
    path = save(dataset, tmp_path / "nm.dcm")
    if is_volume_of_slices:
        assert read(path).spacing == (2.0, 2.0, 3.0)
    else:
        assert "follow each other in time" in refusal(path)
