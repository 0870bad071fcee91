"""What predictions say of joining: metrics as the catalogue has them, the word, the choice."""

from typing import Any

import numpy as np
import pytest
import torch

from wardround.client.tasks.classification import count_classification
from wardround.common.metrics.sums import MetricSums, summarise
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.evidence.intervals.metric_estimates import estimate, estimates_by_class
from wardround.simulations.evidence.joining import judge_sites
from wardround.simulations.run_files.predictions import Masks, Scores

CLASSES = ["a", "b", "c"]


def study_of(metric: str, multi_label: bool = False, **sections: dict[str, Any]) -> Study:
    return parse_study(
        {
            "study": {"name": "joining", "task": "classification"},
            "data": {"classes": CLASSES, "size": [8, 8], "multi_label": multi_label},
            "model": {"network": "small-cnn"},
            "evaluation": {"metric": metric},
            **sections,
        }
    )


def segmentation() -> Study:
    return parse_study(
        {
            "study": {"name": "joining", "task": "segmentation"},
            "data": {"classes": ["background", "liver"], "dimensions": 2, "size": [16, 16]},
            "model": {"network": "unet"},
        }
    )


def scores_of(logits: torch.Tensor, targets: torch.Tensor, multi_label: bool = False) -> Scores:
    found = torch.sigmoid(logits.double()) if multi_label else logits.double().softmax(1)
    labels = targets > 0.5 if multi_label else torch.nn.functional.one_hot(targets, 3) > 0
    cases = np.arange(len(logits))
    return Scores(cases, cases, found.numpy(), labels.numpy())


@pytest.mark.parametrize("metric", ["accuracy", "balanced-accuracy", "f1", "auroc"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_an_estimate_is_the_metric_of_the_catalogue(metric: str, multi_label: bool) -> None:
    torch.manual_seed(0)
    study, logits = study_of(metric, multi_label), torch.randn(60, 3)
    targets = (torch.rand(60, 3) < 0.3).float() if multi_label else torch.randint(0, 3, (60,))
    sums = MetricSums(60, 0.0, count_classification(logits, targets, study))
    wanted = {value.metric: value.value for value in summarise(sums, study) if not value.class_name}
    found = estimate(metric, scores_of(logits, targets, multi_label), study)
    assert found.value == pytest.approx(wanted[metric], abs=1e-9)
    assert found.influence.sum() == pytest.approx(0, abs=1e-9)


def test_a_loss_that_scores_do_not_tell_is_not_defined() -> None:
    logits, targets = torch.randn(20, 3), torch.randint(0, 3, (20,))
    cases = scores_of(logits, targets)
    plain = estimate("loss", cases, study_of("loss"))
    assert plain.value == pytest.approx(float(torch.nn.functional.cross_entropy(logits, targets)))
    weighted = study_of("loss", training={"class_weights": "balanced"})
    assert np.isnan(estimate("loss", cases, weighted).value)


def test_two_classes_have_no_parts_of_their_own() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random((20, 3))
    cases = Scores(np.arange(20), np.arange(20), scores, scores > 0.5)
    assert set(estimates_by_class("auroc", cases, study_of("auroc"))) == set(CLASSES)
    binary = Scores(cases.cases, cases.patients, scores[:, :2], scores[:, :2] > 0.5)
    study = parse_study(
        {
            "study": {"name": "two", "task": "classification"},
            "data": {"classes": ["a", "b"], "size": [8, 8]},
            "model": {"network": "small-cnn"},
        }
    )
    assert estimates_by_class("auroc", binary, study) == {}


def masks(dice: np.ndarray, cases: np.ndarray | None = None) -> Masks:
    size = len(dice)
    numbers = np.arange(size) if cases is None else cases
    column = dice[:, None]
    return Masks(numbers, numbers, column, 10 * (1 - column), *[column] * 6)


def federation(gains: dict[str, float], count: int = 80) -> dict[tuple[str, str, str], Masks]:
    """Return hospitals whose federated Dice is better by a gain, on validation and on test."""
    generator, found = np.random.default_rng(0), {}
    for site, gain in gains.items():
        for split in ("validation", "test"):
            own = np.clip(generator.normal(0.7, 0.05, count), 0, 1)
            better = np.clip(own + gain + generator.normal(0, 0.02, count), 0, 1)
            found[f"local-{site}", site, split] = masks(own)
            found["federated", site, split] = masks(better)
    return found


def test_each_hospital_gets_its_word_and_its_model() -> None:
    cases = federation({"helped": 0.1, "hurt": -0.1, "same": 0.0})
    helped, hurt, same = judge_sites(cases, ["helped", "hurt", "same"], segmentation())
    assert (helped.joining.word, helped.choice.kind) == ("yes", "global")
    assert (hurt.joining.word, hurt.choice.kind) == ("no", "own")
    assert same.joining.word == "no"
    assert hurt.choice.gain.value == 0.0
    assert helped.choice.gain.value == pytest.approx(helped.own.value)
    assert helped.ensemble is None


def test_the_choice_does_not_see_the_test_patients() -> None:
    cases = federation({"a": 0.1})
    before = judge_sites(cases, ["a"], segmentation())[0].choice
    turned = {
        **cases,
        ("federated", "a", "test"): cases["local-a", "a", "test"],
        ("local-a", "a", "test"): cases["federated", "a", "test"],
    }
    after = judge_sites(turned, ["a"], segmentation())[0].choice
    assert (before.kind, before.validation) == (after.kind, after.validation)
    assert after.gain.value == pytest.approx(-before.gain.value)


def test_of_equal_models_the_hospitals_own_is_chosen() -> None:
    cases = federation({"a": 0.1})
    cases["federated", "a", "validation"] = cases["local-a", "a", "validation"]
    assert judge_sites(cases, ["a"], segmentation())[0].choice.kind == "own"


def test_without_validation_patients_nothing_is_chosen() -> None:
    cases = {key: value for key, value in federation({"a": 0.1}).items() if key[2] == "test"}
    choice = judge_sites(cases, ["a"], segmentation())[0].choice
    assert (choice.kind, choice.validation_patients) == ("global", 0)


def test_a_personalised_study_chooses_among_three_models() -> None:
    generator = np.random.default_rng(1)
    labels = np.eye(3, dtype=bool)[np.arange(90) % 3]
    quality = {"local-a": 1.0, "shared": 3.0, "federated": 2.0}
    cases = {
        (model, "a", split): Scores(
            np.arange(90),
            np.arange(90),
            (score := np.exp(labels * good + generator.standard_normal((90, 3))))
            / score.sum(axis=1, keepdims=True),
            labels,
        )
        for model, good in quality.items()
        for split in ("validation", "test")
    }
    study = study_of("auroc", federation={"strategy": "ditto"})
    assert judge_sites(cases, ["a"], study)[0].choice.kind == "global"
    del cases["shared", "a", "validation"]
    assert judge_sites(cases, ["a"], study)[0].choice.kind == "personalised"


def test_a_hospital_whose_models_saw_other_patients_is_not_compared() -> None:
    cases = federation({"a": 0.1})
    cases["local-a", "a", "test"] = masks(np.full(80, 0.7), np.arange(80) + 1)
    found = judge_sites(cases, ["a"], segmentation())[0].joining
    assert (found.word, found.reason) == ("cannot be told", "not measured")


def test_a_hospital_without_a_model_of_its_own_has_no_word() -> None:
    cases = {key: value for key, value in federation({"a": 0.1}).items() if "local-a" not in key}
    assert judge_sites(cases, ["a"], segmentation()) == ()


def test_all_patients_of_one_class_are_said() -> None:
    labels = np.tile([True, False, False], (30, 1))
    scores = np.random.default_rng(0).dirichlet(np.ones(3), 30)
    cases = {
        (model, "a", "test"): Scores(np.arange(30), np.arange(30), scores, labels)
        for model in ("federated", "local-a")
    }
    assert judge_sites(cases, ["a"], study_of("accuracy"))[0].one_class
    auroc = judge_sites(cases, ["a"], study_of("auroc"))[0].joining
    assert (auroc.word, auroc.reason) == ("cannot be told", "not measured")


@pytest.mark.parametrize(("rare", "reason"), [(3, "certain gain"), (12, "loss in a part")])
def test_a_class_of_three_patients_vetoes_nothing(rare: int, reason: str) -> None:
    truth = np.r_[np.full(rare, 2), np.zeros(60, int), np.ones(60, int)]
    own, federated = truth.copy(), truth.copy()
    own[rare : rare + 40] = 1  # the own model errs in a common class, the federated in the rare one
    federated[:rare] = 0
    places = np.arange(len(truth))
    cases = {
        (model, "a", "test"): Scores(places, places, np.eye(3)[called], np.eye(3)[truth] > 0)
        for model, called in (("federated", federated), ("local-a", own))
    }
    joining = judge_sites(cases, ["a"], study_of("accuracy"))[0].joining
    assert (joining.reason, joining.part) == (reason, "c" if rare == 12 else "")
