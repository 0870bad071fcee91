"""LoRA adapters are merged into their layers where a model is handed to other programs."""

from pathlib import Path

import pytest
import torch

from wardround.common.models.bundle import write_bundle
from wardround.common.models.contract import Contract, study_content
from wardround.common.models.imported import import_bundle
from wardround.common.models.lora import AdaptedLinear, merge_adapters
from wardround.common.models.model_folder import open_model_folder, write_model_folder
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study


@pytest.fixture(scope="module")
def study() -> Study:
    return parse_study(
        {
            "study": {"name": "adapted", "task": "classification"},
            "data": {"classes": ["a", "b"], "size": [28, 28]},
            "model": {"network": "vit", "adapter_rank": 2, "adapter_scale": 3.0},
            "federation": {"share": "adapters"},
        }
    )


def trained(study: Study) -> torch.nn.Module:
    network = build_network(study, 0).eval()
    torch.manual_seed(1)
    for name, weight in network.named_parameters():
        if "lora_b" in name:
            weight.data.normal_()
    return network


def test_a_merged_network_answers_as_before_and_has_the_names_of_one_without(study: Study) -> None:
    network, images = trained(study), torch.rand(2, 1, 28, 28)
    plain = build_network(study.model_copy(update={"model": study.model.model_copy(
        update={"adapter_rank": None})}), 0)  # fmt: skip
    with torch.inference_mode():
        before = network(images)
        merge_adapters(network)
        after = network(images)

    assert not any(isinstance(layer, AdaptedLinear) for layer in network.modules())
    assert [*network.state_dict()] == [*plain.state_dict()]
    assert float((before - after).abs().max()) < 1e-4 * float(before.abs().max())


@pytest.mark.long
def test_a_bundle_holds_the_merged_network_and_comes_back_without_adapters(
    study: Study, tmp_path: Path
) -> None:
    network, images = trained(study), torch.rand(2, 1, 28, 28)
    weights = read_parameters(network)
    contract = Contract(
        wardround="0", name="adapted", run="", round=1, study=study_content(study),
        study_digest=study.digest, parameters=digest(weights), seen_note="none",
    )  # fmt: skip
    write_model_folder(tmp_path / "model", weights, contract, (), ("card", "CC BY-NC 4.0"))

    write_bundle(open_model_folder(tmp_path / "model"), tmp_path / "bundle")
    import_bundle(tmp_path / "bundle", None, tmp_path / "back")

    back = open_model_folder(tmp_path / "back")
    assert back.study.model.adapter_rank is None
    assert "lora" not in " ".join(back.weights())
    assert "CC BY-NC 4.0" in (tmp_path / "bundle" / "configs" / "metadata.json").read_text()
    with torch.inference_mode():
        before, after = network(images), back.network()(images)
    assert float((before - after).abs().max()) < 1e-4 * float(before.abs().max())
