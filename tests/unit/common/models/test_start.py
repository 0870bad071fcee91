"""What a network takes of a file of weights: whole layers that fit, said in words, or nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from wardround.client.session.model_context import ModelContext
from wardround.common.errors import ModelError
from wardround.common.models.card import licence_text
from wardround.common.models.contract import Contract, study_content
from wardround.common.models.model_folder import open_model_folder, write_model_folder
from wardround.common.models.networks.registry import build_network
from wardround.common.models.pretrained import (
    MissingWeightsError,
    load_pretrained,
    offer_weights,
    origin_words,
    read_weights,
    start_of,
    store_weights,
    stored_weights,
    weights_path,
)
from wardround.common.models.sharing import head_names
from wardround.common.models.start import WeightsOrigin, plain_name
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

FEATURES = {"small-cnn": [4, 8], "unet": [4, 8]}
SIZES = {"densenet121": 64, "efficientnet-b0": 64, "vit": 28}


def study_of(task: str, network: str, **model: object) -> Study:
    size = SIZES.get(network, 16)
    if network in FEATURES:
        model.setdefault("features", FEATURES[network])
    classes = {} if task == "pretraining" else {"classes": ["a", "b", "c"]}
    return parse_study(
        {
            "study": {"name": f"of {task}", "task": task},
            "data": {"size": [size, size], **classes},
            "model": {"network": network, **model},
        }
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    return tmp_path


def offered(folder: Path, study: Study, licence: str = "CC BY-NC 4.0") -> str:
    """Return the hash of a model with other weights than a seed draws."""
    weights = {n: w + 1 for n, w in read_parameters(build_network(study, 7)).items()}
    contract = Contract(
        wardround="0", name="first", run="", round=1, study=study_content(study),
        study_digest=study.digest, parameters=digest(weights), seen_note="none",
    )  # fmt: skip
    write_model_folder(folder, weights, contract, (), ("card", licence_text(licence, study)))
    return offer_weights(open_model_folder(folder))


@pytest.mark.parametrize(
    ("network", "task"),
    [
        ("small-cnn", "classification"),
        ("vit", "classification"),
        ("unet", "segmentation"),
        pytest.param("resnet18", "classification", marks=pytest.mark.long),
        pytest.param("densenet121", "classification", marks=pytest.mark.long),
        pytest.param("efficientnet-b0", "classification", marks=pytest.mark.long),
    ],
)
def test_another_task_starts_from_the_whole_pretrained_encoder(
    network: str, task: str, cache: Path
) -> None:
    source = study_of("pretraining", network)
    study = study_of(task, network, weights_sha256=offered(cache / "model", source))
    found = build_network(study, 0)
    fresh, heads = read_parameters(found), set(head_names(found))

    start = load_pretrained(found, study)

    assert start is not None
    now, given = read_parameters(found), read_parameters(build_network(source, 7))
    known = {plain_name(name): tensor + 1 for name, tensor in given.items()}
    for name, tensor in now.items():
        wanted = fresh[name] if name in heads else known[plain_name(name)]
        assert torch.equal(tensor, wanted), name
    assert "(task pretraining of the study of pretraining)" in start.words()
    assert {name.rpartition(".")[0] for name in heads} == set(start.left)


def test_a_network_that_nothing_fits_is_refused_with_what_would(cache: Path) -> None:
    sha256 = offered(cache / "model", study_of("pretraining", "unet"))

    with pytest.raises(ModelError, match=r"none but a head has .* \(model.features\)"):
        start_of(study_of("classification", "resnet18", weights_sha256=sha256))


def test_a_layer_of_which_a_part_fits_is_drawn_anew_as_a_whole(cache: Path) -> None:
    sha256 = offered(cache / "model", study_of("classification", "small-cnn", features=[4, 8]))
    wider = study_of("classification", "small-cnn", features=[4, 9], weights_sha256=sha256)

    start = start_of(wider)

    assert start is not None
    assert start.layers == ("0",)
    assert start.left == ("3", "7"), "its bias would have fitted in no case"
    assert start.words().startswith("1 of 3 layers")


def test_what_is_frozen_must_come_from_the_weights(cache: Path) -> None:
    sha256 = offered(cache / "model", study_of("pretraining", "small-cnn", features=[4, 8]))
    model = {"features": [4, 9], "weights_sha256": sha256}

    with pytest.raises(ModelError, match=r"model.frozen keeps 3\.weight, 3\.bias as it is"):
        start_of(study_of("classification", "small-cnn", frozen=["3.*"], **model))
    assert start_of(study_of("classification", "small-cnn", frozen=["0.*"], **model)) is not None


@pytest.mark.parametrize(
    ("network", "model", "what"),
    [
        ("small-cnn", {"frozen": ["0.*"]}, "what model.frozen names"),
        ("vit", {"adapter_rank": 2}, "the network beneath the adapters"),
    ],
)
def test_what_no_training_moves_is_said_to_stay_as_it_was_drawn(
    cache: Path, wardround: Callable[..., Any], network: str, model: dict[str, Any], what: str
) -> None:
    place = cache / "frozen.toml"
    place.write_text(study_of("classification", network, **model).to_toml())

    said = wardround("study", "check", place)

    assert said.code == 0, said.err
    assert f"{what} stays as federation.seed draws it" in said.out


def test_the_same_model_is_offered_under_the_same_hash(cache: Path) -> None:
    study = study_of("pretraining", "small-cnn")

    assert offered(cache / "one", study) == offered(cache / "two", study)


def test_a_model_carries_the_licence_of_what_it_started_from_and_so_does_the_next(
    cache: Path,
) -> None:
    first = offered(cache / "first", study_of("pretraining", "small-cnn"))
    second = study_of("classification", "small-cnn", weights_sha256=first)
    third = study_of(
        "classification",
        "small-cnn",
        weights_sha256=offered(cache / "second", second, "open data"),
    )

    assert "CC BY-NC 4.0" in licence_text("of the hospitals", second)
    text = licence_text("of the hospitals", third)
    assert "open data" in text
    assert "CC BY-NC 4.0" in text, "and that of what that started from"
    assert text.count("Wardround grants no licence") == 1
    weights_path(first).unlink()
    assert "not known here: ask whoever made them" in next(origin_words(second))


@pytest.mark.parametrize(
    "said", ["", "[]", "null", "{", '{"model": 3}', "[" * 100_000, '{"licence": "\\u001b[2J"}']
)
def test_what_a_file_says_of_itself_may_be_anything(said: str) -> None:
    origin = WeightsOrigin.of({"origin": said})

    assert "\x1b" not in origin.licence
    assert isinstance(origin.words(), str)
    assert json.loads(origin.as_metadata()["origin"])["licence"] == origin.licence


def test_a_site_needs_the_file_only_where_the_server_does_not_send_all_of_the_model(
    cache: Path,
) -> None:
    sha256 = offered(cache / "model", study_of("pretraining", "small-cnn"))
    content = stored_weights(sha256)
    weights_path(sha256).unlink()
    ModelContext.build(study_of("classification", "small-cnn", weights_sha256=sha256), "cpu")
    frozen = study_of("classification", "small-cnn", weights_sha256=sha256, frozen=["0.*"])
    with pytest.raises(MissingWeightsError):
        ModelContext.build(frozen, "cpu")

    assert read_weights(sha256, content)
    store_weights(sha256, content)

    base = ModelContext.build(frozen, "cpu").base
    assert set(base) == {"0.weight", "0.bias"}


def test_weights_that_are_not_those_of_the_study_are_not_read(cache: Path) -> None:
    sha256 = offered(cache / "model", study_of("pretraining", "small-cnn"))
    content = bytearray(stored_weights(sha256))
    content[-1] ^= 1

    with pytest.raises(ModelError, match="not those that the study names"):
        read_weights(sha256, bytes(content))
