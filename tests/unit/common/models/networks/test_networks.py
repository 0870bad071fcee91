"""Every network of the catalogue does what the catalogue says."""

import copy
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wardround.common.errors import StudyError
from wardround.common.models.networks import registry as builders
from wardround.common.models.networks.registry import BUILDERS, build_network
from wardround.common.models.networks.small import ACTIVATIONS, group_count, normalisation_layer
from wardround.common.models.sharing import head_layer, head_names
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import parameter_count, read_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.registry import NETWORKS, largest_patch
from wardround.common.study.study import Study

# Building or running one of these takes seconds.
DEAR = ("swin-unetr", "densenet121", "resnet18", "resnet50", "efficientnet-b0", "vit")
FEW = ({}, {"normalisation": "group"})
NARROW = {
    "unet": [4, 6, 8],
    "basic-unet": [4, 4, 4, 6, 6, 4],
    "attention-unet": [4, 6],
    "dynunet": [4, 6, 8],
    "small-cnn": [4, 6],
    "mlp": [8],
}


def study_for(network: str, dimensions: int = 2, **model: Any) -> Study:
    """A study of three classes and two channels, at the least size that the network takes."""
    entry = NETWORKS[network]
    data: dict[str, Any] = {"classes": ["a", "b", "c"]}
    if dimensions == 0:
        data |= {"kind": "table", "channels": [], "covariates": [{"name": "age"}, {"name": "bmi"}]}
    else:
        features = model.get("features")
        least = entry.minimum_for(None if features is None else tuple(features))
        # One side is longer, so that a mix-up of axes shows.
        divisor = entry.divisor_for(None if features is None else tuple(features))
        size = [max(least, 4)] * dimensions
        size[-1] += divisor if network not in DEAR else 0
        data |= {"channels": ["t1", "t2"], "dimensions": dimensions, "size": size}
    return parse_study(
        {
            "study": {"name": "networks", "task": entry.tasks[0]},
            "data": data,
            "model": {"network": network, **model},
        }
    )


def inputs_for(study: Study, batch: int = 2) -> tuple[Tensor, ...]:
    parts = []
    if study.data.kind == "image":
        assert study.input_size is not None
        parts.append(torch.randn(batch, study.data.planes, *study.input_size))
    if study.data.covariates:
        parts.append(torch.randn(batch, study.data.covariate_width))
    return tuple(parts)


def check_forward_and_backward(study: Study, batch: int = 2) -> nn.Module:
    network = build_network(study, seed=1)
    inputs = inputs_for(study, batch)
    logits = network(*inputs)
    spatial = study.input_size if study.study.task == "segmentation" else ()
    assert isinstance(logits, Tensor)
    if study.task.boxes:  # of each anchor a score a class, a box, and itself
        assert logits.shape[::2] == (batch, 3 + 4 * study.data.dimensions)
    else:
        assert logits.shape == (batch, 3, *(spatial or ()))
    # Random weights, so that no normalisation can make the sum constant.
    (logits * torch.randn_like(logits)).sum().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert any(gradient.abs().max() > 0 for gradient in gradients)
    network.eval()
    with torch.no_grad():
        assert network(*inputs).shape == logits.shape
    return network


NORMALISATIONS = {
    "batch": (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    "instance": (nn.InstanceNorm2d, nn.InstanceNorm3d),
    "group": (nn.GroupNorm,),
    "layer": (nn.LayerNorm,),
}


def check_option_is_in(network: nn.Module, option: dict[str, Any]) -> None:
    """The option is built in, and nothing that it should have replaced is left."""
    layers = list(network.modules())
    if "dropout" in option:
        assert option["dropout"] in {layer.p for layer in layers if hasattr(layer, "p")}
    if "activation" in option and option["activation"] != "default":
        names = {type(layer).__name__.lower().replace("silu", "swish") for layer in layers}
        assert option["activation"] in names
    wanted = option.get("normalisation")
    if wanted is not None:
        kinds = {
            kind
            for kind, types in NORMALISATIONS.items()
            for layer in layers
            if isinstance(layer, types)
        }
        always = {"layer"} if any("Swin" in type(layer).__name__ for layer in layers) else set()
        assert kinds - always == ({wanted} if wanted != "none" else set())


def claims() -> Iterator[Any]:
    """One study a claimed option of each network; the dear networks are marked slow."""
    for name, entry in NETWORKS.items():
        options: list[dict[str, Any]] = [{}]
        options += [{"normalisation": kind} for kind in entry.normalisations]
        options += [{"activation": kind} for kind in ACTIVATIONS if entry.activations][1:]
        options += [{"dropout": 0.2}] if entry.dropout else []
        for dimensions in entry.dimensions:
            for option in options:
                if name in DEAR and dimensions == 3 and option not in FEW:
                    continue  # minutes of CPU; in 2D they are all tried
                narrow = {"features": NARROW[name]} if name in NARROW else {}
                label = "-".join(str(value) for value in option.values()) or "default"
                yield pytest.param(
                    name,
                    dimensions,
                    narrow | option,
                    id=f"{name}-{dimensions}d-{label}",
                    marks=_marks(name, dimensions, option),
                )


def _marks(network: str, dimensions: int, option: dict[str, Any]) -> list[pytest.MarkDecorator]:
    """Seconds each in 3D: 'make test' has room for one of a network; 2D has all its options."""
    is_dearest = dimensions == 3 and (
        network in ("swin-unetr", "resnet50") or (network in DEAR and bool(option))
    )
    slow = [pytest.mark.slow] if network in DEAR else []
    return [*slow, pytest.mark.long] if is_dearest else slow


def test_every_network_of_the_catalogue_has_a_builder_and_no_other() -> None:
    assert set(BUILDERS) == set(NETWORKS)


@pytest.mark.parametrize(("name", "dimensions", "model"), list(claims()))
def test_every_claimed_option_of_a_network_trains(
    name: str, dimensions: int, model: dict[str, Any]
) -> None:
    network = check_forward_and_backward(study_for(name, dimensions, **model))
    check_option_is_in(network, model)


def test_the_small_cnn_is_two_convolutions_and_a_linear_layer() -> None:
    study = parse_study(
        {
            "study": {"name": "reference", "task": "classification"},
            "data": {"classes": ["no", "yes"], "size": [28, 28]},
            "model": {"network": "small-cnn"},
        }
    )
    network = build_network(study, 0)
    assert [type(layer).__name__ for layer in network.children()] == [
        *("Conv2d", "ReLU", "MaxPool2d") * 2,
        "Flatten",
        "Linear",
    ]
    assert parameter_count(network) == (9 * 16 + 16) + (16 * 9 * 32 + 32) + (32 * 7 * 7 * 2 + 2)


def test_an_mlp_without_hidden_layers_is_logistic_regression() -> None:
    study = study_for("mlp", 0, features=[])
    network = build_network(study, 0)
    assert parameter_count(network) == 2 * 3 + 3
    covariates = torch.randn(5, 2)
    weight, bias = network.state_dict().values()
    torch.testing.assert_close(network(covariates), covariates @ weight.T + bias)


@pytest.mark.parametrize("name", ["small-cnn", "mlp", "unet"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(name: str) -> None:
    study = study_for(name, features=NARROW[name])
    first, again, other = (digest(read_parameters(build_network(study, s))) for s in (3, 3, 4))
    assert first == again != other


def test_building_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    build_network(study_for("small-cnn"), 5)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["small-cnn", "unet"])
def test_covariates_shift_the_logits_of_the_image(name: str) -> None:
    plain = study_for(name, features=NARROW[name])
    content = plain.model_dump(exclude_unset=True)
    content["data"]["covariates"] = [{"name": "age"}, {"name": "sex", "values": ["f", "m"]}]
    study = parse_study(content)
    network = check_forward_and_backward(study)
    images, covariates = inputs_for(study)
    weight = network.state_dict()["covariate_layer.weight"]
    assert weight.shape == (3, 3)
    shift = network(images, covariates) - network(images, torch.zeros_like(covariates))
    expected = (covariates @ weight.T).reshape(2, 3, *(1,) * (shift.ndim - 2)).expand_as(shift)
    torch.testing.assert_close(shift, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6, 8, 10, 16, 24, 32, 100])
def test_a_group_divides_the_width_and_holds_two_channels(width: int) -> None:
    groups = group_count(width)
    assert width % groups == 0
    assert width == 1 or width // groups >= 2


@pytest.mark.parametrize("dimensions", [2, 3])
def test_group_normalisation_survives_one_pixel_of_one_image(dimensions: int) -> None:
    layer = normalisation_layer("group", 8, dimensions)
    assert torch.isfinite(layer(torch.randn(1, 8, *(1,) * dimensions))).all()


@pytest.mark.parametrize("name", ["unet", "basic-unet", "attention-unet", "dynunet", "segresnet"])
def test_a_segmentation_network_trains_on_one_image_of_the_least_size(name: str) -> None:
    narrow = {"features": NARROW[name]} if name in NARROW else {}
    check_forward_and_backward(study_for(name, 2, **narrow), batch=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121", "efficientnet-b0"])
def test_a_classification_network_with_groups_trains_on_one_image(name: str) -> None:
    check_forward_and_backward(study_for(name, 2, normalisation="group"), batch=1)


def test_vit_cuts_images_into_at_least_seven_patches_a_side() -> None:
    cut = {28: 4, 32: 4, 64: 8, 96: 12, 128: 16, 224: 16, 256: 16}
    assert {length: largest_patch(length) for length in cut} == cut
    with pytest.raises(StudyError, match="side of 31, which vit cannot cut"):
        parse_study(
            {
                "study": {"name": "networks", "task": "classification"},
                "data": {"classes": ["a", "b"], "size": [31, 32]},
                "model": {"network": "vit"},
            }
        )


@pytest.mark.parametrize(
    ("network", "widths"), [("basic-unet", [8, 3, 1, 2, 8, 2]), ("attention-unet", [1, 2])]
)
def test_widths_that_a_network_cannot_halve_are_refused(network: str, widths: list[int]) -> None:
    with pytest.raises(StudyError, match="each width must be at least 2"):
        study_for(network, features=widths)
    build_network(study_for(network, features=[max(2, width) for width in widths]), 0)


def test_a_missing_package_is_named_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(builders, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"pip install 'einops>="):
        build_network(study_for("vit"), 0)


@pytest.mark.parametrize(
    ("network", "features", "complaint"),
    [
        ("basic-unet", [4, 8], "model.features lists 2 widths: basic-unet takes 6"),
        ("unet", [8], "takes 2 to 6"),
        ("small-cnn", [], "takes 1 to 8"),
        ("unet", [4, 8, 16, 32, 64], "at least 32 and a multiple of 16"),
        ("small-cnn", [4, 4, 4, 4, 4], "at least 32"),
    ],
)
def test_widths_that_do_not_fit_are_refused_when_the_study_is_read(
    network: str, features: list[int], complaint: str
) -> None:
    with pytest.raises(StudyError, match=complaint):
        parse_study(
            {
                "study": {"name": "widths", "task": NETWORKS[network].tasks[0]},
                "data": {"classes": ["a", "b"], "size": [24, 24]},
                "model": {"network": network, "features": features},
            }
        )


def test_our_own_networks_do_not_import_monai() -> None:
    code = (
        "import sys; from wardround.common.models.networks.registry import build_network; "
        "from wardround.common.study.loading import parse_study; "
        "build_network(parse_study({'study': {'name': 'a', 'task': 'classification'}, "
        "'data': {'classes': ['a', 'b'], 'size': [8, 8]}, "
        "'model': {'network': 'small-cnn'}}), 0); "
        "sys.exit('monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_supervised_network_answers_at_each_level_in_training_and_once_when_evaluated() -> None:
    study = study_for("dynunet", 3, features=[4, 6, 8, 8], deep_supervision=2)
    network = build_network(study, 0)
    (images,) = inputs_for(study)
    answers = network(images)
    sides = [tuple(answer.shape[2:]) for answer in answers]
    assert sides == [tuple(side // step for side in images.shape[2:]) for step in (1, 2, 4)]
    sum(answer.sum() for answer in answers).backward()
    network.eval()
    assert network(images).shape == answers[0].shape
    copy.deepcopy(network.train())  # as a personal twin is made of it
    assert head_layer(network) is network.output_block.conv.conv
    named = [name for name in head_names(network) if "deep_supervision_heads" in name]
    assert named
    plain = study_for("dynunet", 3, features=[4, 6, 8, 8])
    weights = read_parameters(build_network(plain, 0))
    assert set(weights) < set(read_parameters(network))
