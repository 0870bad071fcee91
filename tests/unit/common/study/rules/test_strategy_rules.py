"""Which strategies a study may ask for, and what it is told where the choices do not fit."""

from typing import Any

import pytest

from wardround.client.training.objectives.registry import OBJECTIVES as BUILT_OBJECTIVES
from wardround.common.errors import StudyError
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import parse_study, study_from_json, with_changes
from wardround.common.study.plans.strategy import (
    AGGREGATION_RULES,
    OBJECTIVES,
    PRESETS,
    ROBUST,
    SERVER_OPTIMISERS,
    SHARING,
    plan_of,
)
from wardround.common.study.study import Study
from wardround.common.study.variants import plain
from wardround.server.strategies.aggregation.registry import MINIMUMS
from wardround.server.strategies.server_optimiser import OPTIMISERS


def study(**federation: Any) -> Study:
    """Return an image study that every strategy fits."""
    return parse_study(
        {
            "study": {"name": "rules", "task": "classification"},
            "data": {"classes": ["a", "b"], "size": [8, 8]},
            "model": {"network": "small-cnn", "normalisation": "batch"},
            "training": {"optimiser": "sgd"},
            "federation": federation,
        }
    )


@pytest.mark.parametrize("name", [*PRESETS, "flower:FedAvg", "flower:Krum"])
def test_every_preset_is_a_study_that_a_hospital_can_read(name: str) -> None:
    asked = study(strategy=name)
    assert study_from_json(asked.to_json()).digest == asked.digest
    assert "The server combines" in explain_study(asked)


def test_every_name_of_a_choice_is_built_somewhere() -> None:
    for preset in PRESETS.values():
        assert preset.share in SHARING
        assert preset.objective in OBJECTIVES
        assert preset.aggregation in AGGREGATION_RULES
        assert preset.server_optimiser in SERVER_OPTIMISERS
        assert preset.paper
    assert set(OBJECTIVES) == set(BUILT_OBJECTIVES)
    assert set(SERVER_OPTIMISERS) == {*OPTIMISERS, "replace", "dynamic"}
    assert set(ROBUST) == set(MINIMUMS)


def test_each_choice_of_a_preset_can_be_overridden() -> None:
    plan = plan_of(study(strategy="fedprox", server_optimiser="adam", aggregation="mean"))
    assert (plan.objective, plan.aggregation, plan.server_optimiser) == ("proximal", "mean", "adam")
    assert plan.server_learning_rate == 0.01
    given = study(server_optimiser="adam", options={"server_learning_rate": 0.3})
    assert plan_of(given).server_learning_rate == 0.3


def test_two_strategies_are_two_digests() -> None:
    digests = {study(strategy=name).digest for name in PRESETS}
    assert len(digests) == len(PRESETS)
    weights = [study(strategy="fedprox", options={"proximal_weight": w}) for w in (0.1, 0.2)]
    assert weights[0].digest != weights[1].digest


def test_a_site_alone_follows_the_study_without_its_strategy() -> None:
    asked = study(strategy="fedprox", options={"proximal_weight": 0.5}, server_optimiser="adam")
    standalone = plain(asked)
    assert plan_of(standalone) == plan_of(study())
    assert standalone.training == asked.training


@pytest.mark.parametrize(
    ("federation", "words"),
    [
        ({"strategy": "fedavgg"}, "unknown strategy 'fedavgg'. Did you mean 'fedavg'?"),
        ({"strategy": "flower:FedMean"}, "unknown strategy 'flower:FedMean'"),
        ({"strategy": "flower:FedXgbCyclic"}, "unknown strategy"),
        ({"share": "some"}, "unknown federation.share 'some'"),
        ({"objective": "proxy"}, "unknown federation.objective 'proxy'"),
        ({"aggregation": "median"}, "unknown federation.aggregation 'median'"),
        ({"server_optimiser": "lion"}, "unknown federation.server_optimiser 'lion'"),
        ({"options": {"proximal_weight": 1}}, "proximal_weight has no effect"),
        ({"options": {"fairness": -1}}, "fairness = -1 cannot be used"),
        ({"strategy": "scaffold", "aggregation": "krum"}, "cancel in a mean only"),
        ({"strategy": "feddyn", "server_optimiser": "adam"}, "choose both or neither"),
        ({"objective": "dynamic"}, "choose both or neither"),
        ({"strategy": "cyclic", "server_optimiser": "adam"}, "gives the next model itself"),
        ({"strategy": "flower:FedAvg", "server_optimiser": "adam"}, "gives the next model itself"),
        ({"objective": "head-then-body"}, "needs federation.share = 'all-but-head'"),
    ],
)
def test_choices_that_do_not_fit_are_refused_with_the_reason(
    federation: dict[str, Any], words: str
) -> None:
    with pytest.raises(StudyError) as refusal:
        study(**federation)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("strategy", "changes", "words"),
    [
        ("scaffold", {"training.optimiser": "adam"}, "set training.optimiser = 'sgd'"),
        ("qfedavg", {"training.optimiser": "adamw"}, "set training.optimiser = 'sgd'"),
        ("fedbn", {"model.normalisation": "none"}, "set model.normalisation"),
        ("fedbn", {"model.normalisation": "default"}, "set model.normalisation"),
        ("ditto", {"training.precision": "float16"}, "'bfloat16' or 'float32'"),
        ("fedper", {"model.network": "mlp", "model.features": []}, "list hidden layers"),
        ("moon", {"model.network": "mlp", "model.features": []}, "list hidden layers"),
    ],
)
def test_a_study_that_does_not_fit_its_strategy_is_refused(
    strategy: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(StudyError) as refusal:
        with_changes(study(strategy=strategy), changes)
    assert words in str(refusal.value)


def test_a_segmentation_has_no_features_to_contrast() -> None:
    with pytest.raises(StudyError, match="one feature vector an image"):
        parse_study(
            {
                "study": {"name": "rules", "task": "segmentation"},
                "data": {"classes": ["a", "b"], "size": [32, 32]},
                "model": {"network": "unet"},
                "federation": {"strategy": "moon"},
            }
        )


def test_a_hospital_is_told_what_leaves_and_what_stays() -> None:
    assert "its mean gradient over the round" in explain_study(study(strategy="scaffold"))
    assert "the mean loss of the received network" in explain_study(study(strategy="qfedavg"))
    assert "the hospital's own personal network" in explain_study(study(strategy="ditto"))
    assert "all but the last layer" in explain_study(study(strategy="fedper"))
