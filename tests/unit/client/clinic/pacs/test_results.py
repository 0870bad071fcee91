"""Results as DICOM and FHIR objects: right voxels, names that follow, nothing for diagnosis."""

import io
import json
import random
from pathlib import Path

import numpy as np
import pydicom
import pytest
from tests.support.clinic.dicom_series import make_series

from wardround.client.clinic.pacs.archive import PacsError
from wardround.client.clinic.pacs.identity import Algorithm, derived_uid, series_digest
from wardround.client.clinic.pacs.results.codes import OWN_SCHEME, own_term, terms_of
from wardround.client.clinic.pacs.results.fhir import check_status, make_fhir
from wardround.client.clinic.pacs.results.report import report_classes, report_volumes
from wardround.client.clinic.pacs.results.segmentation import make_segmentation, names_for
from wardround.client.clinic.pacs.source import sort_source

pytest.importorskip("highdicom")
CLASSES = ("background", "hippocampus", "bright block")
MODEL = Algorithm("blocks", "ab" * 32)


def _again(made: pydicom.Dataset) -> pydicom.Dataset:
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made, enforce_file_format=True)
    stream.seek(0)
    return pydicom.dcmread(stream)


def _texts(made: pydicom.Dataset) -> str:
    return " ".join(str(one.value) for one in made.iterall())


def test_a_segmentation_of_a_shuffled_list_has_each_voxel_in_its_place() -> None:
    series = make_series(1)
    shuffled = series[:]
    random.Random(2).shuffle(shuffled)
    source = sort_source(shuffled)
    labels = np.random.default_rng(0).integers(0, 3, (8, 24, 20)).astype(np.uint8)
    read = _again(make_segmentation(source, labels, CLASSES, MODEL))
    frames = read.pixel_array
    seen = 0
    for frame, groups in zip(frames, read.PerFrameFunctionalGroupsSequence, strict=True):
        number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        z = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
        (referenced,) = groups.DerivationImageSequence[0].SourceImageSequence
        slice_number = round(z / 2)
        assert referenced.ReferencedSOPInstanceUID == series[slice_number].SOPInstanceUID
        assert np.array_equal(frame, labels[slice_number] == number)
        seen += 1
    assert seen == 16  # every slice of both segments, empty ones included


def test_a_class_that_was_found_nowhere_is_a_segment_too() -> None:
    source = sort_source(make_series(1))
    made = make_segmentation(source, np.zeros((8, 24, 20), np.uint8), CLASSES, MODEL)
    assert [one.SegmentLabel for one in made.SegmentSequence] == list(CLASSES[1:])


def test_the_same_result_is_the_same_object_and_another_is_another() -> None:
    source, other = sort_source(make_series(1)), sort_source(make_series(1)[:-1])
    labels = np.ones((8, 24, 20), np.uint8)
    one, two = (make_segmentation(source, labels, CLASSES, MODEL) for _ in range(2))
    times = ("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime")
    for each in (one, two):
        for keyword in (*times, "ContributingEquipmentSequence"):  # it says when, too
            each.pop(keyword, None)
    assert one == two
    uids = {
        names_for(source, MODEL).seg,
        names_for(source, MODEL).report,
        names_for(other, MODEL).seg,
        names_for(source, Algorithm("blocks", "cd" * 32)).seg,
    }
    assert len(uids) == 4
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)
    assert series_digest(["1.2", "1.3"]) == series_digest(["1.3", "1.2", "1.2"])
    assert derived_uid("1", "a", MODEL, "SEG") != derived_uid("1", "a", MODEL, "SR")


def test_volumes_and_probabilities_stand_in_the_report() -> None:
    source = sort_source(make_series(1))
    labels = np.zeros((8, 24, 20), np.uint8)
    labels[0, :5, :10] = 1
    seg = make_segmentation(source, labels, CLASSES, MODEL)
    report = _again(report_volumes(source, seg, CLASSES, (3790, 50, 0), MODEL))
    text = str(report)
    assert "'0.1'" in text  # 50 voxels of 2 mm3
    assert "Hippocampus" in text
    assert seg.SOPInstanceUID in text
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    classes = ("normal", "pneumonia")
    said = str(_again(report_classes(source, classes, (0.25, 0.75), ("pneumonia",), MODEL)))
    assert "'0.25'" in said
    assert "'0.75'" in said
    assert said.count("Predicted class") == 1


@pytest.mark.parametrize("slices", [1, 8])
def test_one_class_alone_is_segmented_and_reported(slices: int) -> None:
    source = sort_source(make_series(1, slices=slices))
    labels = np.zeros((slices, 24, 20), np.uint8)
    labels[0, :5, :10] = 1
    seg = _again(make_segmentation(source, labels, CLASSES[:2], MODEL))
    groups = seg.PerFrameFunctionalGroupsSequence
    heights = [float(one.PlanePositionSequence[0].ImagePositionPatient[2]) for one in groups]
    frames = seg.pixel_array.reshape(labels.shape)
    assert np.array_equal(frames[np.argsort(heights)], labels)
    assert "'0.1'" in str(report_volumes(source, seg, CLASSES[:2], (3790, 50), MODEL))


def test_every_object_says_who_made_it_and_that_it_is_not_for_diagnosis() -> None:
    source = sort_source(make_series(1))
    seg = make_segmentation(source, np.ones((8, 24, 20), np.uint8), CLASSES, MODEL)
    report = report_volumes(source, seg, CLASSES, (0, 3840, 0), MODEL)
    resources = make_fhir(source, [seg, report], ["hippocampus: 7.68 ml."], MODEL)
    for text in (_texts(seg), _texts(report), resources.report, resources.device):
        assert "not for diagnosis" in text.casefold()
        assert MODEL.digest in text
        assert MODEL.version in text
    assert json.loads(resources.report)["status"] == "preliminary"
    study = json.loads(resources.imaging_study)
    assert study["numberOfSeries"] == 3
    assert [len(one["instance"]) for one in study["series"]] == [8, 1, 1]
    with pytest.raises(PacsError, match="'guess' is no status"):
        check_status("DiagnosticReport", "guess")


def test_nothing_of_the_patient_is_said_while_a_result_is_made(
    recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    # highdicom warns of names of one part, and quotes them.
    source = sort_source(make_series(1, PatientName="CANARYNAME", PatientID="CANARYID"))
    seg = make_segmentation(source, np.ones((8, 24, 20), np.uint8), CLASSES, MODEL)
    report_volumes(source, seg, CLASSES, (0, 3840, 0), MODEL)
    said = capfd.readouterr()
    warned = " ".join(str(one.message) for one in recwarn)
    assert "CANARY" not in said.out + said.err + warned


def test_what_lacks_what_a_result_repeats_is_refused_in_words() -> None:
    source = sort_source(make_series(1, slices=1, PixelSpacing=None))
    with pytest.raises(PacsError, match="how large"):
        report_volumes(source, pydicom.Dataset(), CLASSES, (0, 1, 1), MODEL)


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("hippocampus", "SCT"),
        ("Liver", "SCT"),
        ("tumour", "SCT"),
        ("no lesion", OWN_SCHEME),
        ("lesion-free liver", OWN_SCHEME),
        ("Tumor (T1)", OWN_SCHEME),
    ],
)
def test_a_class_is_coded_by_its_whole_name_only(name: str, scheme: str) -> None:
    assert terms_of(name)[1].scheme == scheme


def test_own_codes_fit_dicom_and_differ() -> None:
    names = ["a", "A class with a long name 1", "A class with a long name 2", "ä\\b", "", "x" * 99]
    terms = [own_term(name) for name in names]
    assert all(0 < len(term.value) <= 16 and 0 < len(term.meaning) <= 64 for term in terms)
    assert all("\\" not in term.value + term.meaning for term in terms)
    assert len({term.value for term in terms}) == len(terms)


def test_a_model_name_cannot_spoil_an_object() -> None:
    source = sort_source(make_series(1, slices=1))
    odd = Algorithm("a\\b\x1b[2J" + "x" * 99, "ab" * 32)
    assert len(odd.label) <= 64
    read = _again(report_classes(source, ("no", "yes"), (0.0, 1.0), ("yes",), odd))
    assert "\x1b" not in str(read)
    assert Path(str(read.SeriesDescription)).name
