"""One DICOM file without what names its patient."""

from datetime import datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as draw
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from tests.unit.client.clinic.onboarding.made_dicom import SIZE, made_slice, with_meta

from wardround.client.clinic.onboarding.deidentification.canaries import Canaries, find_canary
from wardround.client.clinic.onboarding.deidentification.dates import (
    shift_date,
    shift_date_time,
    shift_time,
)
from wardround.client.clinic.onboarding.deidentification.dicom_file import (
    RefusedFileError,
    deidentify,
)
from wardround.client.clinic.onboarding.deidentification.keyed_maps import KeyedMaps
from wardround.client.clinic.onboarding.deidentification.options import DeidentificationOptions

MAPS = KeyedMaps(bytes(range(32)))
OPTIONS = DeidentificationOptions(burned_in_text="unchecked")


def _clean(source: Dataset, options: DeidentificationOptions = OPTIONS) -> Dataset:
    return deidentify(source, MAPS, options).dataset


def test_the_pixels_and_the_geometry_stay() -> None:
    source = made_slice(3)
    result = _clean(source)
    assert np.array_equal(result.pixel_array, source.pixel_array)
    for keyword in ("PixelSpacing", "ImagePositionPatient", "SliceThickness", "Modality"):
        assert result[keyword].value == source[keyword].value


def test_it_says_what_was_done_with_the_codes_of_the_options() -> None:
    options = OPTIONS.model_copy(update={"patient_characteristics": True})
    result = _clean(made_slice(), options)
    assert result.PatientIdentityRemoved == "YES"
    codes = [item.CodeValue for item in result.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113107", "113108"]
    assert result.LongitudinalTemporalInformationModified == "MODIFIED"
    removed = _clean(made_slice(), OPTIONS.model_copy(update={"dates": "removed"}))
    assert removed.LongitudinalTemporalInformationModified == "REMOVED"
    assert not removed.StudyDate


def test_intervals_of_a_patient_stay_and_two_patients_move_differently() -> None:
    def moment(dataset: Dataset) -> datetime:
        return datetime.strptime(dataset.StudyDate + dataset.StudyTime, "%Y%m%d%H%M%S")

    first = _clean(made_slice(StudyDate="20200229", StudyTime="235900"))
    second = _clean(made_slice(StudyDate="20210301", StudyTime="000100"))
    assert moment(second) - moment(first) == datetime(2021, 3, 1, 0, 1) - datetime(
        2020, 2, 29, 23, 59
    )
    other = _clean(made_slice(StudyDate="20200229", StudyTime="235900", PatientID="other"))
    assert moment(other) != moment(first)


def test_dates_keep_their_precision_and_nonsense_becomes_nothing() -> None:
    assert shift_date_time("2021", -86400 * 400) == "2019"
    assert shift_date_time("20210504093011.25+0200", -86401) == "20210503093010.25+0200"
    assert shift_time("0930", -60) == "092900"
    assert shift_date("2021.05.04", -86400) == "20210503"
    assert shift_date("00010101", -86400) == ""
    assert shift_date("Schmidt", -1) == shift_time("99", -1) == shift_date_time("x", -1) == ""


def test_a_birth_date_is_not_moved_but_gone() -> None:
    assert not _clean(made_slice()).PatientBirthDate


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("BodyPartExamined", "SCHMIDT"),
        ("BodyPartExamined", "HEAD ERIKA"),
        ("ImageType", ["ORIGINAL", "MRN-004711"]),
    ],
)
def test_a_name_in_an_attribute_that_is_kept_refuses_the_file(keyword: str, value: object) -> None:
    with pytest.raises(RefusedFileError) as refused:
        _clean(made_slice(**{keyword: value}))
    assert "SCHMIDT" not in str(refused.value)


def test_a_name_in_a_text_that_is_kept_is_taken_out_there() -> None:
    assert _clean(made_slice(ManufacturerModelName="of Erika")).ManufacturerModelName == "REMOVED"


@pytest.mark.parametrize("text", ["of 04.05.2021", "2021-05-04", "born 03/02/1961"])
def test_a_day_in_a_text_that_is_kept_is_taken_out_there(text: str) -> None:
    assert _clean(made_slice(ManufacturerModelName=text)).ManufacturerModelName == "REMOVED"


def test_a_name_in_a_number_is_removed() -> None:
    source = made_slice()
    source.add(DataElement("EchoTime", "LO", "Schmidt"))
    assert "EchoTime" not in _clean(source)


def test_private_attributes_go_but_for_those_that_are_declared_safe() -> None:
    source = made_slice()
    block = source.private_block(0x0043, "GEMS_PARM_01", create=True)
    block.add_new(0x39, "IS", "1000")
    block.add_new(0x40, "LO", "Schmidt")
    assert not [element for element in _clean(source) if element.tag.is_private]
    safe = OPTIONS.model_copy(update={"safe_private": ("0043,GEMS_PARM_01,39",)})
    result = _clean(source, safe)
    assert result.private_block(0x0043, "GEMS_PARM_01")[0x39].value == 1000
    assert len([element for element in result if element.tag.is_private]) == 2


def test_an_old_overlay_in_the_unused_bits_of_the_pixels_is_cleared() -> None:
    source = made_slice()
    pixels = source.pixel_array.copy()
    source.PixelData = (pixels | 0x8000).tobytes()
    source.add_new((0x6000, 0x0102), "US", 15)
    assert np.array_equal(_clean(source).pixel_array, pixels)


def test_bytes_behind_the_last_pixel_are_cut_off() -> None:
    source = made_slice()
    source.PixelData = source.PixelData + b"Schmidt^Erika "
    result = _clean(source)
    assert len(result.PixelData) == 2 * SIZE * SIZE


def test_a_comment_in_a_jpeg_frame_is_taken_out() -> None:
    import io

    from PIL import Image
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    stream = io.BytesIO()
    Image.fromarray(np.full((SIZE, SIZE), 90, np.uint8)).save(stream, "JPEG", comment="E. Schmidt")
    source = made_slice(BitsAllocated=8, BitsStored=8, HighBit=7)
    source.PixelData = encapsulate([stream.getvalue()])
    source["PixelData"].VR = "OB"
    source["PixelData"].is_undefined_length = True
    source.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    assert b"Schmidt" in source.PixelData
    assert b"Schmidt" not in _clean(source).PixelData


def test_a_comment_in_a_jpeg_2000_frame_is_taken_out() -> None:
    import io

    from PIL import Image
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless

    stream = io.BytesIO()
    pixels = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE)
    Image.fromarray(pixels).save(stream, "JPEG2000", comment="E. Schmidt", no_jp2=True)
    assert b"Schmidt" in stream.getvalue()
    source = made_slice(BitsAllocated=8, BitsStored=8, HighBit=7)
    source.PixelData = encapsulate([stream.getvalue()])
    source["PixelData"].VR = "OB"
    source["PixelData"].is_undefined_length = True
    source.file_meta.TransferSyntaxUID = JPEG2000Lossless
    result = _clean(source)
    assert b"Schmidt" not in result.PixelData
    assert np.array_equal(result.pixel_array, pixels)


def test_a_chinese_name_in_a_text_that_is_kept_is_taken_out() -> None:
    source = made_slice(PatientName="王^小東", SpecificCharacterSet="ISO_IR 192")
    source.ManufacturerModelName = "小東的機器"
    assert _clean(source).ManufacturerModelName == "REMOVED"


def test_a_file_without_a_patient_is_refused() -> None:
    with pytest.raises(RefusedFileError, match="names no patient"):
        _clean(made_slice(PatientID=" "))


def test_sequences_without_end_are_refused() -> None:
    source = inner = made_slice()
    for _ in range(60):
        item = Dataset()
        inner.SharedFunctionalGroupsSequence = Sequence([item])
        inner = item
    with pytest.raises(RefusedFileError, match="too deep"):
        _clean(source)


def test_the_check_finds_what_a_wrong_rule_would_leave() -> None:
    source = made_slice()
    canaries = Canaries()
    for element in source:
        canaries.add(element)
    left = made_slice(InstanceNumber=7)
    assert find_canary(canaries, left, b"") is not None
    nothing = Dataset()
    assert find_canary(canaries, nothing, b"...Schmidt^Erika...".lower()) is None  # parts are short
    assert find_canary(canaries, nothing, b"..1.2.826.55.1.2..") == "a text"


_TEXT_KINDS = {"LO", "SH", "PN", "LT", "ST", "UT", "UC", "CS", "UI", "DA"}
_VALUES = {"UI": "1.2.840.99999.4711.8.15", "DA": "20130717", "CS": "ZIMMERMANNOVA", "SH": "887766"}
_TEXT_TAGS = sorted(
    tag
    for tag, entry in DicomDictionary.items()
    if entry[0] in _TEXT_KINDS and tag >> 16 >= 8 and tag >> 16 not in (0x5000, 0x6000)
)
_SEQUENCES = sorted(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")


_FREE_TEXT_TAGS = [tag for tag in _TEXT_TAGS if DicomDictionary[tag][0] != "CS"]


@draw.composite
def nested(pick: draw.DrawFn, tags: list[int], depth: int = 0) -> Dataset:
    """Draw a data set with the patient's name in any texts, in sequences in sequences."""
    dataset = Dataset()
    for tag in pick(draw.lists(draw.sampled_from(tags), max_size=6, unique=True)):
        kind = DicomDictionary[tag][0]
        value = pick(draw.sampled_from(["Zimmermannova", "zimmermannova jana", "MRN-887766"]))
        dataset.add(DataElement(Tag(tag), kind, _VALUES.get(kind, value)))
    if depth < 3:
        for tag in pick(draw.lists(draw.sampled_from(_SEQUENCES), max_size=2, unique=True)):
            dataset.add(DataElement(Tag(tag), "SQ", Sequence([pick(nested(tags, depth + 1))])))
    return dataset


def _with_all_of(drawn: Dataset) -> Dataset:
    source = made_slice()
    for element in drawn:
        if element.keyword not in ("SpecificCharacterSet", "SOPClassUID", "TransferSyntaxUID"):
            source[element.tag] = element
    source.PatientID, source.PatientName = "MRN-887766", "Zimmermannova^Jana"
    return with_meta(source)


def _check_nothing_left(content: bytes) -> None:
    for word in (b"zimmermannova", b"887766", b"99999.4711.8.15", b"20130717"):
        assert word not in content.lower()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(nested(_TEXT_TAGS))
def test_a_name_anywhere_is_gone_or_the_file_is_refused(drawn: Dataset) -> None:
    try:
        content = deidentify(_with_all_of(drawn), MAPS, OPTIONS).content
    except RefusedFileError:
        return
    _check_nothing_left(content)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(nested(_FREE_TEXT_TAGS))
def test_a_name_in_any_text_is_gone_and_the_file_is_taken(drawn: Dataset) -> None:
    _check_nothing_left(deidentify(_with_all_of(drawn), MAPS, OPTIONS).content)
