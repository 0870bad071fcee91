"""The losses agree with torch's and MONAI's, and with the papers."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional as F

from wardround.client.data.batch import Batch, mixed
from wardround.client.training.losses.labels import (
    bce,
    cross_entropy,
    dice,
    dice_ce,
    focal,
    generalised_dice,
    mse,
)
from wardround.client.training.losses.mean_loss import MeanLoss
from wardround.client.training.losses.registry import LOSS_BUILDERS, balanced_weights, build_loss
from wardround.common.errors import StudyError
from wardround.common.study.loading import parse_study
from wardround.common.study.registry import LOSSES
from wardround.common.study.study import Study

CPU = torch.device("cpu")
WEIGHTS = torch.tensor([0.5, 2.0, 1.5])
# Those of boxes are held by tests/unit/client/tasks/test_detection.py.
OF_PIXELS = tuple(name for name in LOSS_BUILDERS if "segmentation" in LOSSES[name])


def study_for(task: str = "classification", multi_label: bool = False, **training: Any) -> Study:
    segmentation = task == "segmentation"
    return parse_study(
        {
            "study": {"name": "losses", "task": task},
            "data": {"classes": ["a", "b", "c"], "size": [16, 16], "multi_label": multi_label},
            "model": {"network": "unet" if segmentation else "small-cnn"},
            "training": training,
        }
    )


@pytest.fixture(params=[(), (9, 7), (5, 6, 4)], ids=["labels", "2d", "3d"])
def case(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """Logits of four samples and three classes, with class indices."""
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(4, 3, *request.param, generator=generator)
    return logits, torch.randint(0, 3, (4, *request.param), generator=generator)


@pytest.fixture(params=[(9, 7), (5, 6, 4)], ids=["2d", "3d"])
def mask_case(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """Like ``case``; the second sample lacks class 2, the third is all background."""
    generator = torch.Generator().manual_seed(4)
    logits = 2 * torch.randn(4, 3, *request.param, generator=generator)
    targets = torch.randint(0, 3, (4, *request.param), generator=generator)
    targets[1] = targets[1].clamp(max=1)
    targets[2] = 0
    return logits, targets


def test_there_is_a_loss_for_every_name_of_the_catalogue_and_no_other() -> None:
    assert set(LOSS_BUILDERS) == set(LOSSES)


def test_cross_entropy_is_that_of_torch(case: tuple[Tensor, Tensor]) -> None:
    logits, targets = case
    ours = cross_entropy(logits, targets, None)
    assert ours.shape == (4,)
    torch.testing.assert_close(ours.mean(), F.cross_entropy(logits, targets))


def test_weighted_cross_entropy_is_the_plain_mean_of_weighted_samples(
    case: tuple[Tensor, Tensor],
) -> None:
    logits, targets = case
    ours = cross_entropy(logits, targets, WEIGHTS).mean()
    by_torch = F.cross_entropy(logits, targets, WEIGHTS) * WEIGHTS[targets].mean()
    torch.testing.assert_close(ours, by_torch)


def test_focal_loss_is_that_of_monai(case: tuple[Tensor, Tensor]) -> None:
    from monai.losses import FocalLoss

    logits, targets = case
    for weights in (None, WEIGHTS):
        theirs = FocalLoss(
            to_onehot_y=True, use_softmax=True, gamma=2.0, weight=weights, reduction="none"
        )(logits, targets.unsqueeze(1))
        ours = focal(logits, targets, weights)
        torch.testing.assert_close(ours, theirs.sum(1).reshape(4, -1).mean(1))


def test_focal_loss_of_several_labels_is_that_of_monai() -> None:
    from monai.losses import FocalLoss

    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(5))
    targets = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0]]).float()
    ours = focal(logits, targets, None).mean()
    torch.testing.assert_close(ours, FocalLoss(gamma=2.0)(logits, targets))


def test_focal_loss_by_hand() -> None:
    # p = 0.9: (1 - 0.9)^2 * -log 0.9; the example of Lin et al. section 3.2, "100 x lower".
    logits = torch.tensor([[0.9, 0.1]]).log()
    plain = cross_entropy(logits, torch.tensor([0]), None)
    ours = focal(logits, torch.tensor([0]), None)
    torch.testing.assert_close(ours, plain / 100)


def test_bce_is_that_of_torch_for_classes_and_for_several_labels(
    case: tuple[Tensor, Tensor],
) -> None:
    logits, targets = case
    truth = F.one_hot(targets, 3).movedim(-1, 1).float()
    by_torch = F.binary_cross_entropy_with_logits(logits, truth)
    torch.testing.assert_close(bce(logits, targets, None).mean(), by_torch)
    torch.testing.assert_close(bce(logits, truth, None).mean(), by_torch)
    shape = (3,) + (1,) * (logits.ndim - 2)
    weighted = F.binary_cross_entropy_with_logits(logits, truth, weight=WEIGHTS.reshape(shape))
    torch.testing.assert_close(bce(logits, targets, WEIGHTS).mean(), weighted)


def test_dice_is_that_of_monai(mask_case: tuple[Tensor, Tensor]) -> None:
    from monai.losses import DiceLoss

    logits, targets = mask_case
    theirs = DiceLoss(
        include_background=False, to_onehot_y=True, softmax=True, reduction="none", batch=False
    )(logits, targets.unsqueeze(1))
    torch.testing.assert_close(dice(logits, targets), theirs.flatten(1).mean(1))


def test_dice_ce_is_that_of_monai(mask_case: tuple[Tensor, Tensor]) -> None:
    from monai.losses import DiceCELoss

    logits, targets = mask_case
    theirs = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    torch.testing.assert_close(
        dice_ce(logits, targets, None).mean(), theirs(logits, targets.unsqueeze(1))
    )


def test_generalised_dice_is_that_of_monai(mask_case: tuple[Tensor, Tensor]) -> None:
    from monai.losses import GeneralizedDiceLoss

    logits, targets = mask_case
    # Without smoothing, which the two scale differently.
    theirs = GeneralizedDiceLoss(
        to_onehot_y=True, softmax=True, reduction="none", smooth_nr=0, smooth_dr=1e-30
    )(logits, targets.unsqueeze(1))
    torch.testing.assert_close(
        generalised_dice(logits, targets), theirs.flatten(), rtol=1e-4, atol=1e-4
    )


def test_generalised_dice_still_sees_the_classes_of_a_large_image() -> None:
    targets = torch.zeros(1, 512, 512, dtype=torch.int64)
    targets[:, :256] = 1
    wrong = 20.0 * F.one_hot(1 - targets, 2).movedim(-1, 1)
    assert float(generalised_dice(wrong, targets)) > 0.99


def test_mse_is_the_brier_score(case: tuple[Tensor, Tensor]) -> None:
    logits, targets = case
    truth = F.one_hot(targets, 3).movedim(-1, 1).float()
    torch.testing.assert_close(mse(logits, targets).mean(), F.mse_loss(logits.softmax(1), truth))
    torch.testing.assert_close(mse(logits, truth).mean(), F.mse_loss(logits.sigmoid(), truth))


@pytest.mark.parametrize("name", OF_PIXELS)
def test_a_sample_has_the_same_loss_alone_and_in_any_batch(
    name: str, mask_case: tuple[Tensor, Tensor]
) -> None:
    logits, targets = mask_case
    loss = build_loss(study_for("segmentation", loss=name), None, CPU)
    together = loss.per_sample(logits, targets)
    standalone = torch.cat(
        [loss.per_sample(logits[i : i + 1], targets[i : i + 1]) for i in range(4)]
    )
    assert together.shape == (4,)
    torch.testing.assert_close(together, standalone)
    torch.testing.assert_close(loss(logits, targets), together.mean())


@pytest.mark.parametrize("name", OF_PIXELS)
def test_every_loss_gives_per_sample_gradients_under_vmap(
    name: str, mask_case: tuple[Tensor, Tensor]
) -> None:
    logits, targets = mask_case
    loss = build_loss(study_for("segmentation", loss=name), None, CPU)

    def of_one(sample: Tensor, target: Tensor) -> Tensor:
        return loss(sample.unsqueeze(0), target.unsqueeze(0))

    by_vmap = torch.func.vmap(torch.func.grad(of_one))(logits, targets)
    leaf = logits.clone().requires_grad_()
    loss.per_sample(leaf, targets).sum().backward()
    torch.testing.assert_close(by_vmap, leaf.grad)


@pytest.mark.parametrize("name", OF_PIXELS)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 3, (2, 4, 4), generator=generator)
    of_samples = LOSS_BUILDERS[name]
    assert torch.autograd.gradcheck(
        lambda x: of_samples(x, targets, None), (logits,), eps=1e-6, atol=1e-4
    )


@pytest.mark.parametrize("name", OF_PIXELS)
def test_a_perfect_prediction_costs_nothing(name: str, mask_case: tuple[Tensor, Tensor]) -> None:
    _, targets = mask_case
    logits = 60 * (F.one_hot(targets, 3).movedim(-1, 1).float() - 0.5)
    loss = build_loss(study_for("segmentation", loss=name), None, CPU)
    assert float(loss(logits, targets)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", OF_PIXELS)
def test_certain_and_wrong_predictions_have_finite_gradients(
    name: str, mask_case: tuple[Tensor, Tensor]
) -> None:
    _, targets = mask_case
    logits = (-1e4 * F.one_hot(targets, 3).movedim(-1, 1)).float().requires_grad_()
    loss = build_loss(study_for("segmentation", loss=name), None, CPU)(logits, targets)
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = np.repeat([0, 1, 2], [7, 2, 31])
    golden = compute_class_weight("balanced", classes=np.array([0, 1, 2]), y=labels)
    ours = balanced_weights(torch.tensor([7, 2, 31]))
    torch.testing.assert_close(ours, torch.from_numpy(golden).float())


def test_an_absent_class_weighs_nothing_and_the_mean_weight_stays_one() -> None:
    counts = torch.tensor([6, 0, 2])
    weights = balanced_weights(counts)
    assert weights.tolist() == pytest.approx([8 / 12, 0.0, 2.0])
    assert float((weights * counts).sum() / counts.sum()) == pytest.approx(1)


def test_the_study_chooses_the_weights() -> None:
    counts = torch.tensor([1, 1, 2])
    balanced = build_loss(study_for(class_weights="balanced"), counts, CPU)
    given = build_loss(study_for(class_weights=[1.0, 2.0, 3.0]), counts, CPU)
    plain = build_loss(study_for(), counts, CPU)
    assert balanced.class_weights is not None
    assert balanced.class_weights.tolist() == pytest.approx([4 / 3, 4 / 3, 2 / 3])
    assert given.class_weights is not None
    assert given.class_weights.tolist() == [1.0, 2.0, 3.0]
    assert plain.class_weights is None


def test_several_labels_take_bce_where_nothing_is_chosen() -> None:
    loss = build_loss(study_for(multi_label=True), None, CPU)
    logits, truth = torch.zeros(2, 3), torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    assert float(loss(logits, truth)) == pytest.approx(np.log(2), rel=1e-6)


def test_balanced_weights_without_counts_are_refused() -> None:
    with pytest.raises(StudyError, match="give the weights as numbers"):
        build_loss(study_for(class_weights="balanced"), None, CPU)


def test_half_precision_logits_give_a_float32_loss() -> None:
    loss = build_loss(study_for(), None, CPU)
    value = loss(torch.randn(2, 3, dtype=torch.bfloat16), torch.tensor([0, 2]))
    assert value.dtype == torch.float32


@pytest.mark.parametrize("name", sorted(OF_PIXELS))
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_an_image_in_parts_is_that_of_the_whole(
    mask_case: tuple[Tensor, Tensor], name: str, weighted: bool
) -> None:
    logits, targets = mask_case
    loss = MeanLoss(LOSS_BUILDERS[name], WEIGHTS if weighted else None)
    parts = loss.in_parts()
    assert parts is not None, "each loss of the catalogue can be taken apart"
    for begin, end in ((0, 2), (2, 3), (3, logits.shape[2])):
        parts.add(logits[:, :, begin:end], targets[:, begin:end])
    torch.testing.assert_close(parts.mean(), loss(logits, targets))


def test_a_loss_that_nobody_knows_how_to_take_apart_is_computed_whole() -> None:
    unknown = MeanLoss(lambda logits, targets, weights: logits.flatten(1).mean(1))
    assert unknown.in_parts() is None


def test_coarser_levels_weigh_half_as_much_each_and_look_at_coarser_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 3, (2, 8, 12, 8), generator=generator)
    levels = tuple(
        torch.randn(2, 3, 8 // step, 12 // step, 8 // step, generator=generator)
        for step in (1, 2, 4)
    )
    loss = MeanLoss(dice_ce)
    parts = [
        float(loss(said, masks[:, ::step, ::step, ::step]))
        for said, step in zip(levels, (1, 2, 4), strict=True)
    ]
    expected = (parts[0] + 0.5 * parts[1] + 0.25 * parts[2]) / 1.75
    assert float(loss(levels, masks)) == pytest.approx(expected, rel=1e-5)
    assert float(loss(levels[:1], masks)) == pytest.approx(parts[0], rel=1e-5)


def test_smoothed_labels_are_those_of_torch_also_where_labels_are_shares() -> None:
    logits, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    loss = build_loss(study_for(label_smoothing=0.1), None, CPU)
    expected = F.cross_entropy(logits, targets, label_smoothing=0.1)
    torch.testing.assert_close(loss(logits, targets), expected)
    shares = F.one_hot(targets, 3).float()
    torch.testing.assert_close(loss(logits, shares), expected)


def test_mixed_examples_and_their_labels_are_mixed_alike() -> None:
    images = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 1, 4, 4)
    batch = Batch(images, None, torch.tensor([0, 1, 2, 0, 1, 2]))
    seed = torch.Generator().manual_seed(3)
    found = mixed(batch, 0.4, 3, seed)
    again = mixed(batch, 0.4, 3, torch.Generator().manual_seed(3))
    assert found.images is not None
    assert again.images is not None
    assert torch.equal(found.images, again.images)
    torch.testing.assert_close(found.targets.sum(1), torch.ones(6))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    share = (found.images[:, 0, 0, 0] - order) / (torch.arange(6.0) - order)
    share = share[order != torch.arange(6)]
    torch.testing.assert_close(share, share[:1].expand_as(share))
    expected = F.one_hot(batch.targets, 3) * share[0]
    expected = expected + F.one_hot(batch.targets[order], 3) * (1 - share[0])
    torch.testing.assert_close(found.targets, expected)
