"""Images of a result: sorted in space, labels brought to them, and values that may be repeated."""

import random
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.sequence import Sequence
from tests.support.clinic.dicom_series import make_series, write_series

from wardround.client.clinic.pacs.archive import PacsError
from wardround.client.clinic.pacs.source import (
    in_source_order,
    read_source,
    repair_copied,
    sort_source,
)
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.readers import read_image


def _bright(series: list[pydicom.Dataset]) -> dict[str, NDArray[np.bool_]]:
    return {str(one.SOPInstanceUID): one.pixel_array > 500 for one in series}


@pytest.mark.parametrize("normal", [1, -1])
def test_labels_of_a_reader_lie_on_the_images_whatever_the_order_of_the_files(
    normal: int, tmp_path: Path
) -> None:
    series = make_series(1, ImageOrientationPatient=[1, 0, 0, 0, normal, 0])
    paths = write_series(tmp_path, series)
    random.Random(4).shuffle(paths)
    image = read_image(Location(tmp_path), 3)
    source = read_source(paths)
    labels = in_source_order((image.array[0] > 500).astype(np.uint8), image.affine, source)
    wanted = _bright(series)
    assert labels.shape == (8, 24, 20)
    assert labels.sum() > 0
    for one, plane in zip(source.datasets, labels, strict=True):
        assert np.array_equal(plane, wanted[str(one.SOPInstanceUID)])


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flipped", [(), (0,), (1, 2), (0, 1, 2)])
def test_labels_whose_axes_were_turned_come_back(
    axes: tuple[int, ...], flipped: tuple[int, ...]
) -> None:
    source = sort_source(make_series(1))
    assert source.affine is not None
    wanted = np.random.default_rng(0).integers(0, 3, (8, 24, 20)).astype(np.uint8)
    turn = np.eye(4)
    labels = wanted.transpose(2, 1, 0).transpose(axes)
    turn[:3, :3] = np.eye(3)[:, list(axes)]
    for axis in flipped:
        labels = np.flip(labels, axis)
        back = np.eye(4)
        back[axis, axis], back[axis, 3] = -1, labels.shape[axis] - 1
        turn = turn @ back
    assert np.array_equal(in_source_order(labels, source.affine @ turn, source), wanted)


@pytest.mark.parametrize(
    "moved",
    [
        np.diag([2.0, 1.0, 1.0, 1.0]),
        np.array([[1.0, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    ],
)
def test_labels_of_another_grid_are_refused(moved: NDArray[np.float64]) -> None:
    source = sort_source(make_series(1))
    assert source.affine is not None
    with pytest.raises(PacsError, match="another grid"):
        in_source_order(np.zeros((20, 24, 8), np.uint8), source.affine @ moved, source)
    with pytest.raises(PacsError, match="another grid"):
        in_source_order(np.zeros((20, 24, 7), np.uint8), source.affine, source)


def test_frames_of_a_multi_frame_image_keep_their_stored_order() -> None:
    single = make_series(1, slices=3)
    one = single[0]
    groups = []
    for place in (4.0, 0.0, 2.0):
        position, group = pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = [0.0, 0.0, place]
        group.PlanePositionSequence = Sequence([position])
        groups.append(group)
    one.NumberOfFrames, one.PerFrameFunctionalGroupsSequence = 3, Sequence(groups)
    source = sort_source([one])
    labels = np.zeros((20, 24, 3), np.uint8)
    labels[..., 0], labels[..., 1], labels[..., 2] = 1, 2, 3
    found = in_source_order(labels, source.affine, source)
    assert found[:, 0, 0].tolist() == [3, 1, 2]


def test_what_is_no_series_in_one_grid_is_refused() -> None:
    series = make_series(1)
    with pytest.raises(PacsError, match="there is none"):
        sort_source([])
    with pytest.raises(PacsError, match="stands twice"):
        sort_source([*series, series[0]])
    with pytest.raises(PacsError, match="several series"):
        sort_source([*series[:4], *make_series(2)[4:]])
    series[3].Rows = 25
    with pytest.raises(PacsError, match="2 different sizes"):
        sort_source(series)
    series = make_series(1)
    series[3].ImagePositionPatient = series[4].ImagePositionPatient
    with pytest.raises(PacsError, match="at the same place"):
        sort_source(series)
    series = make_series(1)
    del series[3].ImagePositionPatient
    with pytest.raises(PacsError, match="do not say where they lie"):
        sort_source(series)
    series = make_series(1)
    series[0].StudyInstanceUID = "../../etc"
    with pytest.raises(PacsError, match="no DICOM identifier"):
        sort_source(series)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("keyword", "value", "repaired"),
    [
        ("PatientAge", "42", "042Y"),
        ("PatientAge", "7M", "007M"),
        ("PatientAge", "old", ""),
        ("PatientSex", "X", None),
        ("PatientBirthDate", "1.1.1970", None),
        ("StudyTime", "noon", None),
        ("AccessionNumber", "x" * 17, None),
        ("PatientWeight", "75", "75"),
    ],
)
def test_a_value_that_dicom_does_not_allow_is_repaired_or_left_out(
    keyword: str, value: str, repaired: str | None
) -> None:
    (one,) = make_series(1, slices=1)
    setattr(one, keyword, value)
    kept = repair_copied(one)
    found = kept.get(keyword)
    assert (None if found is None else str(found)) == repaired
    assert kept.PatientName == one.PatientName


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_numbers_with_too_many_digits_are_written_shorter() -> None:
    (one,) = make_series(1, slices=1)
    one.PixelSpacing = ["0.666666686534882", "0.699987828731537"]
    kept = repair_copied(one)
    assert all(len(str(value)) <= 16 for value in kept.PixelSpacing)
    assert float(kept.PixelSpacing[0]) == pytest.approx(0.666666686534882, abs=1e-13)
