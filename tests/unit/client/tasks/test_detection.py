"""Boxes: read, moved with their image, learnt, found and counted."""

import numpy as np
import pytest
import torch
from monai.data.box_utils import batched_nms
from tests.support.hospitals.blobs import blob_study, write_blob_site

from wardround.client.data.augmentation.applied import apply_changes
from wardround.client.data.augmentation.drawn import AugmentationParameters, draw_changes
from wardround.client.data.augmentation.moved_boxes import move_boxes
from wardround.client.data.augmentation.presets import PRESETS, AugmentationPreset
from wardround.client.data.boxes import stack_boxes
from wardround.client.tasks.anchors import NOTHING, Said, matched, misfit_note, strongest
from wardround.client.tasks.detection import Detection
from wardround.client.training.losses.boxes import (
    focal_giou,
    generalised_overlaps,
    hard_negative_giou,
)
from wardround.common.errors import StudyError
from wardround.common.messages.instructions import Instruction, new_run
from wardround.common.metrics.noised.decoding import summarise_noised
from wardround.common.metrics.noised.encoding import NoisedSums, encode_loss, scaled
from wardround.common.metrics.sums import metrics_of_task
from wardround.common.models.networks.registry import build_network
from wardround.common.study.loading import parse_study
from wardround.common.study.rules.tasks.detection import TURNING
from wardround.server.checkpoints.history import read_records
from wardround.server.checkpoints.store import CheckpointStore
from wardround.server.rounds.evaluation import measure_model
from wardround.server.sites.site_info import describe_sites
from wardround.simulations.experiment.federation import Machine, open_grid, run_federation

STUDY = parse_study(blob_study())
VOLUMES = parse_study(blob_study(3))


def targets_of(*images, study=STUDY):
    """Targets of images, each a list of boxes ``(class, lo.., hi..)``."""
    boxes = [torch.tensor(rows).reshape(-1, 1 + 2 * study.data.dimensions) for rows in images]
    return stack_boxes([rows.float() for rows in boxes], study.data.dimensions)


def test_a_class_counts_the_images_that_hold_it():
    stacked = targets_of([(1, 1, 2, 10, 12.5), (1, 3, 4, 5, 6)], [], [(1, 1, 1, 3, 3)])

    assert Detection().cases_of_classes(stacked, STUDY).tolist() == [0, 2]


@pytest.mark.parametrize("study", [STUDY, VOLUMES])
@pytest.mark.parametrize("loss", [focal_giou, hard_negative_giou])
def test_the_loss_of_an_examination_depends_on_no_other(study, loss):
    dimensions = study.data.dimensions
    corners = (*(2,) * dimensions, *(12,) * dimensions)
    targets = targets_of([(1, *corners)], [], [(0, *corners), (1, *corners)], study=study)
    network = build_network(study, 0)
    outputs = network(torch.randn(3, 1, *study.data.size)).detach()

    together = loss(outputs, targets, None)
    alone = [loss(outputs[[i]], targets[[i]], None)[0] for i in range(3)]

    assert together.isfinite().all()
    assert together.tolist() == [float(one) for one in alone]


def test_every_box_is_given_an_anchor_and_none_where_there_is_no_box():
    anchors = build_network(STUDY, 0)(torch.zeros(1, 1, 48, 40))[0, :, -4:]
    boxes = targets_of([(0, 1, 1, 4, 4), (1, 20, 11, 39, 40), (0, 2, 30, 30, 35)])[0, :, 1:]

    found = matched(anchors, boxes)

    assert set(found.tolist()) == {NOTHING, 0, 1, 2}
    assert (matched(anchors, boxes[:0]) == NOTHING).all()


def test_what_is_said_of_anchors_becomes_boxes_cut_off_at_the_image_and_none_twice():
    said = build_network(STUDY, 0)(torch.zeros(1, 1, 48, 40)).detach()
    said[..., :2] = -20.0
    said[0, 0, 1] = 3.0  # the anchor about (2, 2), of a side of 12
    said[0, 1, 1] = 2.0  # its neighbour, moved onto it
    said[0, 1, 3] = -4 / 12
    said[0, 1, 2] = 0.0
    said[0, 0, 2:6] = 0.0
    said[0, 1, 4:6] = 0.0

    found = Detection().answer(said, STUDY)

    assert found.shape == (1, 1, 6)
    assert found[0, 0].tolist() == pytest.approx([0.9526, 1, 0, 0, 8, 8], abs=1e-4)
    assert Detection().decide(found, STUDY)[0, 0].tolist() == [1, 0, 0, 8, 8]


@pytest.mark.parametrize("study", [STUDY, VOLUMES])
@pytest.mark.parametrize("most", [4, 1000])
def test_of_boxes_on_one_thing_those_are_left_that_monai_leaves(study, most):
    dimensions, generator = study.data.dimensions, torch.Generator().manual_seed(0)
    for _ in range(10):
        low = torch.rand(200, dimensions, generator=generator) * 20
        sides = torch.rand(200, dimensions, generator=generator) * 20 + 0.1
        boxes = torch.cat([low, low + sides], dim=1)
        boxes[100:150] = boxes[:50].round() + torch.tensor([0.0] * dimensions + [1.0] * dimensions)
        scores = (torch.rand(200, generator=generator) * 50).round() / 50  # many are equal
        classes = torch.randint(3, (200,), generator=generator)

        found = strongest(boxes, scores, classes, 0.5, most)

        assert found.tolist() == batched_nms(boxes, scores, classes, 0.5, most).tolist()
    assert strongest(boxes[:0], scores[:0], classes[:0], 0.5, most).tolist() == []


def test_an_answer_is_finite_whatever_the_network_says():
    said = build_network(STUDY, 0)(torch.zeros(2, 1, 48, 40)).detach()
    said[0], said[1] = torch.nan, torch.inf

    assert Detection().answer(said, STUDY).isfinite().all()


def test_overlaps_of_boxes_apart_fall_with_their_distance():
    box = torch.tensor([[0.0, 0.0, 2.0, 2.0]]).repeat(3, 1)
    others = torch.tensor([[0.0, 0, 2, 2], [4.0, 0, 6, 2], [8.0, 0, 10, 2]])

    assert generalised_overlaps(box, others).tolist() == pytest.approx([1, -1 / 3, -3 / 5])


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("preset", ["light", "histology", "zoom"])
def test_boxes_lie_where_the_changed_image_has_their_content(dimensions, square, preset):
    size = (32,) * dimensions if square else (32, 40, 24)[:dimensions]
    ranges = AugmentationPreset(flips=True, translation=0.1, zoom=0.2)
    ranges = PRESETS.get(preset, ranges)
    images, rows = torch.zeros(8, 1, *size), torch.zeros(8, 1, 1 + 2 * dimensions)
    low = [6, 9, 7][:dimensions]
    high = [15, 19, 15][:dimensions]
    images[(slice(None), 0, *(slice(*ends) for ends in zip(low, high, strict=True)))] = 1.0
    rows[:, 0, 1:] = torch.tensor([*low, *high])
    drawn = draw_changes(ranges, 8, dimensions, torch.Generator().manual_seed(3))
    drawn = AugmentationParameters(drawn.flips, drawn.transposes, drawn.affine)

    moved, _ = apply_changes(images, None, drawn)
    boxes = move_boxes(rows, size, drawn)

    for image, box in zip(moved[:, 0], boxes[:, 0], strict=True):
        bright = (image > 0.5).nonzero()
        ends = torch.cat([bright.amin(0), bright.amax(0) + 1]).float()
        assert (box[1:] - ends).abs().max() <= 0.51  # half a voxel: the image has no finer grid
    assert not torch.equal(boxes, rows)


def test_a_box_that_leaves_the_image_is_cut_off_or_taken_away():
    shift = torch.tensor([[[1.0, 0, 0.5], [0, 1, 0]]])  # to the left by a quarter of the width
    drawn = AugmentationParameters(affine=shift)
    rows = targets_of([(0, 1, 2, 9, 9), (1, 5, 6, 15, 20)], [])

    moved = move_boxes(rows[:1], (48, 40), drawn)

    assert moved[0].flatten().tolist() == pytest.approx([NOTHING, 0, 0, 0, 0, 1, 5, 0, 15, 10])


@pytest.mark.parametrize("study", [STUDY, VOLUMES])
def test_a_federation_learns_to_find_blocks(tmp_path, study):
    folders = [
        write_blob_site(tmp_path / name, 18, seed, study.data.size)
        for seed, name in enumerate("ab")
    ]

    with open_grid(folders, study, Machine("cpu", "in-process", threads=1)) as grid:
        run_federation(grid, study, tmp_path / "run")

    records = list(read_records(CheckpointStore(tmp_path / "run").history_path))
    first, last = (
        {v.metric: v.value for v in r.measurements[-1].values if not v.class_name}
        for r in (records[0], records[-1])
    )
    assert set(last) == set(metrics_of_task(study))
    assert last["loss"] < first["loss"]
    assert all(np.isfinite(value) for value in last.values())


def test_boxes_far_from_every_anchor_are_said():
    boxes = targets_of([(0, 0, 0, 3, 3), (1, 0, 0, 12, 12), (1, 4, 4, 20, 20)], [])

    assert misfit_note(boxes, (12, 24)).startswith("33% of the boxes are less than half")
    assert misfit_note(boxes[:, 1:], (12, 24)) == misfit_note(boxes[1:], (12, 24)) == ""


def test_the_presets_that_turn_are_those_that_are_refused():
    turning = {name for name, preset in PRESETS.items() if preset.rotation}

    assert turning == set(TURNING)


@pytest.mark.parametrize(
    ("section", "keys", "words"),
    [
        ("data", {"augmentation": "dermoscopy"}, "a box that is turned is no box"),
        ("data", {"covariates": [{"name": "age"}]}, "remove them"),
        ("data", {"size": None}, "data.size is missing"),
        ("model", {"anchors": [8]}, "has 1 sides, and the network has 2 levels"),
        ("model", {"anchors": [16, 8]}, "does not rise"),
        ("model", {"anchors": [16, 64]}, "no box of an image is so long"),
        ("model", {"network": "unet"}, "choose one of retinanet"),
        ("training", {"loss": "dice"}, "choose one of focal-giou, hard-negative-giou"),
        ("training", {"patch_size": [16, 16]}, "is for segmentation"),
        ("federation", {"strategy": "moon"}, "one feature vector an image"),
        ("evaluation", {"pack": ["calibration"]}, "pack"),
    ],
)
def test_what_a_detection_cannot_do_is_refused_with_a_remedy(section, keys, words):
    with pytest.raises(StudyError, match=words):
        parse_study(blob_study(**{section: keys}))


def test_anchors_are_for_boxes_alone_and_a_private_study_is_steered_by_what_has_noise():
    other = {"study": {"task": "classification"}, "model": {"network": "small-cnn"}}
    with pytest.raises(StudyError, match="anchors is for detection"):
        parse_study(blob_study(**{**other, "model": {"network": "small-cnn", "anchors": [4]}}))
    private = {"privacy": {"mode": "patient"}, "evaluation": {"metric": "froc"}}
    with pytest.raises(StudyError, match="set it to 'map50'"):
        parse_study(blob_study(training={"local_epochs": 1}, **private))


def test_boxes_measured_without_noise_have_the_metric_of_images_that_weigh_alike():
    truth = targets_of(*[[(0, 4, 4, 16, 16), (1, 20, 20, 30, 30)]] * 4)
    found = torch.zeros(4, 3, 6)
    found[..., 1] = NOTHING
    found[:, 0] = torch.tensor([0.9, 0, 4, 4, 16, 16])
    found[:, 1] = torch.tensor([0.8, 1, 0, 0, 9, 9])
    found[:2, 2] = torch.tensor([0.3, 1, 20, 20, 30, 30])
    measured = Detection().bounded(found, truth, STUDY)
    losses = encode_loss(np.full(4, 0.75))

    vector = scaled(np.concatenate([losses, measured], axis=1), STUDY).sum(axis=0)
    values = {
        (v.metric, v.class_name): v.value for v in summarise_noised(NoisedSums(vector), STUDY)
    }

    assert np.linalg.norm(measured, axis=1).max() <= 1 + 1e-12
    assert {metric for metric, _ in values} == {"loss", "map50"}
    assert values["map50", "dark"] == pytest.approx(1, abs=0.01)
    # Of four boxes two are found, after four that are none: a precision of a third up to one half.
    assert values["map50", "bright"] == pytest.approx(51 / 101 / 3, abs=0.03)


def test_a_private_federation_trains_on_clipped_patients_and_is_measured_with_noise(tmp_path):
    study = parse_study(
        blob_study(
            training={"local_epochs": None, "local_steps": 2},
            privacy={"mode": "patient", "noise_multiplier": 1.0, "sampling_rate": 0.5},
            evaluation={"keep": "last"},
        )
    )
    folders = [
        write_blob_site(tmp_path / name, 18, seed, study.data.size, private=True)
        for seed, name in enumerate("ab")
    ]

    with open_grid(folders, study, Machine("cpu", "in-process", threads=1)) as grid:
        kept = run_federation(grid, study, tmp_path / "run")
        nodes, _ = describe_sites(grid, study)
        order = Instruction(study.digest, new_run(), 2, kept.parameters, split="test")
        measured = measure_model(grid, study, nodes, order)

    assert not measured.refusals
    assert {v.metric for v in measured.values[-1].values} >= {"loss", "map50"}


def test_said_parts_keep_their_width():
    parts = Said.of(torch.zeros(2, 5, 3 + 12), 3)

    assert (parts.logits.shape[-1], parts.offsets.shape[-1], parts.anchors.shape[-1]) == (3, 6, 6)
