"""The study file: what is refused and how, what the digest covers, what a hospital is told."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.common.errors import StudyError
from wardround.common.messages.replies import (
    SiteEvaluation,
    SiteInfo,
    SiteUpdate,
    pack_evaluation,
    pack_site_info,
    pack_update,
)
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import load_study, parse_study, study_from_json, with_changes
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study

STUDIES = sorted((Path(__file__).parents[4] / "simulations" / "studies").glob("*.toml"))


def image(**sections: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a valid image classification study, with keys changed."""
    content: dict[str, Any] = {
        "study": {"name": "s", "task": "classification"},
        "data": {"classes": ["a", "b"], "size": [32, 32]},
        "model": {"network": "small-cnn"},
    }
    for section, keys in sections.items():
        content[section] = {**content.get(section, {}), **keys}
    return content


def volume(**sections: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a valid segmentation study, with keys changed."""
    base = image(
        study={"task": "segmentation"},
        data={"size": None, "dimensions": 3, "classes": ["background", "organ"]},
        model={"network": "unet"},
        training={"patch_size": [32, 32, 32]},
    )
    for section, keys in sections.items():
        base[section] = {**base.get(section, {}), **keys}
    return base


def table(**sections: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a valid table study, with keys changed."""
    base = image(
        data={"kind": "table", "size": None, "covariates": [{"name": "age"}]},
        model={"network": "mlp"},
    )
    for section, keys in sections.items():
        base[section] = {**base.get(section, {}), **keys}
    return base


# --- What is refused -----------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (image(training={"bach_size": 3}), ("training.bach_size", "'batch_size'")),
        ({**image(), "trainning": {}}, ("trainning", "'training'")),
        (
            table(data={"covariates": [{"name": "age", "scael": 2}]}),
            ("data.covariates[0].scael", "'scale'"),
        ),
        (
            image(simulation={"shift": [{"kind": "noise", "strenght": 1}]}),
            ("simulation.shift[0].strenght", "'strength'"),
        ),
        (image(privacy={"epsilno": 1}), ("privacy.epsilno", "did you mean 'epsilon'")),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(
    content: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(StudyError) as refusal:
        parse_study(content)
    for word in words:
        assert word in str(refusal.value)


def test_every_problem_is_said_at_once() -> None:
    with pytest.raises(StudyError) as refusal:
        parse_study(image(training={"bach_size": 3, "momentum": 2}, federation={"rounds": 0}))
    for word in ("bach_size", "training.momentum = 2", "federation.rounds = 0"):
        assert word in str(refusal.value)


RULES = [
    (image(model={"network": "resnet"}), "unknown network 'resnet'", "Did you mean 'resnet"),
    (image(federation={"strategy": "fedavgg"}), "unknown strategy 'fedavgg'", "'fedavg'"),
    (image(evaluation={"metric": "acuracy"}), "unknown metric 'acuracy'", "'accuracy'"),
    (image(model={"network": "unet"}), "does not do classification", "small-cnn"),
    (volume(model={"network": "small-cnn"}), "does not do segmentation", "unet"),
    (image(training={"loss": "dice"}), "training.loss = 'dice' is not for", "cross-entropy"),
    (image(evaluation={"metric": "dice"}), "cannot steer classification", "auroc"),
    (volume(evaluation={"metric": "hd95"}), "cannot steer segmentation", "dice"),
    (table(model={"network": "small-cnn"}), "does not take a table", "choose another"),
    (image(model={"normalisation": "layer"}), "'layer' is not available", "group"),
    (image(model={"network": "vit", "activation": "relu"}), "model.activation", "remove it"),
    (image(model={"network": "resnet18", "dropout": 0.5}), "model.dropout", "remove it"),
    (image(model={"network": "resnet18", "features": [8]}), "model.features", "remove it"),
    (image(model={"network": "small-cnn", "features": []}), "lists 0 widths", "1 to 8"),
    (image(data={"size": [32, 32, 32]}), "data.size has 3 numbers for 2D", "give 2"),
    (image(data={"spacing": [1.0]}), "data.spacing has 1 numbers", "give 2"),
    (volume(training={"patch_size": [30, 32, 32]}), "training.patch_size", "multiple of"),
    (image(data={"size": [2, 2]}), "data.size = [2, 2] does not fit", "at least 4"),
    (image(data={"size": None}), "data.size is missing", "give the size"),
    (image(training={"patch_size": [32, 32]}), "patch_size is for segmentation", "remove"),
    (image(data={"classes": ["a", "a"]}), "names a class twice", "once"),
    (image(data={"classes": ["a"]}), "has 1 class", "at least 2"),
    (volume(data={"multi_label": True}), "multi_label is for classification", "remove"),
    (
        image(data={"multi_label": True}, training={"loss": "cross-entropy"}),
        "does not fit data.multi_label",
        "use bce",
    ),
    (
        image(data={"multi_label": True}, training={"sampling": "balanced"}),
        "needs one class a patient",
        "'shuffle'",
    ),
    (
        volume(training={"sampling": "balanced"}),
        "needs one class a patient",
        "'shuffle'",
    ),
    (image(training={"class_weights": [1.0]}), "has 1 numbers for 2 classes", "one a class"),
    (
        volume(training={"class_weights": "balanced", "loss": "dice"}),
        "no effect on dice",
        "remove it",
    ),
    (table(data={"covariates": []}), "data.covariates is empty", "at least one column"),
    (table(data={"augmentation": "light"}), "are for images", "remove them"),
    (image(data={"channels": []}), "data.channels is empty", "at least one"),
    (image(data={"channels": ["t1", "t1"]}), "names a channel twice", "once"),
    (image(data={"window": [0, 1]}), "data.window is for data.intensity = 'ct'", "remove"),
    (volume(data={"colour": True}), "colour = true is for 2D", "remove"),
    (image(data={"orientation": "RAS"}), "orientation is for 3D", "remove"),
    (image(data={"ignore_label": 255}), "ignore_label is for segmentation", "remove"),
    (volume(data={"ignore_label": 1}), "ignore_label = 1 is the class", "choose a number"),
    (image(training={"local_epochs": 1, "local_steps": 1}), "both set", "keep one"),
    (image(training={"momentum": 0.9}), "momentum is for sgd, not adam", "remove"),
    (
        image(evaluation={"validation_fraction": 0.5, "test_fraction": 0.5}),
        "leave no training patients",
        "less than 1",
    ),
    (image(evaluation={"margin": 1.5}), "evaluation.margin = 1.5 is no difference of", "0.02"),
    (volume(evaluation={"margin": 1}), "no difference of dice", "as 0.02"),
    (image(evaluation={"margin": -0.02}), "evaluation.margin", "greater than 0"),
    (image(evaluation={"margin": 0}), "evaluation.margin", "greater than 0"),
]


def test_the_margin_of_a_loss_is_in_its_own_units() -> None:
    study = parse_study(image(evaluation={"metric": "loss", "margin": 1.5}))
    assert study.evaluation.margin == 1.5


@pytest.mark.parametrize(("content", "fact", "remedy"), RULES, ids=[rule[1] for rule in RULES])
def test_a_broken_rule_is_said_with_its_remedy(
    content: dict[str, Any], fact: str, remedy: str
) -> None:
    with pytest.raises(StudyError) as refusal:
        parse_study(content, origin="s.toml")
    assert str(refusal.value).startswith("s.toml is refused: ")
    assert fact in str(refusal.value)
    assert remedy in str(refusal.value)


@pytest.mark.parametrize("content", [image(), volume(), table()])
def test_the_studies_that_the_rules_are_tested_on_are_valid(content: dict[str, Any]) -> None:
    assert isinstance(parse_study(content), Study)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(StudyError, match="finite"):
        parse_study(table(data={"covariates": [{"name": "age", "mean": value}]}))
    with pytest.raises(StudyError, match="learning_rate"):
        parse_study(image(training={"learning_rate": value}))


def test_a_file_that_is_missing_or_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"there is no study file .*study new"):
        load_study(tmp_path / "s.toml")
    (tmp_path / "s.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(StudyError, match="is not a TOML file"):
        load_study(tmp_path / "s.toml")
    with pytest.raises(StudyError, match=r"cannot read .* readable file"):
        load_study(tmp_path)
    with pytest.raises(StudyError, match="is not JSON"):
        study_from_json("{")


# --- The digest ----------------------------------------------------------------
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_built_in_study_reads_back_equal_from_toml_and_from_json(path: Path) -> None:
    study = load_study(path)
    assert parse_study(tomllib.loads(study.to_toml())) == study
    assert study_from_json(study.to_json()) == study
    assert study_from_json(study.to_json()).digest == study.digest


def _shuffled(content: dict[str, Any], draw: st.DataObject) -> dict[str, Any]:
    keys = draw.draw(st.permutations(sorted(content)))
    return {
        key: _shuffled(content[key], draw) if isinstance(content[key], dict) else content[key]
        for key in keys
    }


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    comment=st.text("abc #=[]", max_size=20),
    sites=st.integers(1, 50),
    seed=st.integers(0, 9),
)
def test_the_digest_ignores_comments_order_and_simulation(
    data: st.DataObject, comment: str, sites: int, seed: int
) -> None:
    content = image(training={"batch_size": 4, "learning_rate": 1.0}, federation={"rounds": 3})
    shuffled = _shuffled({**content, "simulation": {"sites": sites, "seed": seed}}, data)
    text = f"# {comment}\n{tomli_w.dumps(shuffled)}\n\n# {comment}\n"
    assert parse_study(tomllib.loads(text)).digest == parse_study(content).digest


def test_the_digest_is_the_same_where_a_default_is_written_out() -> None:
    written = image(training={"optimiser": "adam", "learning_rate": 1e-3}, federation={"seed": 0})
    assert parse_study(written).digest == parse_study(image()).digest
    whole = image(training={"learning_rate": 1})
    assert parse_study(whole).digest == parse_study(image(training={"learning_rate": 1.0})).digest


CHANGES = st.sampled_from(
    [
        ("study.name", "other"),
        ("study.description", "x"),
        ("data.classes", ["b", "a"]),
        ("data.size", [32, 33]),
        ("data.channels", ["t1"]),
        ("data.intensity", "ct"),
        ("data.covariates", [{"name": "age"}]),
        ("data.covariate_scaling", "site"),
        ("model.network", "resnet18"),
        ("model.dropout", 0.1),
        ("training.loss", "focal"),
        ("training.learning_rate", 1e-2),
        ("training.local_steps", 3),
        ("federation.rounds", 11),
        ("federation.seed", 1),
        ("federation.minimum_sites", 2),
        ("evaluation.test_fraction", 0.2),
        ("evaluation.keep", "last"),
        ("evaluation.metric", "accuracy"),
    ]
)


@settings(max_examples=60, deadline=None)
@given(change=CHANGES, other=CHANGES)
def test_the_digest_changes_with_everything_else(
    change: tuple[str, object], other: tuple[str, object]
) -> None:
    study = parse_study(image())
    changed = with_changes(study, dict([change]))
    assert changed.digest != study.digest
    if change[0] != other[0]:
        assert changed.digest != with_changes(study, dict([other])).digest


def test_a_changed_copy_has_a_digest_of_its_own() -> None:
    study = parse_study(image())
    first = study.digest
    training = study.training.model_copy(update={"learning_rate": 0.5})
    assert study.model_copy(update={"training": training}).digest != first
    assert study.model_copy().digest == first


def test_the_digest_is_sixty_four_hexadecimal_digits() -> None:
    assert re.fullmatch("[0-9a-f]{64}", parse_study(image()).digest)


# --- Changes -------------------------------------------------------------------
def test_changes_reach_every_depth_and_leave_the_study_as_it_was() -> None:
    study = parse_study(image(simulation={"options": {"manifest": "a.csv"}}))
    changed = with_changes(
        study, {"training.batch_size": 7, "simulation.options.manifest": "b.csv"}
    )
    assert (changed.training.batch_size, changed.simulation.options["manifest"]) == (7, "b.csv")
    assert (study.training.batch_size, study.simulation.options["manifest"]) == (32, "a.csv")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("batch_size", "name the section too"),
        ("training.bach_size", "did you mean 'batch_size'"),
        ("study.name.x", "study.name is not a table"),
        ("nothing.x", "nothing is not a key of a study"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused(key: str, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        with_changes(parse_study(image()), {key: 1})


# --- In words ------------------------------------------------------------------
def test_the_explanation_says_what_a_hospital_agrees_to() -> None:
    study = parse_study(
        image(
            study={"name": "lungs", "description": "Shadows on lungs."},
            data={
                "channels": ["frontal", "lateral"],
                "classes": ["clear", "shadow"],
                "covariates": [{"name": "age"}, {"name": "smoker"}],
            },
            training={"local_epochs": 3, "batch_size": 17},
            federation={"rounds": 29},
            evaluation={"validation_fraction": 0.1, "test_fraction": 0.2},
        )
    )
    text = explain_study(study)
    for word in (
        "lungs",
        "Shadows on lungs.",
        study.digest,
        "frontal, lateral",
        "age, smoker",
        "clear, shadow",
        "one of",
        "3 pass(es)",
        "batches of 17",
        "29 rounds",
        "10 %",
        "20 %",
        "small-cnn",
        "no differential privacy",
    ):
        assert word in text


def test_the_explanation_of_several_labels_says_any_of() -> None:
    text = explain_study(parse_study(image(data={"multi_label": True})))
    assert "classify each as any of: a, b" in text


def test_the_explanation_names_every_metric_that_the_sums_hold() -> None:
    text = explain_study(parse_study(volume()))
    assert METRICS["dice"].title in text
    assert METRICS["auroc"].title not in text


# Every value that a site's messages carry, and the words that announce it to the hospital.
ANNOUNCED = {
    "site": "its name",
    "wardround": "its version of wardround",
    "digest": "the digest of this study",
    "notes": "which classes no patient of it has",
    "examinations": "how many training examinations it holds",
    "updates": "how many steps it made",
    "seconds": "the seconds it took",
    "training-loss": "its mean training loss",
    "run": "",  # the server's own numbers, sent back
    "round": "",
    "attempt": "",
}


def test_everything_that_a_site_sends_is_announced() -> None:
    study = parse_study(image())
    site_info = pack_site_info(SiteInfo("north", "0.1", study.digest, 9, ("note",)))
    update = pack_update(
        SiteUpdate("north", study.digest, 1, 0, {"w": torch.zeros(2)}, 9, 3, 1.0, 0.5)
    )
    evaluation = pack_evaluation(SiteEvaluation("north", study.digest, 1, None, 1.0))
    text = " ".join(explain_study(study).split())
    for content in (site_info, update, evaluation):
        records = (*content.config_records.values(), *content.metric_records.values())
        for key in (key for record in records for key in record):
            assert ANNOUNCED[key] in text
    assert "sums over its validation patients" in text
    assert "the same sums over its test patients" in text


def test_a_hospital_is_told_which_voxels_count_and_what_is_interpolated() -> None:
    changed = volume(data={"ignore_label": 255, "resample_to": "image"})
    said = " ".join(explain_study(parse_study(changed)).split())
    assert "to leave out what its masks mark with 255, which nobody annotated;" in said
    assert "to interpolate masks and channels of another grid" in said
    assert "nobody annotated" not in explain_study(parse_study(volume()))
