"""Boxes as a structured report: where they were found, as the reader of reports takes them back."""

import io

import numpy as np
import pydicom
import pytest
from tests.support.clinic.dicom_series import make_series

from wardround.client.clinic.inference.prediction import Detected, FoundBox
from wardround.client.clinic.pacs.archive import PacsError
from wardround.client.clinic.pacs.identity import Algorithm
from wardround.client.clinic.pacs.results.box_report import report_boxes
from wardround.client.clinic.pacs.source import sort_source
from wardround.client.data.reading.boxes.report import read_report
from wardround.client.data.reading.image import Image

pytest.importorskip("highdicom")
MODEL = Algorithm("boxes", "ab" * 32)
CLASSES = ("nodule", "bright block")
FLAT = (
    FoundBox("nodule", 0.9, (3.0, 5.5), (12.25, 9.0)),
    FoundBox("bright block", 0.75, (0.0, 0.0), (20.0, 24.0)),
    FoundBox("nodule", 0.3, (1.0, 1.0), (4.0, 4.0)),  # below the threshold
)
DEEP = (
    FoundBox("bright block", 0.8, (2.0, 3.0, 1.0), (9.0, 11.5, 4.0)),
    FoundBox("nodule", 0.6, (12.0, 0.0, 5.0), (13.0, 4.0, 6.0)),
)
# A slice that lies aslant: the rows run down and to the back.
ASLANT = [1, 0, 0, 0, float(np.cos(0.4)), float(np.sin(0.4))]


def _again(made: pydicom.Dataset) -> pydicom.Dataset:
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made, enforce_file_format=True)
    stream.seek(0)
    return pydicom.dcmread(stream)


def _corners(boxes: "tuple[FoundBox, ...]") -> list[list[float]]:
    return [[*box.low, *box.high] for box in boxes]


def test_boxes_of_a_picture_are_read_back_where_they_were_found() -> None:
    source = sort_source(make_series(1, slices=1))
    made = _again(report_boxes(source, Detected(CLASSES, FLAT, 0.5, (1, 1)), MODEL))

    instance = str(source.datasets[0].SOPInstanceUID)
    found = read_report(made, Image(np.zeros((1, 24, 20), np.float32)), instance)

    assert found.names == ("Nodule", "bright block")
    turned = [[y0, x0, y1, x1] for x0, y0, x1, y1 in _corners(FLAT[:2])]
    np.testing.assert_allclose(found.corners, turned, atol=1e-4)


@pytest.mark.parametrize("turned", [{}, {"ImageOrientationPatient": ASLANT}])
def test_boxes_of_a_volume_are_read_back_from_millimetres(turned: dict[str, object]) -> None:
    series = make_series(1, **turned)
    if turned:
        normal = np.cross(ASLANT[:3], ASLANT[3:])
        for at, one in enumerate(series):
            one.ImagePositionPatient = [float(number) for number in 2.0 * at * normal]
    source = sort_source(series)
    assert source.affine is not None
    found = Detected(CLASSES, DEEP, 0.5, (1, 1), source.affine)

    made = _again(report_boxes(source, found, MODEL))

    image = Image(np.zeros((1, 20, 24, 8), np.float32), affine=source.affine)
    read = read_report(made, image, None)
    assert read.names == ("bright block", "Nodule")
    np.testing.assert_allclose(read.corners, _corners(DEEP), atol=1e-3)


def test_a_class_that_was_found_nowhere_is_counted_and_nobody_is_told_a_diagnosis() -> None:
    source = sort_source(make_series(1, slices=1))

    made = _again(report_boxes(source, Detected(CLASSES, (), 0.5, (0, 0)), MODEL))

    assert str(made).count("How many were found") == 2
    assert "Not for diagnosis" in str(made)
    assert (made.PreliminaryFlag, made.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")


def test_what_does_not_say_where_it_lies_gets_no_boxes() -> None:
    source = sort_source(make_series(1))

    with pytest.raises(PacsError, match="do not say where they lie"):
        report_boxes(source, Detected(CLASSES, DEEP, 0.5, (1, 1)), MODEL)
    with pytest.raises(PacsError, match="the series has several"):
        report_boxes(source, Detected(CLASSES, FLAT, 0.5, (1, 1)), MODEL)
