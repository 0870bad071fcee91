"""DynUNet lists each number under two names: a study sends, freezes and writes it once."""

import copy
from pathlib import Path

import pytest
import torch

from wardround.client.egress.message_schema import update_arrays, update_bytes
from wardround.client.session.model_context import ModelContext
from wardround.common.models.lora import frozen_names
from wardround.common.models.model_folder import check_shapes, network_with
from wardround.common.models.networks.named_once import (
    second_names,
    under_all_names,
    under_first_names,
)
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.schema import parameter_count, read_parameters, write_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.registry import NETWORKS
from wardround.common.study.study import Study


def study_of(network: str = "dynunet", **keys: object) -> Study:
    return parse_study(
        {
            "study": {"name": "tiny", "task": "segmentation"},
            "data": {"classes": ["background", "organ"], "size": [32, 32]},
            "model": {"network": network, "features": [4, 4, 8], **keys},
        }
    )


def test_an_update_holds_each_number_once() -> None:
    context = ModelContext.build(study_of(), "cpu")
    assert second_names(context.network), "MONAI holds each block twice"
    assert update_bytes(context) == 4 * parameter_count(context.network)
    assert len(update_arrays(context)["model"]) == len(list(context.network.parameters()))


@pytest.mark.parametrize("mode", ["none", "patient"])
def test_a_frozen_layer_is_frozen_under_all_its_names(mode: str) -> None:
    study = study_of(frozen=["bottleneck.*"], weights_sha256="0" * 64)
    network = build_network(study, 0)
    assert set(frozen_names(network)) == {
        name for name, weight in network.named_parameters() if not weight.requires_grad
    }
    twice = {name for name, first in second_names(network).items() if "bottleneck" in first}
    assert twice
    assert not twice & set(network.state_dict())


def test_a_copy_that_is_written_with_the_first_names_is_the_same_network() -> None:
    network, other = build_network(study_of(), 0).eval(), build_network(study_of(), 1).eval()
    twin = copy.deepcopy(other)
    images = torch.rand(2, 1, 32, 32)
    write_parameters(other, read_parameters(network))
    twin.load_state_dict(network.state_dict())
    assert torch.equal(network(images), other(images))
    assert torch.equal(network(images), twin(images))


def test_weights_with_all_names_as_monai_and_earlier_versions_wrote_them_are_read() -> None:
    network = build_network(study_of(), 0).eval()
    listed = under_all_names(network, read_parameters(network))
    assert len(listed) > len(network.state_dict())
    check_shapes(study_of(), listed)
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(network_with(study_of(), listed)(images), network(images))
    assert under_first_names(network, listed).keys() == network.state_dict().keys()


def test_networks_of_the_catalogue_hold_a_number_twice_in_no_other_case(tmp_path: Path) -> None:
    small = ("unet", "basic-unet", "attention-unet")
    assert set(small) <= set(NETWORKS)
    for name in small:
        features = [4, 4, 4, 4, 4, 4] if name == "basic-unet" else [8, 8, 16]
        assert not second_names(build_network(study_of(name, features=features), 0)), name
