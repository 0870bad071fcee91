"""Networks of packages and of MONAI: what they are told, and how large they may be."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.support.places.packages import write_package

from wardround.common.errors import StudyError
from wardround.common.files.packages.importing import forget_packages
from wardround.common.files.packages.snapshot import hash_of
from wardround.common.models.networks.registry import build_network
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

UNET = {"channels": [4, 8], "strides": [2]}


def study(network: str, arguments: dict[str, object] | None = None, **sections: object) -> Study:
    return parse_study(
        {
            "study": {"name": "a", "task": sections.pop("task", "segmentation")},
            "data": {"channels": ["image"], "classes": ["a", "b"], "size": [32, 32]},
            "model": {"network": network, "arguments": arguments or {}},
            **sections,
        }
    )


def refusal_of(network: str, arguments: dict[str, object] | None = None, **more: object) -> str:
    with pytest.raises(StudyError) as refused:
        build_network(study(network, arguments, **more), 0)
    return str(refused.value)


def test_a_network_of_monai_is_built_by_its_class_with_the_study_s_sizes() -> None:
    network = build_network(study("monai:UNet", UNET), 0)
    assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 2, 32, 32)
    assert network.monai_definition["_target_"] == "monai.networks.nets.UNet"


def test_the_same_seed_gives_the_same_weights() -> None:
    one, two = (build_network(study("monai:UNet", UNET), 3).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_network_that_gives_outputs_on_the_way_gives_the_last_alone() -> None:
    network = build_network(study("monai:BasicUNetPlusPlus", {"features": [4] * 6}), 0)
    assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 2, 32, 32)


@pytest.mark.parametrize(
    ("network", "arguments", "word"),
    [
        ("monai:Unet", UNET, "Did you mean 'monai:UNet'"),
        ("monai:UNet", {**UNET, "chanels": 1}, "unknown argument of monai:UNet"),
        ("monai:UNet", {"channels": [4, 8]}, "needs the argument strides"),
        ("monai:UNet", {**UNET, "out_channels": 1}, "follows from the study"),
        ("monai:resnet10", {"pretrained": True}, "read a file"),
        ("monai:DenseNet121", {}, "segmentation needs (2, 2, 32, 32)"),
        ("monai:UNet", {**UNET, "channels": [8, 4, 2]}, "cannot be built"),
        ("monai:UNet", {"channels": [60_000, 60_000], "strides": [2]}, "numbers or more"),
        ("monai:UNet", {**UNET, "num_res_units": 60_000}, "layers"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(
    network: str, arguments: dict[str, object], word: str
) -> None:
    began = time.process_time()
    assert word in refusal_of(network, arguments)
    assert time.process_time() - began < 30


def test_a_network_that_would_fill_the_machine_in_training_is_refused_before_it_is_built() -> None:
    large = {"data": {"channels": ["image"], "classes": ["a", "b"], "size": [4096, 4096]}}
    said = refusal_of("monai:UNet", {"channels": [256, 512], "strides": [2]}, **large)
    assert "GiB in training" in said


@pytest.mark.parametrize(
    "value", ["http://x", "/etc/passwd", "a b", {"a": 1}, [[[1]]], 10**9, float("1e9"), [1] * 33]
)
def test_an_argument_is_a_number_a_word_or_a_short_list(value: object) -> None:
    with pytest.raises(StudyError, match="takes true and false"):
        study("monai:UNet", {"act": value})


def test_arguments_are_for_networks_that_are_not_wardround_s_own() -> None:
    with pytest.raises(StudyError, match="has keys of its own"):
        study("unet", {"width": 4})


def test_arguments_travel_as_they_were_written() -> None:
    asked = study("monai:UNet", {**UNET, "dropout": 1.0, "bias": True, "act": "RELU"})
    again = parse_study(asked.model_dump(mode="json"))
    assert again.digest == asked.digest
    assert again.model.arguments["dropout"] == 1.0
    assert again.model.arguments["bias"] is True
    assert again.model.arguments["channels"] == (4, 8)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    points = "[wardround.networks]\nnet = tiny_ward.net:Net\nnone = tiny_ward.net:nn\n"
    write_package(tmp_path, entry_points=points)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield {"tiny-ward": hash_of("tiny-ward")}
    forget_packages()


def test_a_network_of_a_package_takes_its_arguments_from_the_study(
    package: dict[str, str],
) -> None:
    asked = study("tiny-ward:net", {"width": 3}, task="classification", packages=package)
    network = build_network(asked, 0)
    assert network.head.weight.shape == (2, 3)
    said = refusal_of("tiny-ward:none", task="classification", packages=package)
    assert "no class or function" in said
    said = refusal_of("tiny-ward:net", {"depth": 3}, task="classification", packages=package)
    assert "unknown argument of tiny-ward:net 'depth'" in said
