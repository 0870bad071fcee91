"""Which studies the keys of the recipes are refused for, with fact and remedy."""

from typing import Any

import pytest

from wardround.common.errors import StudyError
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import parse_study, study_from_json
from wardround.common.study.study import Study

_IMAGES: dict[str, Any] = {
    "study": {"name": "asked", "task": "classification"},
    "data": {"classes": ["a", "b"], "size": [32, 32]},
    "model": {"network": "small-cnn", "normalisation": "group"},
}
_MASKS: dict[str, Any] = {
    "study": {"name": "asked", "task": "segmentation"},
    "data": {"classes": ["a", "b"], "size": [32, 32]},
    "model": {"network": "dynunet", "features": [4, 8, 8, 8]},
}
_PRIVATE: dict[str, Any] = {
    "privacy": {"mode": "patient", "noise_multiplier": 1.0},
    "training": {"optimiser": "sgd"},
}


def study(base: dict[str, Any], **sections: dict[str, Any]) -> Study:
    content = {name: dict(section) for name, section in base.items()}
    for name, changes in sections.items():
        content[name] = {**content.get(name, {}), **changes}
    return parse_study(content)


def test_what_the_recipes_ask_for_is_read_travels_and_is_explained() -> None:
    asked = study(
        _MASKS,
        data={"augmentation": "nnunet"},
        model={"deep_supervision": 2},
        training={"ema": 0.9, "optimiser": "sgd", "momentum": 0.99, "nesterov": True},
        federation={"ema": 0.8},
        evaluation={"tta": "mirror"},
    )
    assert study_from_json(asked.to_json()).digest == asked.digest
    explained = explain_study(asked)
    assert "mean of the rounds' models" in explained
    assert "mirrored" in explained
    mixing = explain_study(study(_IMAGES, training={"mixup": 0.2, "label_smoothing": 0.1}))
    assert "mixed" in mixing


def test_what_averages_after_the_noise_is_allowed_to_private_studies() -> None:
    training = {"ema": 0.9, "optimiser": "sgd", "label_smoothing": 0.1}
    private = study(_IMAGES, **{**_PRIVATE, "training": training}, federation={"ema": 0.9})
    assert private.training.ema == 0.9


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (_IMAGES, {"model": {"deep_supervision": 1}}, "is for the network dynunet"),
    (_MASKS, {"model": {"deep_supervision": 3}}, "more than the 2 levels"),
    (
        _MASKS,
        {"model": {"deep_supervision": 1}, "data": {"covariates": [{"name": "age"}]}},
        "the finest level alone",
    ),
    (_MASKS, {"model": {"deep_supervision": 1}, **_PRIVATE}, "no verified gradient"),
    (_IMAGES, {"training": {"nesterov": True, "optimiser": "sgd"}}, "training.momentum, which is"),
    (_MASKS, {"training": {"mixup": 0.2}}, "is for a classification"),
    (_IMAGES, {"training": {"mixup": 0.2, "loss": "focal"}}, "training.loss = 'cross-entropy'"),
    (_IMAGES, {"training": {"label_smoothing": 0.2, "loss": "mse"}}, "set it to 0"),
    (_IMAGES, {"training": {"mixup": 0.2, "adversarial": {}}}, "both change the images"),
    (
        _IMAGES,
        {**_PRIVATE, "training": {"optimiser": "sgd", "mixup": 0.2}},
        "mixes the images of two patients",
    ),
    (_IMAGES, {"evaluation": {"tta": "mirror"}}, "shows it none"),
    (
        _IMAGES,
        {"training": {"ema": 0.9, "optimiser": "sgd"}, "federation": {"strategy": "scaffold"}},
        "reads a gradient off the distance",
    ),
    (
        _IMAGES,
        {
            "training": {"nesterov": True, "momentum": 0.9, "optimiser": "sgd"},
            "federation": {"strategy": "fednova"},
        },
        "goes further along each gradient",
    ),
    (_IMAGES, {"federation": {"ema": 0.9, "buffer_size": 2}}, "a mean over rounds"),
]


@pytest.mark.parametrize(("base", "sections", "words"), REFUSED)
def test_what_does_not_fit_is_refused_with_the_reason(
    base: dict[str, Any], sections: dict[str, Any], words: str
) -> None:
    with pytest.raises(StudyError, match=words):
        study(base, **sections)
