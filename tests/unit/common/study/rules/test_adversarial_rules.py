"""Which studies adversarial training is refused for, with fact, value and remedy."""

from typing import Any

import pytest

from wardround.common.errors import StudyError
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import parse_study, study_from_json
from wardround.common.study.study import Study


def study(adversarial: dict[str, Any], **sections: dict[str, Any]) -> Study:
    content: dict[str, dict[str, Any]] = {
        "study": {"name": "attacked", "task": "classification"},
        "data": {"classes": ["a", "b"], "size": [32, 32]},
        "model": {"network": "small-cnn", "normalisation": "group"},
        "training": {"adversarial": adversarial},
    }
    for name, changes in sections.items():
        content[name] = {**content.get(name, {}), **changes}
    return parse_study(content)


def test_an_adversarial_study_is_read_travels_and_is_explained() -> None:
    asked = study({"epsilon": 2, "steps": 5, "fraction": 0.5})
    assert study_from_json(asked.to_json()).digest == asked.digest
    assert asked.training.adversarial is not None
    assert asked.training.adversarial.start_round == 1
    said = "by up to 2 of 255 grey levels in 5 steps"
    assert said in explain_study(asked)


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    (
        {},
        {"privacy": {"mode": "patient", "noise_multiplier": 1.0}, "training": {"optimiser": "sgd"}},
        "training.adversarial asks for more gradients of a patient",
        "remove it",
    ),
    (
        {},
        {
            "data": {"kind": "table", "covariates": [{"name": "age"}], "size": None},
            "model": {"network": "mlp", "normalisation": "none"},
        },
        "a table has none",
        "remove it",
    ),
    (
        {"start_round": 11},
        {"evaluation": {"keep": "last"}},
        "start_round = 11 is after the last of federation.rounds = 10",
        "lower it",
    ),
    (
        {"start_round": 3},
        {},
        "evaluation.keep = 'best' may keep a round before",
        "set it to 'last'",
    ),
    (
        {},
        {"federation": {"strategy": "ditto"}},
        "the objective 'personal-model' trains a second one",
        "remove one of the two",
    ),
    ({"epsilon": 0}, {}, "epsilon", "greater than 0"),
    ({"fraction": 1.5}, {}, "fraction", "less than or equal to 1"),
]


@pytest.mark.parametrize(("adversarial", "sections", "fact", "remedy"), REFUSED)
def test_what_does_not_fit_is_refused_with_its_remedy(
    adversarial: dict[str, Any], sections: dict[str, Any], fact: str, remedy: str
) -> None:
    with pytest.raises(StudyError) as refused:
        study(adversarial, **{**sections, "training": {
            **sections.get("training", {}), "adversarial": adversarial,
        }})  # fmt: skip
    assert fact in str(refused.value)
    assert remedy in str(refused.value)


def test_a_segmentation_may_train_so() -> None:
    asked = study(
        {},
        study={"task": "segmentation"},
        data={"size": [32, 32]},
        model={"network": "unet", "normalisation": "group"},
    )
    assert asked.training.adversarial is not None
