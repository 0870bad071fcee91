"""What of a network travels and what stays at the site."""

from typing import Any

import pytest
import torch
from torch import nn

from wardround.common.errors import ModelError, StudyError
from wardround.common.models.networks.registry import build_network
from wardround.common.models.sharing import (
    auxiliary_schema,
    head_layer,
    head_names,
    layout_of,
    normalisation_names,
)
from wardround.common.parameters.schema import ArraySpec, read_parameters
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.plans.strategy import SHARING, StrategyPlan, plan_from, plan_of
from wardround.common.study.registry import NETWORKS
from wardround.common.study.sections.federation import FederationSection
from wardround.common.study.study import Study

BARE = ("small-cnn", "mlp", "unet")
DEAR = ("swin-unetr", "resnet50")  # seconds each; the same builders as others of the list
QUICK = tuple(name for name in NETWORKS if name not in DEAR)


def plan(**federation: Any) -> StrategyPlan:
    return plan_from(FederationSection.model_validate(federation))


def study_for(network: str, **model: Any) -> Study:
    entry = NETWORKS[network]
    side = max(entry.minimum, 16)
    return parse_study(
        {
            "study": {"name": "sharing", "task": entry.tasks[0]},
            "data": {"classes": ["a", "b", "c"], "size": [side, side]},
            "model": {"network": network, **model},
        }
    )


@pytest.mark.parametrize("network", [name for name in QUICK if name != "retinanet"])
def test_the_head_of_each_network_makes_the_logits(network: str) -> None:
    built = build_network(study_for(network), 0).eval()
    layer = built.get_submodule("model.2") if network == "unet" else head_layer(built)
    seen: list[torch.Tensor] = []
    layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    side = max(NETWORKS[network].minimum, 16)
    with torch.no_grad():
        logits = built(torch.randn(1, 1, side, side))
    assert torch.equal(seen[0], logits)
    owned = {id(weight) for weight in layer.parameters()}
    named = dict(built.named_parameters())
    assert {id(named[name]) for name in head_names(built) if name in named} == owned


def test_the_head_of_a_detector_is_what_scores_the_classes() -> None:
    built = build_network(study_for("retinanet"), 0)
    assert head_names(built) == ("head.classes.weight", "head.classes.bias")
    assert built.get_submodule("head.classes").out_channels == 3


@pytest.mark.parametrize("network", QUICK)
def test_only_bare_networks_have_no_normalisation_to_keep(network: str) -> None:
    found = normalisation_names(build_network(study_for(network), 0))
    assert bool(found) == (network not in BARE)
    if network in BARE:
        with pytest.raises(StudyError, match="keeps nothing at a site"):
            with_changes(study_for(network), {"federation.strategy": "fedbn"})


@pytest.mark.parametrize("share", [name for name in SHARING if name != "adapters"])
@pytest.mark.parametrize("normalisation", ["default", "batch", "layer", "none"])
@pytest.mark.parametrize("features", [[], [8]])
def test_what_a_table_cannot_share_is_refused_by_the_study_and_not_by_a_site(
    share: str, normalisation: str, features: list[int]
) -> None:
    content = {
        "study": {"name": "n", "task": "classification"},
        "data": {"kind": "table", "classes": ["a", "b"], "covariates": [{"name": "age"}]},
        "model": {"network": "mlp", "features": features, "normalisation": normalisation},
        "federation": {"share": share},
    }
    try:
        checked = parse_study(content)
    except StudyError as error:
        assert "federation.share" in str(error) or "normalisation" in str(error)  # noqa: PT017
        return
    assert layout_of(build_network(checked, 0), plan_of(checked)).shared


def test_a_batch_normalisation_stays_with_its_running_statistics() -> None:
    network = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    layout = layout_of(network, plan(strategy="fedbn"))
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert layout.personal == tuple(f"1.{part}" for part in parts)
    assert layout.shared == ("0.weight", "0.bias", "3.weight", "3.bias")
    assert "1.running_mean" not in layout.trainable
    assert "1.weight" in layout.trainable


def test_a_late_fusion_has_two_heads() -> None:
    study = study_for("small-cnn")
    covariates = {"data.covariates": [{"name": "age"}]}
    network = build_network(with_changes(study, covariates), 0)
    assert [name.rpartition(".")[0] for name in head_names(network)] == [
        "image_network.7",
        "image_network.7",
        "covariate_layer",
    ]


def test_patterns_keep_further_parameters_at_the_site() -> None:
    network = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2))
    assert layout_of(network, plan(personal=["0.*"])).personal == ("0.weight", "0.bias")
    with pytest.raises(ModelError, match="matches no parameter"):
        layout_of(network, plan(personal=["9.*"]))
    with pytest.raises(StudyError, match="nothing of this network is shared"):
        layout_of(network, plan(personal=["*"]))


def test_only_what_a_plan_asks_for_leaves_beside_the_model() -> None:
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2, affine=False))
    model = read_parameters(network)
    for name, expected in {
        "fedavg": (),
        "ditto": (),
        "scaffold": (ArraySpec("control/0.weight", (2, 2), "float32"),),
        "qfedavg": (ArraySpec("received-loss", (), "float64"),),
    }.items():
        chosen = plan(strategy=name)
        assert auxiliary_schema(chosen, layout_of(network, chosen), model) == expected
