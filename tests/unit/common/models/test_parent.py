"""A study that goes on starts from its parent's model, and from no other one."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.clinic.model_folders import CLASSIFIES, SEGMENTS, untrained_model

from wardround.commands.continue_study import file_text
from wardround.common.errors import ModelError, StudyError
from wardround.common.models.model_folder import ModelFolder, open_model_folder
from wardround.common.models.networks.registry import build_network
from wardround.common.models.parent import Continuation, continued
from wardround.common.models.pretrained import load_pretrained, offer_weights
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.study import Study

PLAIN = Continuation()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))


def parent_of(folder: Path, content: dict[str, dict[str, object]] = CLASSIFIES) -> ModelFolder:
    return open_model_folder(untrained_model(folder / "parent", content))


def child_of(model: ModelFolder, asked: Continuation = PLAIN) -> Study:
    return continued(model, asked, offer_weights(model))


def test_a_child_names_its_parent_and_starts_from_its_numbers_bit_by_bit(tmp_path: Path) -> None:
    model = parent_of(tmp_path)
    child = child_of(model)
    assert child.continual is not None
    assert child.continual.parent == model.study.digest
    assert child.continual.wave == 2
    assert child.digest != model.study.digest
    assert child.name == "bright wave 2"
    network = build_network(child, child.federation.seed)
    load_pretrained(network, child)
    assert all(torch.equal(network.state_dict()[n], w) for n, w in model.weights().items())


def test_a_wave_of_nothing_is_refused_and_not_taken_for_no_wave(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"continual\.wave = 0"):
        child_of(parent_of(tmp_path), Continuation(wave=0))


def test_a_grandchild_goes_on_as_its_parent_did(tmp_path: Path) -> None:
    model = parent_of(tmp_path)
    child = child_of(model, Continuation({"continual.method": "ewc", "continual.weight": 3.0}))
    grandchild = child_of(replace(model, study=child))
    assert grandchild.continual is not None
    assert (grandchild.continual.wave, grandchild.continual.method) == (3, "ewc")
    assert grandchild.continual.weight == 3.0
    assert grandchild.name == "bright wave 3"
    assert grandchild.continual.parent == child.digest


# A group normalisation of the head mixes its outputs, an instance normalisation does not.
MARKS = {**SEGMENTS, "model": {**SEGMENTS["model"], "normalisation": "instance"}}


@pytest.mark.parametrize("content", [CLASSIFIES, MARKS], ids=["classification", "segmentation"])
def test_a_class_that_comes_later_leaves_the_answers_about_the_others_as_they_were(
    tmp_path: Path, content: dict[str, dict[str, object]]
) -> None:
    model = parent_of(tmp_path, content)
    child = child_of(model, Continuation(added_classes=("rare",)))
    assert child.data.classes[-1] == "rare"
    assert child.continual is not None
    assert child.continual.classes == len(model.study.data.classes)
    network = build_network(child, child.federation.seed)
    start = load_pretrained(network, child)
    assert start is not None
    assert not start.left
    images = torch.randn(2, 1, *(child.data.size or ()))
    with torch.no_grad():
        before, now = model.network()(images), network.eval()(images)
    known = child.continual.classes
    torch.testing.assert_close(now[:, :known], before)
    assert now.shape[1] == known + 1
    assert now[:, known:].std() > 0


@pytest.mark.parametrize("key", ["parent", "model"])
def test_a_study_that_claims_another_parent_or_model_does_not_start(
    tmp_path: Path, key: str
) -> None:
    child = child_of(parent_of(tmp_path))
    forged = with_changes(child, {f"continual.{key}": "f" * 64})
    with pytest.raises(ModelError, match=r"continual\.(parent|model) (names|says) ffffffffffff"):
        load_pretrained(build_network(forged, 0), forged)


def test_weights_that_do_not_fit_the_whole_network_are_no_parent(tmp_path: Path) -> None:
    child = child_of(parent_of(tmp_path))
    wider = with_changes(child, {"data.classes": ["normal", "abnormal", "rare"]})
    with pytest.raises(ModelError, match="may add classes at their end"):
        load_pretrained(build_network(wider, 0), wider)
    other = with_changes(child, {"model.features": [4, 16]})
    with pytest.raises(ModelError, match="does not fit"):
        load_pretrained(build_network(other, 0), other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.network": "resnet18", "model.features": None}, "the network is resnet18"),
        ({"data.classes": ["abnormal", "normal"]}, "does not begin with the parent's"),
        ({"data.classes": ["normal"]}, "classes"),
        ({"continual.method": "ewc", "federation.strategy": "fedprox"}, "'proximal' there"),
    ],
)
def test_another_network_or_other_labels_are_refused_with_what_to_do(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises((ModelError, StudyError), match=said):
        child_of(parent_of(tmp_path), Continuation(changes))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"federation": {"strategy": "fedper"}}, "each site keeps a part of it"),
        ({"model": {**CLASSIFIES["model"], "frozen": ["head*"]}}, "a part of the network alone"),
    ],
)
def test_a_model_in_parts_is_no_parent(
    tmp_path: Path, section: dict[str, dict[str, object]], said: str
) -> None:
    model = parent_of(tmp_path)
    content = {**CLASSIFIES, **section}
    if "model" in section:
        changed = model.study.model_copy(
            update={"model": model.study.model.model_copy(update={"frozen": ("0*",)})}
        )
    else:
        changed = parse_study(content)
    with pytest.raises(ModelError, match=said):
        child_of(replace(model, study=changed))


def test_patients_who_were_promised_privacy_are_not_trained_on_without(tmp_path: Path) -> None:
    promise: dict[str, object] = {
        "mode": "patient",
        "epsilon": 8.0,
        "delta": 1e-5,
        "sampling_rate": 0.1,
        "expected_patients": 30,
    }
    content = {**CLASSIFIES, "privacy": promise, "evaluation": {"keep": "last"}}
    model = parent_of(tmp_path, content)
    assert child_of(model).privacy == model.study.privacy
    with pytest.raises(ModelError, match="which breaks the promise"):
        child_of(model, Continuation({"privacy.mode": "none"}))


def test_the_file_on_the_disk_reads_back_to_the_same_study(tmp_path: Path) -> None:
    child = child_of(parent_of(tmp_path))
    assert parse_study(tomllib.loads(file_text(child))).digest == child.digest
