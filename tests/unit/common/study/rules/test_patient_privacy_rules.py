"""Which studies a promise to patients is refused for, with fact, value and remedy."""

import sys
from typing import Any

import pytest

from wardround.common.errors import StudyError
from wardround.common.study.loading import parse_study, study_from_json
from wardround.common.study.plans.gradients import gradient_method, method_words
from wardround.common.study.plans.strategy import OBJECTIVES, PRESETS
from wardround.common.study.private_networks import PRIVATE_NETWORKS
from wardround.common.study.registry import NETWORKS
from wardround.common.study.rules.privacy.patient_privacy import _READERS
from wardround.common.study.sections.privacy import PrivacySection
from wardround.common.study.study import Study

COVARIATES = {"covariates": [{"name": "age"}]}


def study(privacy: dict[str, Any] | None = None, **sections: dict[str, Any]) -> Study:
    """Return a study under patient-level privacy, whose noise is given and not solved for."""
    content: dict[str, dict[str, Any]] = {
        "study": {"name": "private", "task": "classification"},
        "data": {"classes": ["a", "b"], "size": [32, 32]},
        "model": {"network": "small-cnn", "normalisation": "group"},
        "training": {"optimiser": "sgd"},
        "privacy": {"mode": "patient", "noise_multiplier": 1.0},
    }
    for name, changes in {**sections, "privacy": privacy or {}}.items():
        content[name] = {**content.get(name, {}), **changes}
    return parse_study(content)


def refusal(privacy: dict[str, Any] | None = None, **sections: dict[str, Any]) -> str:
    """Return why a study is refused."""
    with pytest.raises(StudyError) as refused:
        study(privacy, **sections)
    return str(refused.value)


def test_a_private_study_is_read_and_travels() -> None:
    asked = study()
    assert study_from_json(asked.to_json()).digest == asked.digest


RULES: list[tuple[dict[str, Any], str, str]] = [
    (
        {
            "study": {"task": "segmentation"},
            "data": {"size": None},
            "model": {"network": "unet", "normalisation": "group"},
        },
        "the images may differ in size",
        "set data.size or training.patch_size",
    ),
    (
        {"training": {"class_weights": "balanced"}},
        "training.class_weights = 'balanced' counts",
        "give a number a class",
    ),
    (
        {"training": {"sampling": "balanced"}},
        "training.sampling = 'balanced' draws patients by their class",
        "remove it",
    ),
    ({"training": {"gradient_clip": 2.0}}, "training.gradient_clip = 2", "privacy.clip_norm"),
    (
        {"training": {"precision": "bfloat16"}},
        "training.precision = 'bfloat16'",
        "set it to 'float32'",
    ),
    (
        {"data": {**COVARIATES, "covariate_scaling": "site"}},
        "data.covariate_scaling = 'site'",
        "set it to 'study'",
    ),
    (
        {"privacy": {"test_epsilon": 900.0}},
        "privacy.test_epsilon = 900 promises a test patient less",
        "lower it",
    ),
    (
        {"federation": {"patience_rounds": 3}},
        "federation.patience_rounds = 3",
        "one measurement, which has noise",
    ),
    (
        {"federation": {"strategy": "qfedavg"}},
        "federation.aggregation = 'fair-mean'",
        "choose 'weighted-mean' or 'mean'",
    ),
    ({"federation": {"strategy": "moon"}}, "the objective 'contrastive' compares", "e.g. fedavg"),
    ({"federation": {"strategy": "ditto"}}, "'personal-model' trains a second", "e.g. fedavg"),
    ({"federation": {"strategy": "apfl"}}, "'mixture' trains a second", "e.g. fedavg"),
    ({"federation": {"strategy": "fedavg-finetune"}}, "'fine-tune' trains", "e.g. fedavg"),
    (
        {"privacy": {"delta": 0.01}},
        "privacy.delta = 0.01 allows one patient in 100",
        "set it below",
    ),
    (
        {"privacy": {"epsilon": 8.0}},
        "privacy.epsilon = 8 and privacy.noise_multiplier = 1 are both set",
        "keep one",
    ),
    (
        {"privacy": {"noise_multiplier": 0.001}},
        "privacy.noise_multiplier = 0.001 promises nothing after 200 steps",
        "raise it",
    ),
    (
        {"privacy": {"noise_multiplier": None, "epsilon": 1e-12, "delta": 1e-9}},
        "epsilon = 1e-12 at delta = 1e-09 cannot be kept",
        "larger epsilon",
    ),
    (
        {"privacy": {"augmentation_copies": 4}},
        "privacy.augmentation_copies = 4 would repeat",
        "set data.augmentation",
    ),
    (
        {"privacy": {"clip_quantile": 0.7}},
        "privacy.clip_quantile = 0.7 has no effect with privacy.mode = 'patient'",
        "set the mode to 'site', or remove it",
    ),
    (
        {"privacy": {"sampling_rate": 0.0}},
        "privacy.sampling_rate = 0.0",
        "greater than or equal to 0.000001",
    ),
    ({"privacy": {"sampling_rate": 1.5}}, "privacy.sampling_rate = 1.5", "less than or equal to 1"),
    ({"privacy": {"mode": "patients"}}, "privacy.mode = 'patients'", "'patient'"),
]


@pytest.mark.parametrize(("sections", "fact", "remedy"), RULES, ids=[rule[1] for rule in RULES])
def test_a_study_that_would_break_the_promise_is_refused(
    sections: dict[str, Any], fact: str, remedy: str
) -> None:
    said = refusal(**sections)
    assert fact in said
    assert remedy in said


def test_a_network_that_is_not_verified_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(PRIVATE_NETWORKS, "unet")
    said = refusal(
        study={"task": "segmentation"},
        data={"size": [64, 64]},
        model={"network": "unet", "normalisation": "default"},
    )
    assert "model.network = 'unet' has no verified gradient of a single patient" in said
    assert "basic-unet" in said
    assert "set privacy.gradients = 'loop'" in said


@pytest.mark.parametrize("way", ["loop", "opacus"])
def test_a_network_that_is_not_verified_may_name_its_way(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(PRIVATE_NETWORKS, "unet")
    asked = study(
        {"gradients": way},
        study={"task": "segmentation"},
        data={"size": [64, 64]},
        model={"network": "unet", "normalisation": "default"},
    )
    assert gradient_method(asked) == way


def test_opacus_is_refused_for_a_network_of_which_it_finds_no_gradient() -> None:
    said = refusal(
        {"gradients": "opacus"},
        data={"size": [64, 64]},
        model={"network": "vit", "normalisation": "default"},
    )
    assert "privacy.gradients = 'opacus' does not fit vit" in said
    assert "choose one of small-cnn" in said


def test_batch_normalisation_is_private_after_the_fixer_which_changes_the_digest() -> None:
    model = {"network": "resnet18", "normalisation": "default"}
    assert "mixes the patients of a batch" in refusal(data={"size": [64, 64]}, model=model)
    fixed = study(data={"size": [64, 64]}, model={**model, "fixer": "opacus"})
    grouped = study(data={"size": [64, 64]}, model={**model, "normalisation": "group"})
    assert fixed.model.fixer == "opacus"
    assert fixed.digest != grouped.digest


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"network": "small-cnn", "normalisation": "group"}, "replaces nothing in small-cnn"),
        ({"network": "mlp", "normalisation": "batch"}, "does not fit mlp"),
        (
            {"network": "resnet18", "normalisation": "batch", "test_time_statistics": 0.5},
            "replaces the batch normalisation whose statistics",
        ),
    ],
)
def test_a_fixer_that_does_not_fit_is_refused(model: dict[str, Any], words: str) -> None:
    assert words in refusal(data={"size": [64, 64]}, model={**model, "fixer": "opacus"})


def test_a_study_that_says_nothing_of_gradients_keeps_its_digest() -> None:
    assert study().digest == study({"gradients": "auto"}).digest
    assert study().digest != study({"gradients": "loop"}).digest
    assert "chosen for this network" in method_words(study())
    assert "'loop'" in method_words(study({"gradients": "loop"}))


@pytest.mark.parametrize("network", sorted(PRIVATE_NETWORKS))
def test_a_network_is_private_with_just_the_normalisations_of_its_table(network: str) -> None:
    entry, choices = PRIVATE_NETWORKS[network], ("default", *NETWORKS[network].normalisations)
    assert set(entry.normalisations) <= set(choices)
    assert "batch" not in entry.normalisations
    for chosen in choices:
        sections: dict[str, dict[str, Any]] = {
            "study": {"task": NETWORKS[network].tasks[0]},
            "data": {"size": [64, 64]},
            "model": {"network": network, "normalisation": chosen},
        }
        if chosen in entry.normalisations:
            assert study(**sections).model.normalisation == chosen
        else:
            said = refusal(**sections)
            assert f"model.normalisation = {chosen!r} mixes the patients" in said
            assert repr(entry.normalisations[0]) in said


@pytest.mark.parametrize(
    "strategy", ["fedavg", "fedprox", "scaffold", "feddyn", "fednova", "fedrep", "krum", "fedadam"]
)
def test_a_strategy_that_only_sees_noised_gradients_is_allowed(strategy: str) -> None:
    assert strategy in PRESETS
    assert study(federation={"strategy": strategy}).federation.strategy == strategy


def test_every_objective_is_decided_upon() -> None:
    """A new objective reads patients until somebody has shown that it does not."""
    allowed = {"plain", "proximal", "control-variates", "dynamic", "head-then-body"}
    refused = {
        "contrastive",
        "small-features",
        "aligned-features",
        "coral",
        "personal-model",
        "mixture",
        "fine-tune",
        "elastic-weights",
        "distillation",
    }
    assert allowed | refused == set(OBJECTIVES)


@pytest.mark.parametrize(
    "federation",
    [
        {"compression": "top-k"},
        {"compression": "int8"},
        {"personal": ["head.*"]},
        {"buffer_size": 2},
        {"fraction": 0.5},
    ],
    ids=str,
)
def test_what_follows_the_noise_is_allowed(federation: dict[str, Any]) -> None:
    assert study(federation=federation).privacy.mode == "patient"


def test_weights_of_classes_from_the_study_are_allowed() -> None:
    assert study(training={"class_weights": [1.0, 3.0]}).training.class_weights == (1.0, 3.0)


def test_patches_beyond_a_patient_s_share_are_refused() -> None:
    said = refusal(
        study={"task": "segmentation"},
        data={"size": None},
        model={"network": "unet", "normalisation": "default"},
        training={"patch_size": [32, 32], "patches_per_image": 9},
    )
    assert "training.patches_per_image = 9 is more than a patient may give" in said
    assert "privacy.examples_per_patient = 8" in said


@pytest.mark.parametrize("key", sorted(_READERS))
def test_a_key_of_privacy_without_privacy_is_refused(key: str) -> None:
    values: dict[str, Any] = {
        "adaptive_clipping": True,
        "clip_quantile": 0.7,
        "gradients": "loop",
        "noise": "distributed",
        "colluding_sites": 1,
    }
    counts = ("expected_patients", "examples_per_patient", "augmentation_copies", "microbatch")
    value = values.get(key, 3 if key in counts else 0.25)
    said = refusal({"mode": "none", "noise_multiplier": None, key: value})
    assert f"privacy.{key} = {value} has no effect with privacy.mode = 'none'" in said


def test_every_key_of_privacy_has_a_mode_that_reads_it() -> None:
    assert {"mode", *_READERS} == set(PrivacySection.model_fields)


def test_all_that_is_wrong_is_said_at_once_and_before_the_noise_is_solved_for(monkeypatch) -> None:
    monkeypatch.setattr(
        "wardround.common.study.rules.privacy.patient_privacy.plan_privacy", pytest.fail
    )
    said = refusal(
        {"noise_multiplier": None, "delta": 0.5},
        model={"normalisation": "batch"},
        training={"precision": "float16"},
    )
    for word in ("privacy.delta", "model.normalisation", "training.precision"):
        assert word in said


def test_without_the_accountant_a_private_study_is_refused_with_the_extra_to_install(
    monkeypatch,
) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    monkeypatch.setitem(sys.modules, "dp_accounting.pld", None)
    said = refusal({"noise_multiplier": 1.2345})
    assert "pip install 'dp-accounting>=" in said
