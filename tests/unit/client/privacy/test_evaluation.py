"""What one patient adds to a measurement is at most 1, whatever the model, and noise covers it."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.privacy.evaluation import (
    measure_privately,
    patient_vectors,
    with_noise,
)
from wardround.client.training.evaluation import evaluating
from wardround.client.training.losses.registry import build_loss
from wardround.common.metrics.noised.encoding import NORM_BOUND, length_of
from wardround.common.models.networks.detection import anchors_of
from wardround.common.privacy.gaussian_mechanism import grid_step
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.patient_privacy import EvaluationPlan
from wardround.common.study.study import Study

CPU = torch.device("cpu")
ANCHORS = anchors_of([(2, 2), (1, 1)], (6, 12), CPU)
PLAN = EvaluationPlan("validation", 4, 3.0, 1e-5)
_NUMBERS = st.floats(width=32, allow_nan=True, allow_infinity=True)


def study_of(kind: str) -> Study:
    classes = {"two": 2, "seven": 7, "labels": 3, "ranked": 5, "masks": 3, "boxes": 2}[kind]
    names = [f"c{number}" for number in range(classes)]
    task = {"masks": "segmentation", "boxes": "detection"}.get(kind, "classification")
    data = {"classes": names, "size": [16, 16], "multi_label": kind == "labels"}
    metric = {"ranked": {"metric": "auroc"}}.get(kind, {})
    network = {"masks": "unet", "boxes": "retinanet"}.get(kind, "small-cnn")
    return parse_study(
        {
            "study": {"name": kind, "task": task},
            "data": data,
            "model": {"network": network, "normalisation": "group"},
            "training": {"batch_size": 4},
            "evaluation": metric,
        }
    )


class Says(nn.Module):
    """A network whose outputs are its images: a server may choose any."""

    def forward(self, images: Tensor) -> Tensor:
        return images


@dataclass
class Cohort:
    """Patients with the outputs that a model gives for each of their examinations."""

    outputs: Tensor
    targets: Tensor
    patients: Tensor

    def batch(self, indices: Tensor) -> Batch:
        return Batch(self.outputs[indices], None, self.targets[indices])

    def stored_mask(self, index: int) -> None:
        return None

    def without(self, patient: int) -> "Cohort":
        kept = self.patients != patient
        others = self.patients[kept]
        return Cohort(self.outputs[kept], self.targets[kept], others - (others > patient).long())


def shapes(study: Study) -> tuple[int, ...]:
    if study.task.boxes:
        return (len(ANCHORS), study.class_count + 4)
    grid = (2, 2) if study.study.task == "segmentation" else ()
    return (study.class_count, *grid)


@st.composite
def cohorts(draw: st.DrawFn, study: Study) -> Cohort:
    counts = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    shape, examinations = shapes(study), sum(counts)
    size = examinations * math.prod(shape)
    numbers = draw(st.lists(_NUMBERS, min_size=size, max_size=size))
    outputs = torch.tensor(numbers, dtype=torch.float32).reshape(examinations, *shape)
    labels = math.prod(shape) if study.data.multi_label else math.prod(shape[1:])
    labels = len(ANCHORS) if study.task.boxes else labels
    top = 1 if study.data.multi_label else study.class_count - 1
    length = examinations * labels
    drawn = draw(st.lists(st.integers(0, top), min_size=length, max_size=length))
    targets = torch.tensor(drawn)
    if study.data.multi_label:
        targets = targets.float().reshape(examinations, -1)
    elif shape[1:]:
        targets = targets.reshape(examinations, *((-1,) if study.task.boxes else shape[1:]))
    patients = torch.tensor([p for p, count in enumerate(counts) for _ in range(count)])
    if study.task.boxes:
        outputs = torch.cat([outputs, ANCHORS.expand(examinations, *ANCHORS.shape)], dim=2)
        targets = boxes_of(targets)
    return Cohort(outputs, targets, patients)


def boxes_of(classes: Tensor) -> Tensor:
    """``(N, M, 5)``: as many boxes as classes ``(N, M)``, the class 0 standing for padding."""
    low = torch.arange(classes.shape[1]) + torch.zeros(classes.shape)
    sides = torch.stack([low, low, low + 3, low + 9], dim=2) * (classes > 0)[..., None]
    return torch.cat([classes[..., None] - 1.0, sides], dim=2)


def total_of(cohort: Cohort, study: Study) -> np.ndarray:
    loss, network, total = build_loss(study, None, CPU), Says(), np.zeros(length_of(study))
    with evaluating(network):
        for vector in patient_vectors(network, cohort, study, CPU, loss):
            total += vector
    return total


@pytest.mark.parametrize("kind", ["two", "seven", "ranked", "labels", "masks"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_patient_more_or_less_moves_the_sum_by_at_most_1(kind: str, data: st.DataObject) -> None:
    study = study_of(kind)
    if kind == "masks":
        study = study.model_copy()
    cohort = data.draw(cohorts(study))
    patient = data.draw(st.integers(0, int(cohort.patients.max())))
    moved = total_of(cohort, study) - total_of(cohort.without(patient), study)
    assert np.isfinite(moved).all()
    assert np.linalg.norm(moved) <= NORM_BOUND * (1 + 1e-9)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_patient_with_any_boxes_moves_the_sum_by_at_most_1(data: st.DataObject) -> None:
    study = study_of("boxes")
    cohort = data.draw(cohorts(study))
    moved = total_of(cohort, study) - total_of(cohort.without(0), study)
    assert np.isfinite(moved).all()
    assert np.linalg.norm(moved) <= NORM_BOUND * (1 + 1e-9)


def test_a_patient_with_many_examinations_weighs_as_much_as_one() -> None:
    study = study_of("two")
    outputs = torch.tensor([[0.0, 3.0]]).repeat(500, 1)
    many = Cohort(outputs, torch.ones(500, dtype=torch.int64), torch.zeros(500, dtype=torch.int64))
    one = Cohort(outputs[:1], many.targets[:1], many.patients[:1])
    assert np.allclose(total_of(many, study), total_of(one, study))
    assert np.linalg.norm(total_of(one, study)) <= NORM_BOUND


def test_outputs_that_are_no_numbers_are_told_and_not_refused() -> None:
    study = study_of("two")
    outputs = torch.tensor([[math.nan, 0.0], [math.inf, math.inf], [0.0, 1.0]])
    cohort = Cohort(outputs, torch.tensor([0, 1, 1]), torch.arange(3))
    assert np.isfinite(total_of(cohort, study)).all()


def test_the_noise_is_as_large_as_the_plan_says_and_lies_on_its_grid() -> None:
    draws = np.concatenate([with_noise(np.zeros(1000), PLAN) for _ in range(40)])
    assert draws.std() == pytest.approx(PLAN.noise_multiplier, rel=0.02)
    assert draws.mean() == pytest.approx(0.0, abs=0.06)
    steps = draws / grid_step(PLAN.noise_multiplier)
    assert (steps == np.round(steps)).all()


def test_no_two_answers_have_the_same_noise_and_nobody_has_noise_too() -> None:
    study = study_of("two")
    nobody = Cohort(torch.zeros(0, 2), torch.zeros(0).long(), torch.zeros(0).long())
    loss = build_loss(study, None, CPU)
    first, second = (
        measure_privately(Says(), nobody, study, CPU, loss, PLAN).vector for _ in range(2)
    )
    assert (first != second).all()
    assert np.abs(first).max() > 0
