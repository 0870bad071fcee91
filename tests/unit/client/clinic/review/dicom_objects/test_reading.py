"""DICOM objects of readers: matched with a case, or refused in a sentence that names nobody."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from tests.support.clinic.dicom_series import make_series, write_series
from tests.support.clinic.reader_reports import drawn_report
from tests.support.clinic.reader_segmentations import drawn_segmentation
from tests.support.hospitals.review_ward import POLICY, study_of

from wardround.client.clinic.review.cases import list_cases
from wardround.client.clinic.review.dicom_objects.reading import CaseIndex
from wardround.client.clinic.review.dicom_objects.taking import TakenFromArchive, take_files
from wardround.client.clinic.review.queue import Wish, make_queue, save_queue
from wardround.client.clinic.review.taking import Desk
from wardround.client.site.folder import open_site

SERIES = {number: make_series(number) for number in range(1, 5)}
SEGMENTS: dict[str, dict[str, object]] = {
    "study": {"name": "blocks", "task": "segmentation"},
    "data": {"dimensions": 3, "classes": ["background", "block"], "size": [16, 16, 8]},
    "model": {"network": "unet", "features": [4, 8], "normalisation": "group"},
    "evaluation": {"validation_fraction": 0, "test_fraction": 0},
}
CLASSIFIES: dict[str, dict[str, object]] = {
    **SEGMENTS,
    "study": {"name": "blocks", "task": "classification"},
    "data": {"dimensions": 3, "classes": ["normal", "abnormal"], "size": [16, 16, 8]},
    "model": {"network": "small-cnn", "features": [4, 8], "normalisation": "group"},
}


def _desk(folder: Path, content: dict[str, dict[str, object]]) -> Desk:
    study, column = study_of(content), "mask" if content is SEGMENTS else "label"
    folder.mkdir()
    (folder / "site.toml").write_text('name = "north"\n')
    (folder / "policy.toml").write_text(POLICY)
    rows = [f"patient,image,{column}"]
    for number, series in SERIES.items():
        write_series(folder / f"series-{number}", series)
        target = "normal" if column == "label" else f"series-{number}/0001.dcm"
        rows.append(f"P{number},series-{number},{target}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    site = open_site(folder)
    queue = make_queue(list_cases(site, study), None, study, Wish("first", "random", 9))
    save_queue(site, queue)
    return Desk(site, queue, study, list_cases(site, study))


def _segmentation(number: int = 1, kind: str = "MANUAL", name: str = "block") -> pydicom.Dataset:
    labels = np.zeros((8, 24, 20), np.uint8)
    labels[3:5, 4:9, 2:12] = 1
    series = SERIES.get(number) or make_series(number)
    return drawn_segmentation(series, labels, "block", name, kind)


def _take(desk: Desk, folder: Path, *objects: pydicom.Dataset | bytes) -> TakenFromArchive:
    folder.mkdir(exist_ok=True)
    paths = []
    for at, one in enumerate(objects):
        path = folder / f"{at}.dcm"
        if isinstance(one, bytes):
            path.write_bytes(one)
        else:
            pydicom.dcmwrite(path, one, enforce_file_format=True)
        paths.append(path)
    taken = TakenFromArchive()
    index = CaseIndex(desk.site, desk.study, desk.cases)
    take_files(desk, index, paths, taken, (set(), ""))
    return taken


def test_what_a_reader_drew_is_taken_and_only_once(tmp_path: Path) -> None:
    desk, drawn = _desk(tmp_path / "north", SEGMENTS), _segmentation()
    taken = _take(desk, tmp_path / "in", drawn, drawn)
    assert (len(taken.written), taken.known, taken.refused) == (1, 1, [])
    (one,) = taken.written
    assert (one.reader, one.column) == ("Reader Ada", "mask")
    assert desk.cases[one.case].examination.patient == "P1"


def _without_frames(one: pydicom.Dataset) -> pydicom.Dataset:
    del one.PerFrameFunctionalGroupsSequence
    return one


def _claiming(one: pydicom.Dataset) -> pydicom.Dataset:
    one.NumberOfFrames, one.Rows, one.Columns = 2_000_000_000, 65_535, 65_535
    return one


def _elsewhere(one: pydicom.Dataset) -> pydicom.Dataset:
    one.FrameOfReferenceUID = "1.2.3.4"
    return one


def _of_another_series(one: pydicom.Dataset) -> pydicom.Dataset:
    one.StudyInstanceUID = SERIES[1][0].StudyInstanceUID
    return one


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (lambda: _segmentation(77), "of a study that no case of the queue belongs to"),
        (lambda: _elsewhere(_segmentation()), "frame of reference"),
        (lambda: _of_another_series(_segmentation(77)), "refers to none of the series"),
        (lambda: _claiming(_segmentation()), "claims more pixels"),
        (lambda: _segmentation(name="CANARYNAME"), "CANARY"),
        (lambda: bytes(128) + b"DICM" + b"x" * 99, "neither a segmentation"),
        (lambda: b"", "damaged, or no DICOM"),
        (lambda: SERIES[2][0], "neither a segmentation (SEG) nor a report (SR)"),
        (lambda: _without_frames(_segmentation()), ""),
    ],
)
def test_what_is_wrong_is_said_and_loses_nothing(
    made: Callable[[], pydicom.Dataset | bytes], sentence: str, tmp_path: Path
) -> None:
    desk = _desk(tmp_path / "north", SEGMENTS)
    taken = _take(desk, tmp_path / "in", made(), _segmentation(3))
    if sentence == "CANARY":  # a segment of another name has the class by its coded type
        assert len(taken.written) == 2 or "CANARY" not in " ".join(taken.refused)
        return
    assert len(taken.refused) == 1
    assert sentence in taken.refused[0]
    assert "CANARYPATIENT" not in taken.refused[0]
    assert [desk.cases[one.case].examination.patient for one in taken.written] == ["P3"]


def test_what_a_program_alone_made_is_nobodys_opinion(tmp_path: Path) -> None:
    one = _segmentation()
    one.SegmentSequence[0].SegmentAlgorithmType = "AUTOMATIC"
    taken = _take(_desk(tmp_path / "north", SEGMENTS), tmp_path / "in", one)
    assert not taken.written
    assert sum(taken.passed_over.values()) == 1


def _report(number: int = 2, flag: str = "VERIFIED", *classes: str) -> pydicom.Dataset:
    return drawn_report(SERIES[number][0], *(classes or ("abnormal",)), flag=flag)


def test_a_report_that_was_verified_is_a_label(tmp_path: Path) -> None:
    desk = _desk(tmp_path / "north", CLASSIFIES)
    taken = _take(
        desk, tmp_path / "in", _report(), _report(3, "UNVERIFIED"),
        _report(4, "VERIFIED", "normal", "abnormal"),
    )  # fmt: skip
    assert [(one.new, one.reader) for one in taken.written] == [("abnormal", "Reader Ada")]
    assert sum(taken.passed_over.values()) == 1
    assert len(taken.refused) == 1
    assert "several of the study's classes" in taken.refused[0]
