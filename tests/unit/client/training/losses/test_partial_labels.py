"""Classes that a site has not annotated are neither background nor scored."""

import numpy as np
import pytest
import torch
from tests.support.hospitals.image_ward import ward_study
from torch.nn import functional as F

from wardround.client.tasks.segmentation import SegmentationCounter
from wardround.client.training.losses.mean_loss import LossInParts
from wardround.client.training.losses.partial_labels import PartialLabels
from wardround.client.training.losses.registry import LOSS_BUILDERS, build_loss
from wardround.common.metrics.classification import ClassificationSums
from wardround.common.study.study import Study

CPU = torch.device("cpu")
KEPT = (0, 2)  # the liver, class 1, was not annotated
MARGINAL = ["cross-entropy", "focal", "dice", "dice-ce", "generalised-dice", "mse"]


def study_for(loss: str = "dice-ce") -> Study:
    return ward_study(labels={"partial": True}, training={"loss": loss})


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 3, 4, 4, 4, generator=generator, requires_grad=True)
    return logits, torch.randint(0, 2, (3, 4, 4, 4), generator=generator) * 2


def test_the_marginal_cross_entropy_is_that_of_summed_probabilities() -> None:
    logits, targets = drawn()
    loss = build_loss(study_for("cross-entropy"), None, CPU, KEPT)
    p = logits.softmax(1)
    merged = torch.stack([p[:, 0] + p[:, 1], p[:, 2]], dim=1)
    expected = F.nll_loss(merged.log(), targets // 2)
    torch.testing.assert_close(loss(logits, targets), expected)


@pytest.mark.parametrize("name", MARGINAL)
def test_a_loss_does_not_say_which_of_background_and_missing_class_a_voxel_is(name: str) -> None:
    logits, targets = drawn()
    loss = build_loss(study_for(name), None, CPU, KEPT)
    mirrored = logits[:, [1, 0, 2]]
    torch.testing.assert_close(loss(logits, targets), loss(mirrored, targets))
    # A voxel of the missing class that was taken for background counts the same, too.
    as_liver = torch.where(targets == 0, 1, targets)
    torch.testing.assert_close(loss(logits, targets), loss(logits, as_liver))
    (gradient,) = torch.autograd.grad(loss(logits, targets), logits)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", MARGINAL)
def test_a_loss_in_parts_is_the_loss_of_the_whole(name: str) -> None:
    logits, targets = drawn()
    loss = build_loss(study_for(name), None, CPU, KEPT)
    parts = LossInParts(loss)
    parts.add(logits[:, :, :2].detach(), targets[:, :2])
    parts.add(logits[:, :, 2:].detach(), targets[:, 2:])
    torch.testing.assert_close(parts.mean(), loss(logits, targets).detach())


@pytest.mark.parametrize("name", MARGINAL)
def test_each_patient_has_a_gradient_of_its_own(name: str) -> None:
    logits, targets = drawn()
    loss = build_loss(study_for(name), None, CPU, KEPT)

    def of_one(one: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return loss.per_sample(one[None], target[None])[0]

    together = torch.func.vmap(torch.func.grad(of_one))(logits.detach(), targets)
    each = torch.stack([torch.func.grad(of_one)(logits.detach()[n], targets[n]) for n in range(3)])
    torch.testing.assert_close(together, each)


def test_a_class_that_was_not_annotated_is_not_scored() -> None:
    study, partial = study_for(), PartialLabels(KEPT, 3, is_exclusive=True)
    targets = torch.zeros(1, 4, 4, 4, dtype=torch.int64)
    targets[:, 2:] = 2
    logits = torch.full((1, 3, 4, 4, 4), -5.0)
    logits[:, 2, 2:] = 5.0
    logits[:, 1, :2] = 5.0  # a liver where the site marked nothing
    counter = SegmentationCounter(study, surfaces=False)
    counter.add(partial.scored(logits), targets, None)
    sums = counter.sums()
    assert sums.dice_cases.tolist() == [1, 0, 1]
    assert sums.dice[2] == pytest.approx(1)
    assert sums.false_positives.tolist() == [0, 0, 0]


def test_a_label_that_was_not_looked_for_is_of_no_examination() -> None:
    partial = PartialLabels((0, 2), 3, is_exclusive=False)
    tables, bins = np.full((3, 2, 2), 5), np.full((3, 10), 1)
    sums = ClassificationSums(tables, bins, bins, np.full(3, 4.0))
    found = partial.scored_sums(sums)
    assert isinstance(found, ClassificationSums)
    assert found.confusion.sum(axis=(1, 2)).tolist() == [20, 0, 20]
    arrays = {name: np.asarray(values) for name, values in found.to_arrays().items()}
    assert ClassificationSums.from_arrays(arrays, 20).ordered_pairs is not None


def test_without_classes_missing_the_loss_is_what_it_was() -> None:
    logits, targets = drawn()
    study = study_for("dice-ce")
    whole = build_loss(study, None, CPU)
    assert whole.partial is None
    expected = LOSS_BUILDERS["dice-ce"](logits, targets, None).mean()
    assert torch.equal(whole(logits, targets), expected)
