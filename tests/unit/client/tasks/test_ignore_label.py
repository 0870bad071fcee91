"""What nobody annotated (data.ignore_label) counts in no loss, no metric, no gradient, no patch."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from tests.unit.client.data.test_cohort import TRAIN_ONLY, open_rows
from tests.unit.client.privacy.gradients.test_clipped_sum import distance, private_network
from torch import Tensor

from wardround.client.data.batch import Batch
from wardround.client.data.patches import foreground_positions
from wardround.client.privacy.gradients.clipped_sum import clipped_gradient_sum
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.tasks.segmentation import Segmentation, count_segmentation
from wardround.client.training.losses.mean_loss import MeanLoss
from wardround.client.training.losses.registry import build_loss
from wardround.common.errors import StudyError
from wardround.common.study.loading import parse_study
from wardround.common.study.registry import LOSSES
from wardround.common.study.study import Study
from wardround.simulations.adversaries.manipulations import flip_targets

CPU = torch.device("cpu")
SEGMENTATION_LOSSES = [name for name, tasks in LOSSES.items() if "segmentation" in tasks]
UNWEIGHTED = ("dice", "generalised-dice", "mse")
IGNORED = 3  # the number of classes: how a mask holds what nobody annotated


def study_of(ignore_label: int | None = 255, **training: Any) -> Study:
    return parse_study(
        {
            "study": {"name": "organs", "task": "segmentation"},
            "data": {
                "classes": ["background", "liver", "spleen"],
                "dimensions": 2,
                "ignore_label": ignore_label,
            },
            "model": {"network": "unet", "features": [4, 6], "normalisation": "group"},
            "training": training,
            "evaluation": TRAIN_ONLY,
        }
    )


def case(rows: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, masks of which all rows from the sixth on are ignored, and what lies beneath."""
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(4, 3, rows, 7, generator=generator)
    truth = torch.randint(0, 3, (4, rows, 7), generator=generator)
    masks = truth.clone()
    masks[:, 6:] = IGNORED
    return logits, masks, truth


def loss_of(name: str, ignore_label: int | None = 255, **training: Any) -> MeanLoss:
    return build_loss(study_of(ignore_label, loss=name, **training), None, CPU)


@pytest.mark.parametrize(
    ("name", "weighted"),
    [(name, False) for name in SEGMENTATION_LOSSES]
    + [(name, True) for name in SEGMENTATION_LOSSES if name not in UNWEIGHTED],
)
def test_a_loss_is_that_of_the_annotated_pixels_alone(name: str, weighted: bool) -> None:
    weights = {"class_weights": [0.5, 2.0, 1.5]} if weighted else {}
    logits, masks, truth = case()
    logits.requires_grad_()
    loss = loss_of(name, **weights)
    found = loss.per_sample(logits, masks)
    wanted = loss_of(name, None, **weights).per_sample(logits[:, :, :6], truth[:, :6])
    torch.testing.assert_close(found, wanted)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert not gradient[:, :, 6:].any()
    assert gradient[:, :, :6].any()


@pytest.mark.parametrize("name", SEGMENTATION_LOSSES)
def test_a_loss_in_parts_is_that_of_the_whole_also_where_a_part_is_ignored(name: str) -> None:
    logits, masks, _ = case()
    loss = loss_of(name)
    parts = loss.in_parts()
    assert parts is not None
    for rows in (slice(0, 3), slice(3, 8), slice(8, 10)):
        parts.add(logits[:, :, rows], masks[:, rows])
    torch.testing.assert_close(parts.mean(), loss(logits, masks))


@pytest.mark.parametrize("name", SEGMENTATION_LOSSES)
def test_an_image_that_nobody_annotated_teaches_nothing_and_breaks_nothing(name: str) -> None:
    logits, masks, _ = case()
    logits.requires_grad_()
    found = loss_of(name).per_sample(logits, torch.full_like(masks, IGNORED))
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert found.tolist() == [0.0] * 4
    assert not gradient.any()


def test_metrics_are_those_of_the_annotated_pixels_alone() -> None:
    study = study_of()
    logits, masks, truth = case()
    found = logits.argmax(1)
    spacings = [(1.0, 2.0)] * 4
    ours = count_segmentation(found, masks, study, spacings)
    cropped = count_segmentation(found[:, :6], truth[:, :6], study_of(None), spacings)
    assert repr(ours) == repr(cropped)
    task = Segmentation()
    np.testing.assert_array_equal(
        task.bounded(logits, masks, study), task.bounded(logits[:, :, :6], truth[:, :6], study)
    )
    counter = task.counter(study, surfaces=False)
    parts = counter.in_parts(masks, keeps_classes=True)
    for rows in (slice(0, 4), slice(4, 10)):
        place = (slice(0, 4), slice(0, 3), rows, slice(0, 7))
        parts.add(place, logits[:, :, rows])
    counter.add_parts(parts, spacings)
    assert repr(counter.sums()) == repr(ours)


@pytest.mark.parametrize("method", ["loop", "vmap", "ghost"])
def test_a_private_step_does_not_see_what_nobody_annotated(method: str) -> None:
    study = study_of(loss="dice-ce")
    network = private_network(study)
    torch.manual_seed(0)
    images = torch.randn(4, 1, 16, 16).double()
    masks = torch.randint(0, 3, (4, 16, 16))
    masks[:, 5:] = IGNORED
    others = torch.where(masks == IGNORED, torch.randint(0, 3, masks.shape), masks)

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return build_loss(study, None, CPU).per_sample(logits, targets)

    def summed(targets: Tensor, how: str) -> dict[str, Tensor]:
        patients = PatientBatch(Batch(images, None, targets), (2, 1, 1))
        return clipped_gradient_sum(network, patients, loss, 1e-2, method=how, microbatch=4)

    wanted = summed(masks, "loop")
    assert distance(summed(masks, method), wanted) < 1e-5
    assert distance(summed(others, method), wanted) > 1e-3


def test_patches_are_never_centred_on_what_nobody_annotated() -> None:
    mask = torch.zeros(40, 40, dtype=torch.uint8)
    mask[:20] = IGNORED
    mask[30:33, 3:5] = 2
    (places,) = foreground_positions(mask, 3)
    assert len(places) == 6
    assert (mask[places[:, 0], places[:, 1]] == 2).all()
    assert foreground_positions(torch.full((4, 4), IGNORED, dtype=torch.uint8), 3) == ()


def test_class_counts_and_cases_leave_out_what_nobody_annotated(tmp_path: Path) -> None:
    rows = []
    for number in range(3):
        labels = np.zeros((16, 16), np.uint8)
        labels[:4], labels[8:10] = 255, number % 3
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / f"m{number}.nii")
        nibabel.save(nibabel.Nifti1Image(labels * 2, np.eye(4)), tmp_path / f"i{number}.nii")
        rows.append(
            {"patient": number, "image": f"i{number}.nii", "mask": f"m{number}.nii",
             "split": "train"}
        )  # fmt: skip
    train = open_rows(tmp_path, rows, study_of()).train
    counts = train.class_counts()
    assert counts is not None
    assert counts.tolist() == [3 * 12 * 16 - 64, 32, 32]
    assert train.targets.tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
    assert int(train.case(0).targets.max()) == IGNORED


def test_a_site_that_flips_labels_leaves_what_nobody_annotated() -> None:
    assert flip_targets(torch.tensor([0, 1, 2, IGNORED]), 3).tolist() == [2, 1, 0, IGNORED]


@pytest.mark.parametrize(
    ("label", "words"), [(1, "is the class 'liver'"), (0, "is the class 'background'")]
)
def test_a_class_of_the_study_cannot_be_ignored(label: int, words: str) -> None:
    with pytest.raises(StudyError, match=f"data.ignore_label = {label} {words}"):
        study_of(label)
