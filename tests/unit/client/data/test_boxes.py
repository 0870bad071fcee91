import logging
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from wardround.client.data.boxes import (
    LEAST_LEFT,
    boxes_in_own_grid,
    fault_of,
    note_of,
    place_boxes,
    stack_boxes,
    usable_boxes,
)
from wardround.client.data.cohorts import open_cohorts
from wardround.client.data.manifest.label_words import LabelWords
from wardround.client.data.manifest.manifest import open_manifest
from wardround.client.data.preprocessing.own_grid import prepare_images
from wardround.client.data.preprocessing.preprocessing import prepare_channel, prepare_mask
from wardround.client.data.preprocessing.steps import resampled_size
from wardround.client.data.reading.boxes.found import boxes_of
from wardround.client.data.reading.image import Image
from wardround.client.site.folder import open_site
from wardround.client.tasks.registry import TASKS as SITE_TASKS
from wardround.common.errors import DataError
from wardround.common.study.loading import parse_study
from wardround.common.study.registry import LOSSES, NETWORKS, TASKS, TaskEntry
from wardround.common.study.sections.data import DataSection

CELLS = ("red cell", "white cell")


class Finding:
    """A task whose answers are boxes, of which only the target is looked at here."""

    labels = object()

    def cases_of_classes(self, targets, study):
        return (targets[..., :1] == torch.arange(study.class_count)).any(1).sum(0)


@pytest.fixture
def study(monkeypatch):
    monkeypatch.setitem(TASKS, "detection", TaskEntry("boxes", "frame every", "focal", "map50"))
    monkeypatch.setitem(SITE_TASKS, "detection", Finding())
    row = replace(NETWORKS["small-cnn"], tasks=("classification", "detection"))
    monkeypatch.setitem(NETWORKS, "small-cnn", row)
    monkeypatch.setitem(LOSSES, "focal", (*LOSSES["focal"], "detection"))
    return parse_study(
        {
            "study": {"name": "cells", "task": "detection"},
            "data": {"classes": list(CELLS), "size": [15, 20], "fit": "resize"},
            "model": {"network": "small-cnn"},
            "training": {"loss": "focal"},
            "evaluation": {"metric": "map50", "validation_fraction": 0, "test_fraction": 0},
        }
    )


def write_site(folder, rows, toml=""):
    """Write a site of pictures of 30 rows and 40 columns."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["patient,image,boxes"]
    for number, cell in enumerate(rows):
        picture = rng.integers(0, 255, (30, 40), dtype=np.uint8)
        PIL.Image.fromarray(picture).save(folder / f"p{number}.png")
        lines.append(f'p{number},p{number}.png,"{cell}"')
    (folder / "manifest.csv").write_text("\n".join(lines))
    (folder / "site.toml").write_text(f'name = "a"\n{toml}')
    return open_site(folder)


ALL_AXES = ("RAS", "LPS", "PIR", "SLA", "ASR", "IPL")


@st.composite
def preparations(draw):
    """Draw a volume or picture with things in it, and what a study asks of it."""
    dims = draw(st.sampled_from([2, 3]))
    shape = [draw(st.integers(12, 30)) for _ in range(dims)]
    data = {"classes": ["nothing", *CELLS], "dimensions": dims}
    affine = spacing = None
    if dims == 3:
        from nibabel.orientations import axcodes2ornt, inv_ornt_aff

        axes = draw(st.sampled_from(ALL_AXES))
        spacing = tuple(draw(st.sampled_from([1.0, 2.0, 3.0])) for _ in range(3))
        affine = inv_ornt_aff(axcodes2ornt(tuple(axes)), shape) @ np.diag([*spacing, 1.0])
        spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
        data["orientation"] = draw(st.sampled_from([None, "RAS", "LPS", "RPI"]))
        if draw(st.booleans()):
            data["spacing"] = [draw(st.sampled_from([1.0, 1.5, 2.0])) for _ in range(3)]
    if draw(st.booleans()):
        data["size"] = [draw(st.integers(16, 48)) for _ in range(dims)]
        data["fit"] = draw(st.sampled_from(["resize", "pad"]))
    low = [draw(st.integers(0, side - 4)) for side in shape]
    high = [draw(st.integers(at + 3, side)) for at, side in zip(low, shape, strict=True)]
    block = np.zeros((1, *shape), np.float32)
    block[(0, *(slice(a, b) for a, b in zip(low, high, strict=True)))] = 1
    image = Image(block, spacing, affine)
    return image, DataSection(**data), np.array([[1.0, *low, *high]])


@settings(max_examples=60, deadline=None)
@given(drawn=preparations())
def test_boxes_go_where_preprocessing_puts_what_they_are_about(drawn):
    image, data, boxes = drawn
    turned, _ = prepare_channel(image, image, data)
    mask = replace(image, array=image.array.astype(np.uint8))
    _, seen = prepare_mask(mask, image, data)

    placed = place_boxes(boxes, image, turned, data).numpy()

    places = np.argwhere(seen)
    dims = seen.ndim
    if not len(placed):  # three quarters of it were cropped away
        size = (boxes[0, 1 + dims :] - boxes[0, 1 : 1 + dims]).prod()
        grown = np.prod(resampled_size(turned, data)) / np.prod(image.array.shape[1:])
        assert seen.sum() < 0.5 * size * grown
        return
    assert placed[0, 0] == 1
    # Of nearest voxels, an edge is off by one at most.
    assert_allclose(placed[0, 1 : 1 + dims], places.min(axis=0), atol=1.01)
    assert_allclose(placed[0, 1 + dims :], places.max(axis=0) + 1, atol=1.01)


@settings(max_examples=60, deadline=None)
@given(drawn=preparations())
def test_boxes_come_back_to_the_image_as_it_was_read(drawn):
    image, data, boxes = drawn
    turned, _ = prepare_channel(image, image, data)
    placed = place_boxes(boxes, image, turned, data).double().numpy()
    _, grid = prepare_images([image], data)
    cropped = any(have > fit for have, fit in zip(grid.resampled, grid.fitted, strict=True))

    back = boxes_in_own_grid(np.insert(placed, 0, 0.7, axis=1), grid)

    if not cropped:
        assert_allclose(back, np.insert(boxes, 0, 0.7, axis=1), atol=1e-4)


def test_a_box_that_is_cropped_away_by_more_than_three_quarters_is_taken_away():
    image = Image(np.zeros((1, 40, 20), np.float32))
    data = DataSection(classes=CELLS, size=(20, 20), fit="pad")  # the rows 10 to 30 are left
    boxes = np.array(
        [[0, 2, 0, 12, 8], [1, 5, 0, 15, 8], [0, 12, 0, 20, 8], [0, 0, 0, 4, 4]], float
    )

    placed = place_boxes(boxes, image, image, data)

    assert LEAST_LEFT == 0.25
    assert_allclose(placed, [[1, 0, 0, 5, 8], [0, 2, 0, 10, 8]])


def usable(text, study, words=None, size=None):
    from wardround.client.data.reading.boxes.text import read_text

    found = replace(read_text(text, 2), size=size)
    return usable_boxes(found, (30, 40), words or LabelWords(), study)


def test_boxes_without_a_size_are_left_out_and_those_over_the_edge_are_cut(study):
    boxes, counts = usable("red cell 5 5 5 9; White Cell -2 3 8 31; red cell 1 1 2 2", study)

    assert_allclose(boxes, [[1, 3, 0, 30, 8], [0, 1, 1, 2, 2]])
    assert (counts.sizeless, counts.cut, counts.classes["red cell"]) == (1, 1, 1)
    assert fault_of(counts, (30, 40)) == ""
    assert note_of(counts) == (
        "1 box without a size left out; 1 box cut off at the edge of the image"
    )


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("red cell 5 5 5.00000001 9", (1, 0)),
        ("red cell -4 5 0.00000001 9", (0, 1)),
        ("red cell 39.9999999 5 44 9", (0, 1)),
    ],
)
def test_no_box_in_an_image_is_thinner_than_a_network_tells_apart(study, text, counted):
    """Such a one would be a thing that is there, and that nobody can find."""
    boxes, counts = usable(text, study)

    assert len(boxes) == 0
    assert (counts.sizeless, counts.outside) == counted


@pytest.mark.parametrize(
    ("text", "size", "reason"),
    [
        ("blue cell 1 1 4 4", None, "1 box of a class that the study does not list"),
        ("red cell 9 1 4 4; red cell 4 9 8 2", None, "2 boxes with the last corner before"),
        ("red cell 1 35 4 39", None, "1 box outside the image, which has 40 x 30"),
        ("red cell 1 1 4 4", (40, 30), "another size of the image"),
    ],
)
def test_boxes_that_would_be_wrong_are_a_fault(study, text, size, reason):
    _, counts = usable(text, study, size=size)

    assert reason in fault_of(counts, (30, 40))


def test_a_site_has_its_own_words_for_the_classes_and_passes_over_others(study):
    words = LabelWords({"rbc": "red cell"}, others=frozenset({"platelet"}))

    boxes, counts = usable("RBC 1 1 4 4; Platelet 1 1 4 4", study, words)

    assert_allclose(boxes, [[0, 1, 1, 4, 4]])
    assert counts.other == 1


def test_a_word_of_site_toml_that_is_no_class_takes_its_boxes_away(tmp_path, study):
    toml = '[labels.words]\nRBC = "red cell"\nplatelets = "none"\n'
    site = write_site(tmp_path / "a", ["RBC 0 0 2 2; Platelets 1 1 4 4; white cell 0 0 2 2"], toml)

    boxes = open_cohorts(site, study).train.targets

    assert_allclose(boxes[0], [[0, 0, 0, 1, 1], [1, 0, 0, 1, 1]])


def test_targets_are_filled_up_with_rows_of_no_class():
    stacked = stack_boxes([torch.ones(2, 5), torch.zeros(0, 5)], 2)

    assert stacked.shape == (2, 2, 5)
    assert stacked.dtype == torch.float32
    assert stacked[1, :, 0].tolist() == [-1, -1]
    assert stack_boxes([], 3).shape == (0, 1, 7)


def test_a_batch_has_the_boxes_of_its_images_where_the_images_were_resized(tmp_path, study):
    rows = ["red cell 4 6 14 20; white cell 0 0 40 30", "none", "red cell 1 1 1 4", ""]
    cohort = open_cohorts(write_site(tmp_path / "a", rows), study).train

    batch = cohort.batch(torch.arange(4))

    assert batch.images.shape == (4, 1, 15, 20)
    assert_allclose(batch.targets[0], [[0, 3, 2, 10, 7], [1, 0, 0, 15, 20]])
    assert (batch.targets[1:, :, 0] == -1).all()
    assert cohort.case_counts().tolist() == [1, 1]


def test_an_empty_cell_is_an_image_without_boxes_and_is_said(tmp_path, study):
    site = write_site(tmp_path / "a", ["none", "", "red cell 1 1 4 4", ""])

    notes = open_manifest(site, study).notes

    assert any("the column boxes is empty in rows 3, 5" in note for note in notes)


def test_boxes_are_kept_on_disk_and_read_anew_when_their_cell_changes(tmp_path, study):
    toml = 'cache_place = "disk"'
    first = open_cohorts(write_site(tmp_path / "a", ["red cell 4 6 14 20"], toml), study).train
    assert_allclose(first.targets[0], [[0, 3, 2, 10, 7]])

    manifest = tmp_path / "a" / "manifest.csv"
    again = open_cohorts(open_site(tmp_path / "a"), study).train
    assert_allclose(again.targets[0], [[0, 3, 2, 10, 7]])
    manifest.write_text(manifest.read_text().replace("4 6 14 20", "6 6 14 20"))
    changed = open_cohorts(open_site(tmp_path / "a"), study).train

    assert_allclose(changed.targets[0], [[0, 3, 3, 10, 7]])


def test_a_fault_names_the_row_and_nobody(tmp_path, study):
    site = write_site(tmp_path / "a", ["none", "red cell 1 35 4 39"])

    with pytest.raises(DataError, match=r"^row 3, column boxes: 1 box outside") as refused:
        open_cohorts(site, study).train.prepare()
    assert "p1" not in str(refused.value)


def test_a_site_that_skips_what_is_unreadable_goes_on_without_the_row(tmp_path, study):
    toml = "skip_unreadable = true"
    site = write_site(tmp_path / "a", ["none", "red cell 1 35 4 39", "red cell 1 1 4 4"], toml)
    cohort = open_cohorts(site, study).train

    assert len(cohort) == 2
    assert len(cohort.targets) == 2


def test_what_was_left_out_stands_in_the_log_by_its_row(tmp_path, study, caplog):
    site = write_site(tmp_path / "a", ["red cell 1 1 1 4; red cell 1 1 4 4"])

    with caplog.at_level(logging.INFO):
        open_cohorts(site, study).train.prepare()

    assert "row 2, column boxes: 1 box without a size left out." in caplog.messages


def test_a_file_that_is_missing_or_of_another_format_is_said_before_an_image_is_read(
    tmp_path, study
):
    site = write_site(tmp_path / "a", ["gone.json", "notes.docx"])
    (tmp_path / "a" / "notes.docx").write_text("x")

    with pytest.raises(DataError) as refused:
        open_manifest(site, study)
    assert "column boxes names is missing" in str(refused.value)
    assert "use COCO (.json)" in str(refused.value)


def test_more_boxes_than_an_image_can_have_are_refused():
    from wardround.client.data.reading.image import UnreadableError

    with pytest.raises(UnreadableError, match="1001 boxes"):
        boxes_of([("a", (0, 0, 1, 1))] * 1001, 2)


def test_the_data_check_counts_boxes_and_names_rows(tmp_path, study):
    from wardround.client.clinic.onboarding.data_check.check import check_data

    site = write_site(
        tmp_path / "a",
        [
            "red cell 4 6 14 20; white cell 0 0 40 30",
            "none",
            "red cell 1 1 1 4; red cell 1 1 4 4",
            "red cell 1 35 4 39",
            "platelet 1 1 2 2",
            "red cell 5 5 41 9",
        ],
    )

    report = check_data(site, study, lambda done, of: None)

    said = {f.fact: f.status for f in report.findings if f.name == "boxes"}
    assert said == {
        "1 boxes are of a class that the study does not list, in row 6": "fault",
        "1 boxes lie outside their image, in row 5": "fault",
        "1 boxes have no size, and are left out, in row 4": "look",
        "1 boxes reach over the edge of their image, and are cut off there, in row 7": "look",
        "3 of 6 images have no box, in rows 3, 5, 6": "look",
    }
    bars = next(counts.bars for counts in report.counts if counts.unit == "boxes")
    assert [(name, sum(numbers)) for name, numbers in bars] == [("red cell", 3), ("white cell", 1)]
