import math
from dataclasses import dataclass, field

import pytest
import torch
from sklearn.metrics import accuracy_score, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from wardround.client.data.batch import Batch
from wardround.client.training.evaluation import evaluate, evaluating, predict, without_tta
from wardround.common.errors import RunError
from wardround.common.metrics.segmentation import SegmentationSums
from wardround.common.metrics.sums import merge, summarise
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

CPU = torch.device("cpu")


def segmentation_study(dimensions=2, size=None, **training) -> Study:
    return parse_study(
        {
            "study": {"name": "organs", "task": "segmentation"},
            "data": {
                "classes": ["background", "liver", "spleen"],
                "dimensions": dimensions,
                **({} if size is None else {"size": size}),
            },
            "model": {"network": "unet"},
            "training": training,
        }
    )


def classification_study(data=None, **training) -> Study:
    return parse_study(
        {
            "study": {"name": "nodules", "task": "classification"},
            "data": {"classes": ["benign", "malignant"], "size": [4, 4], **(data or {})},
            "model": {"network": "mlp"},
            "training": training,
        }
    )


@dataclass
class FakeCohort:
    """Examinations held as batches of one."""

    cases: list[Batch]
    spacings: list[tuple[float, ...]] = field(default_factory=list)

    def __len__(self):
        return len(self.cases)

    def case(self, index, device=CPU):
        return self.cases[index].to(device)

    def spacing(self, index):
        return self.spacings[index]

    def stored_mask(self, index):
        return None

    def batch(self, indices, generator=None, device=CPU):
        chosen = [self.cases[index] for index in indices.tolist()]

        def joined(name):
            parts = [getattr(case, name) for case in chosen]
            return None if parts[0] is None else torch.cat(parts)

        return Batch(joined("images"), joined("covariates"), joined("targets")).to(device)


def cohort_of(images: Tensor, targets: Tensor) -> FakeCohort:
    pairs = zip(images.split(1), targets.split(1), strict=True)
    return FakeCohort([Batch(image, None, target) for image, target in pairs])


class AnswersInImage(nn.Module):
    """Takes the class indices that stand in the image as its prediction."""

    def forward(self, images: Tensor) -> Tensor:
        return F.one_hot(images[:, 0].long(), 3).movedim(-1, 1).float() * 20


def seeded(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def values_of(sums, study):
    return {(value.metric, value.class_name): value for value in summarise(sums, study)}


# --- Classification ---------------------------------------------------------------------------


def test_a_classification_is_measured_over_all_batches_as_over_one():
    images = torch.randn(25, 1, 4, 4, generator=seeded(1))
    targets = (images.mean(dim=(1, 2, 3)) + 0.2 * torch.randn(25, generator=seeded(2)) > 0).long()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    study = classification_study(batch_size=8)

    sums = evaluate(network, cohort_of(images, targets), study, CPU, F.cross_entropy)

    with torch.no_grad():
        logits = network(images)
    values = values_of(sums, study)
    scores = logits.double().softmax(dim=1)[:, 1]
    assert sums.examinations == 25
    assert values["loss", ""].value == pytest.approx(float(F.cross_entropy(logits, targets)))
    assert values["accuracy", ""].value == accuracy_score(targets, logits.argmax(dim=1))
    assert values["auroc", ""].value == pytest.approx(roc_auc_score(targets, scores))


def test_a_table_study_is_measured_on_its_covariates():
    study = classification_study(
        {"kind": "table", "size": None, "channels": [], "covariates": [{"name": "age"}]}
    )
    ages = torch.tensor([[-2.0], [-1.0], [1.0], [3.0]])
    cohort = FakeCohort([Batch(None, age, torch.tensor([int(age > 0)])) for age in ages.split(1)])
    network = nn.Linear(1, 2)
    nn.init.constant_(network.bias, 0)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[-1.0], [1.0]]))

    values = values_of(evaluate(network, cohort, study, CPU, F.cross_entropy), study)

    assert values["accuracy", ""].value == 1.0
    assert values["auroc", ""].value == 1.0


def test_multi_label_examinations_are_measured_by_label():
    study = classification_study({"multi_label": True})
    images = torch.randn(12, 1, 4, 4, generator=seeded(3))
    targets = (images.flatten(1)[:, :2] > 0).float()
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.eye(2, 16))
    loss = F.binary_cross_entropy_with_logits

    values = values_of(evaluate(network, cohort_of(images, targets), study, CPU, loss), study)

    assert values["accuracy", ""].value == 1.0
    assert values["auroc", "malignant"].value == 1.0


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_measured_close_to_single_precision(precision):
    images, targets = torch.randn(32, 1, 4, 4, generator=seeded(4)), torch.arange(32) % 2
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    cohort = cohort_of(images, targets)

    single = evaluate(network, cohort, classification_study(), CPU, F.cross_entropy)
    half = evaluate(
        network, cohort, classification_study(precision=precision), CPU, F.cross_entropy
    )

    assert half.loss != single.loss
    assert half.loss == pytest.approx(single.loss, rel=0.02)


def test_a_diverged_network_is_refused_with_a_remedy():
    images, targets = torch.zeros(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    nn.init.constant_(network[1].bias, math.nan)

    with pytest.raises(RunError, match=r"lower training\.learning_rate"):
        evaluate(network, cohort_of(images, targets), classification_study(), CPU, F.cross_entropy)


@pytest.mark.parametrize("study", [classification_study(), segmentation_study()])
def test_an_empty_cohort_gives_sums_that_change_nothing(study):
    sums = evaluate(nn.Identity(), FakeCohort([]), study, CPU, F.cross_entropy)

    assert sums.examinations == 0
    assert merge(sums, sums).loss == 0.0


# --- The network's mode -----------------------------------------------------------------------


def test_evaluation_leaves_every_module_in_the_mode_it_had():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.BatchNorm1d(16), nn.Linear(16, 2))
    network.train()
    network[2].eval()  # frozen, as in a network that keeps its normalisation
    statistics = network[2].running_mean.clone()

    evaluate(
        network,
        cohort_of(torch.ones(4, 1, 4, 4), torch.arange(4) % 2),
        classification_study(),
        CPU,
        F.cross_entropy,
    )

    assert [module.training for module in network] == [True, True, False, True]
    assert torch.equal(network[2].running_mean, statistics)


def test_the_mode_is_restored_after_an_error():
    network = nn.Linear(1, 1)

    def fail() -> None:
        assert not network.training
        raise RunError

    with pytest.raises(RunError), evaluating(network):
        fail()
    assert network.training


# --- Segmentation -----------------------------------------------------------------------------


def test_dice_equals_monai_where_classes_are_missing_from_some_cases():
    from monai.metrics import DiceMetric

    study = segmentation_study(size=[16, 16], batch_size=4)
    truth = torch.randint(0, 3, (10, 16, 16), generator=seeded(5))
    truth[:3][truth[:3] == 2] = 0
    noise = torch.rand(truth.shape, generator=seeded(6)) < 0.3
    found = torch.where(noise, torch.randint(0, 3, truth.shape, generator=seeded(7)), truth)
    found[4][found[4] == 1] = 0

    sums = evaluate(
        AnswersInImage(), cohort_of(found[:, None].float(), truth), study, CPU, F.cross_entropy
    )

    metric = DiceMetric(include_background=False, reduction="mean_batch", ignore_empty=True)
    metric(*(F.one_hot(mask, 3).movedim(-1, 1) for mask in (found, truth)))
    expected = metric.aggregate()
    values = values_of(sums, study)
    assert values["dice", "liver"].value == pytest.approx(float(expected[0]))
    assert values["dice", "spleen"].value == pytest.approx(float(expected[1]))
    assert values["dice", ""].value == pytest.approx(float(expected.mean()))
    assert values["dice", "spleen"].support == 7
    assert ("hd95", "") not in values
    assert isinstance(sums.measured, SegmentationSums)
    assert sums.measured.false_positives[2] == int(((found == 2) & (truth != 2)).sum())
    assert sums.measured.false_negatives[1] == int(((found != 1) & (truth == 1)).sum())


def test_ragged_volumes_are_measured_one_by_one_with_their_own_spacing():
    study = segmentation_study(dimensions=3)
    cases, spacings = [], [(1.0, 1.0, 2.0), (3.0, 1.0, 1.0)]
    for sizes in ((5, 9, 7), (11, 3, 8)):
        truth = torch.zeros((1, *sizes), dtype=torch.int64)
        truth[0, 1, 1, 1] = 1
        found = torch.zeros_like(truth)
        found[0, 2, 1, 2] = 1
        cases.append(Batch(found[:, None].float(), None, truth))

    sums = evaluate(
        AnswersInImage(), FakeCohort(cases, spacings), study, CPU, F.cross_entropy, surfaces=True
    )

    values = values_of(sums, study)
    # One step along the first axis and one along the last: sqrt(1 + 4) and sqrt(9 + 1) mm.
    assert values["hd95", "liver"].value == pytest.approx((math.sqrt(5) + math.sqrt(10)) / 2)
    assert values["hd95", "liver"].support == 2
    assert values["surface-dice", "liver"].value == 0.0
    assert math.isnan(values["hd95", "spleen"].value)
    assert values["hd95", "spleen"].support == 0


def test_a_study_of_patches_is_measured_over_whole_cases():
    study = segmentation_study(size=[48, 32], patch_size=[16, 16], batch_size=4)
    truth = torch.randint(0, 3, (3, 48, 32), generator=seeded(10))

    sums = evaluate(
        AnswersInImage(), cohort_of(truth[:, None].float(), truth), study, CPU, F.cross_entropy
    )

    assert isinstance(sums.measured, SegmentationSums)
    assert sums.measured.true_positives.sum() == truth.numel()
    assert values_of(sums, study)["dice", ""].value == 1.0


def test_mirrored_images_are_seen_in_every_way_and_their_answers_averaged():
    content = segmentation_study(size=[16, 16]).model_dump(mode="python", exclude_unset=True)
    content["data"]["augmentation"] = "nnunet"
    content["evaluation"] = {"tta": "mirror"}
    study = parse_study(content)
    torch.manual_seed(0)
    network = nn.Conv2d(1, 3, 3, padding=1)
    images = torch.randn(2, 1, 16, 16)
    batch = Batch(images, None, torch.zeros(2, 16, 16, dtype=torch.int64))
    with evaluating(network):
        found = predict(network, batch, study)
        views = [network(images.flip(axes)).flip(axes) for axes in ([], [2], [3], [2, 3])]
        once = predict(network, batch, without_tta(study))
    torch.testing.assert_close(found, torch.stack(views).mean(0))
    torch.testing.assert_close(once, views[0])
