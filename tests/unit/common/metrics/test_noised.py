"""Metrics out of noised sums: exact without noise, near the truth with it, never out of range."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.tasks.registry import task_of
from wardround.common.errors import InputError
from wardround.common.metrics.noised.decoding import checked_vector, merge_noised, summarise_noised
from wardround.common.metrics.noised.encoding import (
    NoisedSums,
    blocks_of,
    encode_loss,
    length_of,
    scaled,
)
from wardround.common.metrics.task_sums import MetricValue
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

TWO = {"classes": ["a", "b"]}
FOUR = {"classes": ["a", "b", "c", "d"]}
LABELS = {"classes": ["a", "b", "c"], "multi_label": True}


def study_with(data: dict[str, Any], task: str = "classification", metric: str = "") -> Study:
    return parse_study(
        {
            "study": {"name": "s", "task": task},
            "data": {"size": [16, 16], **data},
            "model": {"network": "small-cnn" if task == "classification" else "unet"},
            "evaluation": {"metric": metric} if metric else {},
        }
    )


def drawn(study: Study, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits that are right more often than not, and the truth."""
    generator = torch.Generator().manual_seed(3)
    classes = study.class_count
    noise = torch.randn(count, classes, generator=generator)
    if study.data.multi_label:
        truth = (torch.rand(count, classes, generator=generator) < 0.4).float()
        return noise + 2 * truth - 1, truth
    labels = torch.randint(classes, (count,), generator=generator)
    return noise + 1.5 * torch.nn.functional.one_hot(labels, classes), labels


def vector_of(study: Study, outputs: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    measured = task_of(study).bounded(outputs, targets, study)
    losses = encode_loss(np.full(len(outputs), 0.75))
    return scaled(np.concatenate([losses, measured], axis=1), study).sum(axis=0)


def by_name(values: tuple[MetricValue, ...]) -> dict[tuple[str, str], MetricValue]:
    return {(value.metric, value.class_name): value for value in values}


@pytest.mark.parametrize("data", [TWO, FOUR, LABELS], ids=["two", "four", "labels"])
def test_without_noise_they_are_the_metrics_of_the_tables(data: dict[str, Any]) -> None:
    from wardround.common.metrics.sums import MetricSums, summarise

    study = study_with(data)
    outputs, targets = drawn(study, 400)
    counter = task_of(study).counter(study, surfaces=False)
    counter.add(outputs, targets, None)
    exact = by_name(summarise(MetricSums(400, 300.0, counter.sums()), study))
    found = by_name(summarise_noised(NoisedSums(vector_of(study, outputs, targets)), study))
    assert found.keys() == exact.keys()
    for name, value in found.items():
        allowed = value.error_bound + 1e-9
        assert value.value == pytest.approx(exact[name].value, abs=allowed), name
        assert value.support == exact[name].support
    assert found["auroc", ""].error_bound < 0.1


def test_a_segmentation_s_dice_is_exact_without_noise() -> None:
    study = study_with({"classes": ["none", "a", "b"]}, "segmentation")
    targets = torch.zeros(2, 8, 8, dtype=torch.int64)
    targets[0, :4], targets[1, :2] = 1, 2
    found = torch.zeros_like(targets)
    found[0, :2], found[1, :2] = 1, 2
    outputs = torch.nn.functional.one_hot(found, 3).permute(0, 3, 1, 2).float()
    values = by_name(summarise_noised(NoisedSums(vector_of(study, outputs, targets)), study))
    assert values["dice", "a"].value == pytest.approx(2 / 3)
    assert values["dice", "b"].value == pytest.approx(1.0)
    assert values["dice", ""].value == pytest.approx(5 / 6)
    assert values["loss", ""].value == pytest.approx(0.75)
    assert ("hd95", "") not in values


def test_the_error_that_is_stated_is_the_error_that_is_seen() -> None:
    study = study_with(TWO, metric="auroc")
    vector = vector_of(study, *drawn(study, 400))
    truth = by_name(summarise_noised(NoisedSums(vector), study))["auroc", ""].value
    random = np.random.default_rng(1)
    seen, stated = [], []
    for _ in range(60):
        noised = NoisedSums(vector + 4 * random.standard_normal(len(vector)), 4.0)
        value = by_name(summarise_noised(noised, study))["auroc", ""]
        seen.append(value.value - truth)
        stated.append(value.standard_error)
    assert np.std(seen) == pytest.approx(np.mean(stated), rel=0.35)
    assert abs(np.mean(seen)) < 2 * np.std(seen)


def test_sites_together_are_known_better_than_one() -> None:
    study = study_with(TWO)
    part = NoisedSums(vector_of(study, *drawn(study, 100)), 2.0)
    whole = merge_noised([part] * 4)
    assert whole.deviation == pytest.approx(4.0)
    one, four = (by_name(summarise_noised(sums, study))["accuracy", ""] for sums in (part, whole))
    assert four.support == 4 * one.support
    assert four.standard_error < one.standard_error


@pytest.mark.parametrize("data", [TWO, FOUR, LABELS])
@settings(max_examples=40, deadline=None)
@given(numbers=st.data())
def test_whatever_a_site_sends_becomes_metrics_in_their_range(
    data: dict[str, Any], numbers: st.DataObject
) -> None:
    study = study_with(data)
    size = length_of(study)
    sent = numbers.draw(st.lists(st.floats(-1e12, 1e12), min_size=size, max_size=size))
    values = summarise_noised(NoisedSums(checked_vector(np.array(sent), study), 1.0), study)
    for value in values:
        top = 3.0 if value.metric == "loss" else 1.0
        assert math.isnan(value.value) or -1e-9 <= value.value <= top + 1e-9
        assert value.support >= 0


@pytest.mark.parametrize("spoilt", [np.zeros(3), np.full(22, np.nan), np.full(22, 1e13)])
def test_what_is_no_vector_of_the_study_is_refused(spoilt: np.ndarray) -> None:
    study = study_with(TWO)
    assert length_of(study) == 22
    with pytest.raises(InputError, match="noised"):
        checked_vector(spoilt, study)


def test_the_blocks_share_a_norm_of_1() -> None:
    for data in (TWO, FOUR, LABELS):
        for metric in ("auroc", "accuracy"):
            study = study_with(data, metric=metric)
            ones = {"loss": 1, "table": 1}
            squares = [
                block.scale**2 * ones.get(block.name, block.shape[0]) for block in blocks_of(study)
            ]
            assert sum(squares) == pytest.approx(1.0)
