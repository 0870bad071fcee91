"""PS3.15's whole table filled with canaries, at the top level and inside a sequence."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pydicom
import pytest
from dicomanonymizer.simpledicomanonymizer import initialize_actions
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from tests.unit.client.clinic.onboarding.made_dicom import made_slice, with_meta

from wardround.client.clinic.onboarding.deidentification.dicom_file import deidentify
from wardround.client.clinic.onboarding.deidentification.keyed_maps import KeyedMaps
from wardround.client.clinic.onboarding.deidentification.options import DeidentificationOptions

MAPS = KeyedMaps(bytes(range(32)))
STRICT = DeidentificationOptions(dates="removed", burned_in_text="unchecked")
USUAL = DeidentificationOptions(burned_in_text="unchecked")
_NO_CANARY = ("SQ",)


def _canary(kind: str, number: int) -> Any:
    """Return a value of a kind that stands nowhere else."""
    day = f"19{number % 80 + 10:02}{number % 12 + 1:02}{number % 28 + 1:02}"
    values: dict[str, Any] = {
        "UI": f"1.2.840.99999.77.{number}.1",
        "DA": day,
        "DT": f"{day}{number % 24:02}{number % 60:02}11.{number:06}",
        "TM": f"{number % 24:02}{number % 60:02}{number % 59:02}.{number:06}",
        "AS": f"{number % 900 + 100:03}M",
        "DS": f"{7000 + number}.125",
        "IS": str(7_000_000 + number),
        "US": 40_000 + number,
        "OB": f"CANARYBYTES{number:04}X".encode(),
        "UN": f"CANARYBYTES{number:04}X".encode(),
        "CS": f"CANARY {number:04}",
        "PN": f"CanaryName{number:04}^Given{number:04}",
        "UR": f"http://canary{number:04}.example.org/x",
        "AE": f"CANARYAE{number:04}",
    }
    return values.get(kind, f"Canary text {number:04}")


def _elements() -> Iterator[DataElement]:
    """Yield an element for each row of the table; a sequence holds a canary itself."""
    rows = sorted(tag for tag in initialize_actions("dicomfields_2026c") if len(tag) == 2)
    for number, place in enumerate(rows):
        tag = Tag(place)
        if tag.group in (0x0000, 0x0002) or tag.is_private:
            continue  # commands are in no file; the file's meta information is looked at below
        kind = dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"
        if kind == "SQ":
            item = Dataset()
            item.PatientComments = f"Canary text {number:04}"
            item.add_new((0x0009, 0x0010), "LO", "CANARYCREATOR")
            item.add_new((0x0009, 0x1001), "LO", f"Canary text {number:04}")
            yield DataElement(tag, "SQ", Sequence([item]))
        else:
            yield DataElement(tag, kind, _canary(kind, number))


def _filled() -> Dataset:
    dataset = made_slice()
    nested = Dataset()
    for element in _elements():
        dataset.add(element)
        nested.add(element)
    for place in (dataset, nested):
        place.add_new((0x0029, 0x0010), "LO", "CANARY VENDOR")
        place.add_new((0x0029, 0x1010), "OB", b"CANARY private bytes 1")
        place.add_new((0x6000, 0x3000), "OW", b"CANARY overlay 1")
        place.add_new((0x6000, 0x4000), "LT", "Canary overlay text")
        place.add_new((0x5000, 0x3000), "OW", b"CANARY curve 01 ")
    outer = Dataset()
    outer.ReferencedSegmentNumber = 1
    outer.add_new(tag_for_keyword("DerivationImageSequence") or 0, "SQ", Sequence([nested]))
    dataset.add_new(tag_for_keyword("SharedFunctionalGroupsSequence") or 0, "SQ", Sequence([outer]))
    return with_meta(dataset)


def _leaves(dataset: Dataset) -> Iterator[tuple[str, str]]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _leaves(item)
        elif element.keyword != "PixelData":
            values = element.value if element.VM > 1 else [element.value]
            yield from ((element.VR, str(value)) for value in values)


def _left(options: DeidentificationOptions) -> set[tuple[str, str]]:
    """Return the canaries that are values of the result, with what they represent."""
    filled = _filled()
    planted = {
        (element.VR, str(value))
        for element in _elements()
        if element.VR != "SQ"
        for value in ([element.value] if element.VM <= 1 else element.value)
    }
    result = deidentify(filled, MAPS, options)
    assert b"canary" not in result.content.lower()
    return planted & set(_leaves(result.dataset))


def test_more_than_1090_canaries_are_planted() -> None:
    assert 2 * len(list(_elements())) > 1090


@pytest.mark.parametrize("options", [STRICT, USUAL])
def test_no_attribute_of_the_table_is_left_at_the_top_nor_in_a_sequence(
    options: DeidentificationOptions,
) -> None:
    assert _left(options) == set()


def test_with_options_only_what_they_declare_is_left() -> None:
    options = DeidentificationOptions(
        patient_characteristics=True, device_identity=True, burned_in_text="unchecked"
    )
    filled = _filled()
    filled.PatientWeight, filled.PatientSex, filled.PatientAge = "81.5", "F", "093Y"
    result = deidentify(filled, MAPS, options).dataset
    assert (result.PatientWeight, result.PatientSex, result.PatientAge) == (81.5, "F", "090Y")
    assert result.StationName == filled.StationName
    assert "OtherPatientNames" not in result


def test_two_processes_map_the_same_uid_to_the_same_uid() -> None:
    script = (
        "import json, sys\n"
        "from wardround.client.clinic.onboarding.deidentification.keyed_maps import KeyedMaps\n"
        "maps = KeyedMaps(bytes(range(32)))\n"
        "print(json.dumps([maps.uid('1.2.826.55.1'), maps.pseudonym('MRN-004711'),"
        " maps.offset_seconds('MRN-004711')]))\n"
    )
    run = [sys.executable, "-c", script]
    first, second = (
        json.loads(subprocess.run(run, capture_output=True, check=True).stdout) for _ in range(2)
    )
    assert first == second
    assert first[0] == deidentify(made_slice(), MAPS, USUAL).dataset.StudyInstanceUID


def test_a_uid_is_mapped_alike_in_the_file_meta_at_the_top_and_in_references() -> None:
    source = made_slice()
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    source.SourceImageSequence = Sequence([reference])
    content = deidentify(source, MAPS, USUAL).content
    result = pydicom.dcmread(io.BytesIO(content))
    mapped = result.SOPInstanceUID
    assert mapped == MAPS.uid(source.SOPInstanceUID)
    assert result.file_meta.MediaStorageSOPInstanceUID == mapped
    assert result.SourceImageSequence[0].ReferencedSOPInstanceUID == mapped
    assert result.SourceImageSequence[0].ReferencedSOPClassUID == source.SOPClassUID
    assert content[:128] == bytes(128)
