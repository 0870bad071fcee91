"""LoRA: what is added, what learns, what travels, and which studies may ask for it."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from wardround.client.session.model_context import ModelContext
from wardround.client.training.optimisers import build_optimiser
from wardround.common.errors import ModelError, RunError, StudyError
from wardround.common.messages.replies import SiteInfo, pack_site_info, unpack_site_info
from wardround.common.models.lora import AdaptedLinear, add_adapters, fingerprint, frozen_names
from wardround.common.models.networks.registry import build_network
from wardround.common.models.sharing import CONTROL, Layout, auxiliary_schema, head_names, layout_of
from wardround.common.parameters.model_file import save_model
from wardround.common.parameters.schema import Parameters, parameter_count, read_parameters, schema
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.study import Study
from wardround.server.sites.site_info import check_bases

SIDE = {"vit": 32, "swin-unetr": 64}
TASK = {"vit": "classification", "swin-unetr": "segmentation"}


def study_for(network: str = "vit", rank: int | None = 8, **parts: Any) -> Study:
    model = {"network": network} | ({} if rank is None else {"adapter_rank": rank})
    content: dict[str, Any] = {
        "study": {"name": "lora", "task": TASK.get(network, "classification")},
        "data": {"classes": ["a", "b"], "size": [SIDE.get(network, 16)] * 2},
        "model": model,
    }
    for section, values in parts.items():
        content[section] = {**content.get(section, {}), **values}
    return parse_study(content)


def layout_for(study: Study) -> Layout:
    return layout_of(build_network(study, 0), plan_of(study))


@pytest.mark.parametrize("network", ["vit", "swin-unetr"])
def test_before_training_the_network_is_the_one_without_adapters(network: str) -> None:
    plain = build_network(study_for(network, rank=None), 3).eval()
    adapted = build_network(study_for(network), 3).eval()
    before, after = read_parameters(plain), read_parameters(adapted)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name.rpartition(".")[2] for name in after.keys() - before.keys()} == {
        "lora_a",
        "lora_b",
    }
    images = torch.randn(1, 1, SIDE[network], SIDE[network])
    with torch.no_grad():
        assert torch.equal(adapted(images), plain(images))


def test_a_trained_adapter_adds_its_product_to_the_weights() -> None:
    # The same as one layer whose weight is W + scale * B A (the paper's section 4.1).
    layer = nn.Linear(5, 7)
    merged = nn.Linear(5, 7)
    adapted = AdaptedLinear(layer, rank=2, scale=1.5)
    nn.init.normal_(adapted.lora_b)
    with torch.no_grad():
        merged.weight.copy_(layer.weight + 1.5 * adapted.lora_b @ adapted.lora_a)
        merged.bias.copy_(layer.bias)
        inputs = torch.randn(3, 4, 5)
        torch.testing.assert_close(adapted(inputs), merged(inputs))
        assert not torch.allclose(adapted(inputs), layer(inputs))


@pytest.mark.parametrize("network", ["vit", "swin-unetr"])
def test_training_changes_the_adapters_and_the_head_alone(network: str) -> None:
    study = study_for(network, training={"optimiser": "adamw", "weight_decay": 0.1})
    built = build_network(study, 0)
    before = read_parameters(built)
    optimiser = build_optimiser(built, study.training)
    for _ in range(2):  # A has no gradient in the first step, while B is zero
        optimiser.zero_grad()
        images = torch.randn(1, 1, SIDE[network], SIDE[network])
        built(images).square().mean().backward()
        optimiser.step()
    after = read_parameters(built)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    adapters = {name for name in before if "lora_" in name}
    assert changed == adapters | set(head_names(built))
    held = {id(weight) for group in optimiser.param_groups for weight in group["params"]}
    assert held == {id(w) for n, w in built.named_parameters() if n in changed}


def test_each_attention_and_mlp_layer_is_adapted_and_no_other() -> None:
    for network, blocks in {"vit": 12, "swin-unetr": 8}.items():
        built = build_network(study_for(network), 0)
        adapted = [n for n, layer in built.named_modules() if isinstance(layer, AdaptedLinear)]
        assert len(adapted) == 4 * blocks  # into and out of the attention, into and out of the MLP
        assert not any("head" in name or "reduction" in name for name in adapted)


def test_only_adapters_and_head_travel_in_less_than_a_tenth_of_the_bytes() -> None:
    study = study_for()
    network = build_network(study, 0)
    layout = layout_of(network, plan_of(study))
    sent = schema(layout.shared_part(read_parameters(network)))
    assert all("lora_" in spec.name or "classification_head" in spec.name for spec in sent)
    # By hand: qkv, out, and the two layers of the MLP in 12 blocks; then the head with its bias.
    widths = (192 + 576) + (192 + 192) + (192 + 768) + (768 + 192)
    assert sum(spec.byte_count for spec in sent) == 4 * (12 * 8 * widths + 192 * 2 + 2)
    whole = 4 * parameter_count(build_network(study_for(rank=None), 0))
    assert sum(spec.byte_count for spec in sent) < 0.1 * whole
    assert layout.personal == ()
    assert set(layout.shared).isdisjoint(layout.frozen)
    assert {*layout.shared, *layout.frozen} == set(network.state_dict())
    assert layout.trainable == set(layout.shared)


def test_clinical_values_beside_images_keep_both_heads_trainable() -> None:
    network = build_network(study_for(data={"covariates": [{"name": "age"}]}), 0)
    trainable = {n for n, w in network.named_parameters() if w.requires_grad and "lora_" not in n}
    assert trainable == {
        "covariate_layer.weight",
        "image_network.network.classification_head.weight",
        "image_network.network.classification_head.bias",
    }


def test_a_study_may_share_more_or_less_than_adapters_and_head() -> None:
    everything = layout_for(study_for(federation={"share": "all"}))
    assert set(everything.frozen) < set(everything.shared)
    personal = layout_for(study_for(federation={"strategy": "fedper"}))
    assert personal.personal == (
        "network.classification_head.weight",
        "network.classification_head.bias",
    )
    assert all("lora_" in name for name in personal.shared)
    assert plan_of(study_for()).share == "adapters"
    assert not plan_of(study_for()).personalised
    assert not plan_of(study_for()).keeps_state
    with pytest.raises(ModelError, match="matches no parameter"):
        layout_for(study_for(federation={"personal": ["*patch_embedding*"]}))


def test_control_variates_are_of_the_numbers_that_learn() -> None:
    study = study_for(
        federation={"strategy": "scaffold", "share": "all"}, training={"optimiser": "sgd"}
    )
    network = build_network(study, 0)
    layout = layout_of(network, plan_of(study))
    auxiliary = auxiliary_schema(plan_of(study), layout, read_parameters(network))
    assert {spec.name.removeprefix(CONTROL) for spec in auxiliary} == layout.trainable
    assert layout.trainable.isdisjoint(layout.frozen)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"network": "small-cnn"}, r"is for transformers \(swin-unetr, vit\), not for small-cnn"),
        ({"federation": {"strategy": "fedbn"}}, "freezes the normalisations"),
        ({"network": "swin-unetr", "model": {"normalisation": "batch"}}, "running means"),
        ({"rank": None, "federation": {"share": "adapters"}}, "set model.adapter_rank"),
        ({"rank": None, "model": {"adapter_scale": 2.0}}, "no effect without"),
        ({"model": {"frozen": ["*"]}}, "set one of them"),
    ],
)
def test_what_does_not_fit_adapters_is_refused_when_the_study_is_read(
    parts: dict[str, Any], said: str
) -> None:
    with pytest.raises(StudyError, match=said):
        study_for(**parts)


def test_a_rank_that_saves_nothing_is_refused() -> None:
    with pytest.raises(StudyError, match="more than the 24 values"):
        build_network(study_for("swin-unetr", rank=25), 0)
    with pytest.raises(StudyError, match="no attention or MLP layer"):
        add_adapters(nn.Sequential(nn.Linear(4, 4)), 2, 1.0, ())


# --- Pretrained weights --------------------------------------------------------
@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def put(folder: Path, parameters: Parameters) -> str:
    """Put a weight file where a study's hash finds it, and return the hash."""
    written = folder / "new.safetensors"
    save_model(written, parameters, {})
    sha256 = hashlib.sha256(written.read_bytes()).hexdigest()
    written.rename(folder / f"{sha256}.safetensors")
    return sha256


@pytest.mark.parametrize("wrapper", ["", "network."], ids=["MONAI's names", "our names"])
def test_pretrained_weights_lie_beneath_the_adapters_and_not_in_the_head(
    wrapper: str, cache: Path
) -> None:
    other = study_for(rank=None, data={"classes": ["a", "b", "c"]})  # another head
    pretrained = read_parameters(build_network(other, 7))
    named = {wrapper + n.removeprefix("network."): w for n, w in pretrained.items()}
    study = study_for(model={"weights_sha256": put(cache, named)})
    context = ModelContext.build(study, "cpu")
    drawn = build_network(study, study.federation.seed).state_dict()
    for name, tensor in context.network.state_dict().items():
        expected = pretrained[name] if name in context.layout.frozen else drawn[name]
        assert torch.equal(tensor, expected), name
    assert context.base.keys() == set(context.layout.frozen)
    assert "to start from the weights with the SHA-256" in explain_study(study)


def test_pretrained_weights_of_swin_may_leave_its_constants_out(cache: Path) -> None:
    plain = build_network(study_for("swin-unetr", rank=None), 7)
    sha256 = put(cache, {name: weight.detach() for name, weight in plain.named_parameters()})
    study = study_for("swin-unetr", model={"weights_sha256": sha256})
    network = ModelContext.build(study, "cpu").network
    name = "swinViT.layers1.0.blocks.0.attn.qkv.weight"
    assert torch.equal(network.state_dict()[name], plain.state_dict()[name])


def test_pretrained_weights_that_are_absent_changed_or_of_another_network_are_refused(
    cache: Path,
) -> None:
    absent = study_for(model={"weights_sha256": "0" * 64})
    with pytest.raises(ModelError, match=r"000000000000 are not on this machine: put the file at"):
        ModelContext.build(absent, "cpu")
    sha256 = put(cache, {"cls_token": torch.zeros(1, 1, 192)})
    study = study_for(model={"weights_sha256": sha256})
    with pytest.raises(ModelError, match="do not fit the network"):
        ModelContext.build(study, "cpu")
    with (cache / f"{sha256}.safetensors").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(ModelError, match="copy it again"):
        ModelContext.build(study, "cpu")


def test_a_network_without_adapters_has_nothing_frozen() -> None:
    network = build_network(study_for(rank=None), 0)
    assert frozen_names(network) == ()
    assert fingerprint(network) == 0


def test_sites_with_different_bases_do_not_train_together() -> None:
    study = study_for()
    same, again, other = (fingerprint(build_network(study, seed)) for seed in (0, 0, 1))
    rounded = build_network(study, 0)
    with torch.no_grad():
        for weight in rounded.parameters():
            weight.mul_(1 + torch.finfo(torch.float32).eps)
    north, south, west, east = (
        unpack_site_info(pack_site_info(SiteInfo(site, "0", "d", 1, (), base)))
        for site, base in zip(
            ("north", "south", "west", "east"),
            (same, again, fingerprint(rounded), other),
            strict=True,
        )
    )
    check_bases([north, south, west])
    with pytest.raises(RunError, match="north and east do not hold the same frozen network"):
        check_bases([north, south, east])


def test_a_hospital_reads_that_adapters_are_trained_and_sent() -> None:
    text = " ".join(explain_study(study_for()).split())
    assert "train adapters (LoRA, rank 8) and the last layer of an otherwise frozen vit" in text
    assert "the network's adapters and its last layer, after training on its patients" in text
    assert "a check sum of the frozen numbers" in text
    never_leave = text[text.index("These never leave") :]
    assert "the network's frozen numbers" in never_leave
    plain = explain_study(study_for(rank=None))
    assert "adapter" not in plain
    assert "frozen" not in plain
