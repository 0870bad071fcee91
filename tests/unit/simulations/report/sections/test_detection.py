"""What the report says of boxes: FROC from counts of scores, and pictures of boxes."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch

from wardround.common.errors import InputError
from wardround.common.files.tables import write_table
from wardround.common.metrics.detection import DetectionSums, count_image, froc_curve
from wardround.common.metrics.task_sums import no_counts
from wardround.simulations.experiment.testing.samples import _boxed, _stack_boxes
from wardround.simulations.report.charts.pictures import draw_samples
from wardround.simulations.report.samples import Samples, read_samples
from wardround.simulations.report.sections.detection import detection_section
from wardround.simulations.run_files.detections import (
    DETECTIONS,
    DetectionRow,
    detection_rows,
    read_detections,
)

CELLS = ("red cell", "white cell")


def sums_of(images, seed, moved=0.0):
    """Return the counts of images with four cells each, of which a model finds most."""
    rng = np.random.default_rng(seed)
    sums = DetectionSums(no_counts(2, 50), no_counts(10, 2, 50), no_counts(2), no_counts(2))
    for _ in range(images):
        low = rng.uniform(0, 50, (4, 2))
        truth = np.column_stack([[0, 0, 0, 1], low, low + 8])
        found = np.column_stack([rng.random(4), truth])
        found[:, 2:] += moved * rng.normal(size=(4, 4))
        count_image(found, truth, sums)
    return sums


@pytest.fixture
def contents(tmp_path):
    rows = [
        row
        for model, moved in (("federated", 0.5), ("local-a", 4.0), ("local-b", 4.0), ("pooled", 0))
        for site, images in (("a", 6), ("b", 9))
        if model in ("federated", "pooled", f"local-{site}")
        for row in detection_rows(model, site, images, sums_of(images, len(site), moved), CELLS)
    ]
    write_table(tmp_path / DETECTIONS, rows, DetectionRow)
    study = SimpleNamespace(
        task=SimpleNamespace(column="boxes"), data=SimpleNamespace(classes=CELLS)
    )
    found = read_detections(tmp_path, CELLS)
    return SimpleNamespace(folder=tmp_path, study=study, detections=found)


def test_counts_come_back_from_the_run_folder(contents):
    found = read_detections(contents.folder, CELLS)["federated"]["b"]

    expected = sums_of(9, 1, 0.5)
    assert found.images == 9
    assert (found.sums.found == expected.found).all()
    assert (found.sums.hits[0] == expected.hits[0]).all()
    assert found.sums.truths.tolist() == [27, 9]


def test_the_section_has_a_curve_a_class_of_all_hospitals_together(contents):
    section = detection_section(contents)

    assert section is not None
    assert len(section.figures) == 2
    assert "federated model finds" in section.answer[0]
    assert "of 45" in section.answer[0]
    names = [name for name, _ in section.tables[0].rows]
    assert names[:3] == ["red cell, all sites", "red cell, a", "red cell, b"]
    merged = sums_of(6, 1, 0.5).plus(sums_of(9, 1, 0.5), (6, 9))
    curve = froc_curve(merged, 0, 15)
    last = section.tables[0].rows[0][1][-1].text
    assert last == f"{curve.sensitivity[-1]:.0%}"


def test_a_run_without_boxes_has_no_such_section(contents):
    (contents.folder / DETECTIONS).unlink()
    assert read_detections(contents.folder, CELLS) == {}

    contents.study.task.column = "mask"
    assert detection_section(contents) is None


def test_a_damaged_file_is_a_fault_in_words(contents):
    (contents.folder / DETECTIONS).write_text("model,site\nfederated\n")

    with pytest.raises(InputError):
        read_detections(contents.folder, CELLS)


def boxes(*rows):
    return np.array(rows, np.float32).reshape(1, -1, 6)


def test_boxes_are_drawn_where_they_lie_and_those_of_low_scores_are_not(tmp_path):
    arrays = {
        "images": np.full((1, 60, 80, 3), 0.5, np.float32),
        "truth": boxes([0, 10, 20, 40, 60, 1], [-1, 0, 0, 0, 0, 0]),
        "prediction": boxes([1, 30, 0, 60, 40, 0.9], [0, 0, 0, 5, 5, 0.3], [-1, 0, 0, 0, 0, 0]),
        "site": np.array(["a"]),
        "score": np.array([np.nan], np.float32),
        "sides": np.array([""], "U2"),
    }
    np.savez_compressed(tmp_path / "samples.npz", **arrays)
    samples = read_samples(tmp_path / "samples.npz")
    assert samples.is_detection
    assert not samples.is_segmentation

    picture = draw_samples(samples, CELLS)[0]

    assert picture.caption == "a: 1 true boxes, 1 found (score from 0.5)"
    assert [panel.label for panel in picture.panels] == ["image", "truth", "prediction"]
    assert "1 white cell" in picture.panels[2].alternative
    encoded = picture.panels[1].mask.partition(",")[2]
    drawn = np.array(PIL.Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGBA"))
    rows, columns = np.nonzero(drawn[..., 3])
    scale = drawn.shape[0] / 60
    assert (rows.min(), rows.max() + 1) == (10 * scale, 40 * scale)
    assert (columns.min(), columns.max() + 1) == (20 * scale, 60 * scale)
    assert not drawn[round(25 * scale), round(40 * scale), 3]  # nothing but an outline


def test_boxes_of_another_width_are_refused():
    with pytest.raises(InputError, match="give boxes as"):
        Samples(
            np.zeros((1, 4, 4), np.float32),
            np.zeros((1, 2, 6), np.float32),
            np.zeros((1, 2, 5), np.float32),
            np.array(["a"]),
            np.zeros(1),
        )


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", ""])
def test_boxes_of_a_volume_are_turned_with_the_slice_that_is_shown(axes):
    study = SimpleNamespace(data=SimpleNamespace(dimensions=3, colour=False))
    volume = torch.zeros(1, 12, 10, 8)
    volume[0, 2:5, 4:9, 3:6] = 1
    truth = torch.tensor([[0.0, 2, 4, 3, 5, 9, 6]])
    found = torch.tensor([[0.9, 0, 2, 4, 3, 5, 9, 6], [0.8, 1, 0, 0, 0, 2, 2, 2]])

    sample = _boxed(volume, truth, found, study, axes)

    rows, columns = np.nonzero(sample.image)
    sides = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    assert sample.truth[0, 1:5].tolist() == sides
    assert sample.prediction.tolist() == [[0.0, *sides, pytest.approx(0.9)]]
    assert _stack_boxes([sample.truth, sample.truth[:0]])[1, 0, 0] == -1
