"""What cannot be trained as a stack is refused with its reason; what nobody has looked at too."""

from typing import Any

import pytest
from torch import nn

from wardround.client.training.losses.registry import LOSS_BUILDERS
from wardround.client.training.objectives.registry import OBJECTIVES
from wardround.client.training.optimisers import OPTIMISERS
from wardround.client.training.stacked import eligibility
from wardround.client.training.stacked.eligibility import (
    STACKED_LOSSES,
    STACKED_NETWORKS,
    STACKED_OBJECTIVES,
    STACKED_OPTIMISERS,
    why_not_network,
    why_not_stacked,
)
from wardround.common.models.networks.registry import BUILDERS
from wardround.common.study.loading import parse_study

STUDY: dict[str, dict[str, Any]] = {
    "study": {"name": "s", "task": "classification"},
    "data": {"channels": ["image"], "classes": ["a", "b"], "size": [16, 16]},
    "model": {"network": "small-cnn"},
}


def why_not(section: str = "study", **keys: Any) -> str:
    content = {**STUDY, section: {**STUDY.get(section, {}), **keys}}
    return why_not_stacked(parse_study(content))


def test_a_plain_study_is_stacked() -> None:
    assert not why_not()
    assert not why_not("federation", strategy="fedprox")
    assert not why_not("training", optimiser="adamw", gradient_clip=1.0, schedule="cosine")


@pytest.mark.parametrize(
    ("section", "keys", "reason"),
    [
        ("privacy", {"mode": "patient", "epsilon": 8.0}, "clips each patient's gradient"),
        ("training", {"adversarial": {}}, "changes images against the network"),
        ("training", {"precision": "bfloat16"}, "computes in bfloat16"),
        ("model", {"dropout": 0.1}, "dropout draws"),
        ("model", {"network": "resnet18"}, "'resnet18' is none of small-cnn"),
        ("federation", {"strategy": "ditto"}, "'personal-model' needs"),
        ("federation", {"buffer_size": 1}, "asked one by one"),
    ],
)
def test_what_does_not_fit_a_stack_is_said(section: str, keys: dict[str, Any], reason: str) -> None:
    assert reason in why_not(section, **keys)


def test_a_key_that_nobody_has_looked_at_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    known = eligibility._TRAINING_KEYS - {"gradient_clip"}
    monkeypatch.setattr(eligibility, "_TRAINING_KEYS", known)
    assert not why_not()
    assert "training.gradient_clip" in why_not("training", gradient_clip=1.0)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.BatchNorm2d(4), "couples the examples"),
        (nn.InstanceNorm2d(4, track_running_stats=True), "couples the examples"),
        (nn.Dropout(0.1), "dropout"),
        (nn.InstanceNorm2d(4), ""),
        (nn.Dropout(0.0), ""),
        (nn.GroupNorm(2, 4), ""),
    ],
    ids=str,
)
def test_a_network_says_by_its_layers_whether_it_fits(layer: nn.Module, reason: str) -> None:
    said = why_not_network(nn.Sequential(nn.Conv2d(1, 4, 3), layer))
    assert reason in said
    assert bool(reason) == bool(said)


def test_what_may_be_stacked_is_there() -> None:
    assert set(STACKED_NETWORKS) <= set(BUILDERS)
    assert set(STACKED_LOSSES) <= set(LOSS_BUILDERS)
    assert set(STACKED_OBJECTIVES) <= set(OBJECTIVES)
    assert set(STACKED_OPTIMISERS) <= set(OPTIMISERS)
