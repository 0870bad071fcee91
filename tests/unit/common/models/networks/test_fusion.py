"""Images and clinical values in one network, and what stands for those that are missing."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wardround.common.errors import StudyError
from wardround.common.models.networks.registry import build_network
from wardround.common.models.sharing import head_names
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

FUSIONS = ("early", "intermediate", "late")
KINDS = ("classification", "segmentation")
CASES = [(kind, fusion) for kind in KINDS for fusion in FUSIONS]


def study_of(task: str, fusion: str = "early", **data: Any) -> Study:
    network = (
        {"network": "small-cnn", "features": [4, 4]}
        if task == "classification"
        else {"network": "unet", "features": [4, 6], "normalisation": "group"}
    )
    return parse_study(
        {
            "study": {"name": "fusion", "task": task},
            "data": {
                "classes": ["a", "b", "c"],
                "channels": ["t1", "t2", "flair"],
                "size": [16, 16],
                "covariates": [{"name": "age"}, {"name": "sex", "values": ["f", "m"]}],
                "optional": ["t2", "flair", "sex"],
                **data,
            },
            "model": {"fusion": fusion, **network},
        }
    )


def inputs_of(study: Study, count: int = 3) -> tuple[Tensor, Tensor]:
    """Images and values of examinations that lack nothing."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(count, study.data.planes, 16, 16, generator=generator)
    values = torch.randn(count, study.data.covariate_width, generator=generator)
    values[:, study.data.value_width :] = 0
    return images, values


def lacking(study: Study, values: Tensor, *names: str) -> Tensor:
    """The values with the flags of what is missing."""
    data, changed = study.data, values.clone()
    flags = (*data.optional_covariates, *data.optional_channels)
    for name in names:
        changed[:, data.value_width + flags.index(name)] = 1
    return changed


def loss_of(logits: Tensor) -> Tensor:
    targets = torch.zeros(len(logits), *logits.shape[2:], dtype=torch.int64)
    return F.cross_entropy(logits, targets)


@pytest.mark.parametrize(("task", "fusion"), CASES)
def test_what_stands_in_a_missing_channel_changes_nothing(task: str, fusion: str) -> None:
    study = study_of(task, fusion)
    network = build_network(study, 1).eval()
    images, values = inputs_of(study)
    lacks = lacking(study, values, "t2")
    other = images.clone()
    other[:, 1] = 1_000.0
    assert torch.equal(network(images, lacks), network(other, lacks))
    assert not torch.equal(network(images, values), network(other, values))


@pytest.mark.parametrize(("task", "fusion"), CASES)
def test_a_missing_channel_is_not_a_black_one(task: str, fusion: str) -> None:
    study = study_of(task, fusion)
    network = build_network(study, 1).eval()
    images, values = inputs_of(study)
    images[:, 1] = 0
    missing = network(images, lacking(study, values, "t2"))
    assert not torch.allclose(network(images, values), missing, atol=1e-4)


@pytest.mark.parametrize(("task", "fusion"), CASES)
def test_a_site_without_a_channel_gives_its_layers_no_gradient(task: str, fusion: str) -> None:
    study = study_of(task, fusion)
    network = build_network(study, 1)
    images, values = inputs_of(study)
    loss_of(network(images, lacking(study, values, "t2"))).backward()  # type: ignore[no-untyped-call]
    parts = dict(network.named_parameters())
    if fusion == "early":
        first = next(p for name, p in parts.items() if name.startswith("image_network"))
        assert first.grad is not None
        assert not first.grad[:, 1].any(), "the plane of t2"
        assert first.grad[:, 0].any()
        assert first.grad[:, 3].any(), "the flag of t2"
        assert not first.grad[:, 4].any(), "the flag of flair, which is there"
        return
    of_t2 = [p.grad for name, p in parts.items() if name.startswith("encoders.1.")]
    of_t1 = [p.grad for name, p in parts.items() if name.startswith("encoders.0.")]
    assert of_t2
    assert not any(grad.any() for grad in of_t2 if grad is not None)
    assert all(grad is not None and grad.any() for grad in of_t1[:1])
    token, other = parts["tokens.0.weight"].grad, parts["tokens.1.weight"].grad
    assert token is not None
    assert token.any()
    assert other is not None
    assert not other.any(), "flair is there"


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_mean_of_two_sites_is_the_step_of_all_in_one_place(fusion: str) -> None:
    """A site without a channel leaves its layers where they are, and counts with all it has."""
    study = study_of("classification", fusion)
    images, values = inputs_of(study, 8)
    values[5:] = lacking(study, values[5:], "t2", "sex")

    def stepped(rows: slice) -> list[Tensor]:
        network = build_network(study, 1).double()
        optimiser = torch.optim.SGD(network.parameters(), lr=0.5)
        loss_of(network(images[rows].double(), values[rows].double())).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return [p.detach() for p in network.parameters()]

    with_it, without, pooled = stepped(slice(0, 5)), stepped(slice(5, 8)), stepped(slice(0, 8))
    for one, other, together in zip(with_it, without, pooled, strict=True):
        torch.testing.assert_close((5 * one + 3 * other) / 8, together)


def test_a_study_that_lets_nothing_be_missing_has_the_layers_that_it_had() -> None:
    network = build_network(study_of("classification", optional=[]), 1)
    assert [name for name, _ in network.named_parameters()] == [
        *(f"image_network.{layer}.{kind}" for layer in (0, 3, 7) for kind in ("weight", "bias")),
        "covariate_layer.weight",
    ]
    assert network.get_submodule("image_network.0").weight.shape[1] == 3


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_volumes_and_colours_are_fused_too(dimensions: int, fusion: str) -> None:
    size = [16] * dimensions
    study = study_of(
        "classification", fusion, dimensions=dimensions, size=size, colour=dimensions == 2
    )
    network = build_network(study, 1)
    images = torch.randn(2, study.data.planes, *size)
    values = torch.zeros(2, study.data.covariate_width)
    assert network(images, lacking(study, values, "flair")).shape == (2, 3)


def test_channels_alone_need_no_clinical_values() -> None:
    for fusion in FUSIONS:
        study = study_of("classification", fusion, covariates=[], optional=["t2"])
        assert build_network(study, 1)(torch.randn(2, 3, 16, 16), torch.eye(2)[:, :1]).shape == (
            2,
            3,
        )
    whole = study_of("classification", "late", covariates=[], optional=[])
    assert build_network(whole, 1)(torch.randn(2, 3, 16, 16)).shape == (2, 3)


@pytest.mark.parametrize("fusion", ["intermediate", "late"])
def test_the_head_is_what_makes_the_logits(fusion: str) -> None:
    network = build_network(study_of("classification", fusion), 1)
    found = {name.rpartition(".")[0] for name in head_names(network)}
    if fusion == "intermediate":
        assert found == {"head"}
    else:
        assert found == {
            *(f"encoders.{at}.7" for at in range(3)),
            "tokens.0",
            "tokens.1",
            "covariate_network.3",
        }
    assert isinstance(network.get_submodule(next(iter(found))), nn.Linear)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": {"optional": ["t3"]}}, r"unknown channel or covariate of data\.optional 't3'"),
        ({"data": {"optional": ["t2", "t2"]}}, "names one twice"),
        ({"data": {"channels": ["t1"], "optional": ["t1"]}}, "the only channel"),
        (
            {"data": {"channels": ["age", "t1"], "optional": ["age"]}},
            "is a channel and a covariate",
        ),
        ({"model": {"normalisation": "batch"}}, "would mix the images that are there"),
        ({"data": {"optional": []}, "training": {"modality_dropout": 0.5}}, "is empty"),
        (
            {"data": {"channels": ["t1"], "covariates": [], "optional": []}},
            "nothing to bring together",
        ),
        ({"federation": {"strategy": "moon"}}, "'contrastive' compares"),
        (
            {"data": {"covariates": [{"name": "sex", "values": ["f"], "reference": "f"}]}},
            "lists its reference",
        ),
        (
            {"data": {"covariates": [{"name": "sex", "reference": "f"}]}},
            "and no values",
        ),
        ({"data": {"covariates": [{"name": "age"}, {"name": "age"}]}}, "names 'age' twice"),
        ({"data": {"covariates": [{"name": "Label"}]}}, "'Label', a column of the manifest"),
        ({"data": {"covariates": [{"name": "image.t1"}]}}, "'image.t1', a column of the manif"),
        (
            {"data": {"covariates": [{"name": "sex", "values": ["f", "m", "f"]}]}},
            "lists the value 'f' twice",
        ),
        (
            {"data": {"covariates": [{"name": "sex", "values": ["f", "m"], "scale": 2}]}},
            "a mean or a scale is for numbers",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, Any], said: str) -> None:
    content = study_of("classification", "late").model_dump(mode="json", exclude_unset=True)
    for section, keys in change.items():
        content.setdefault(section, {}).update(keys)
    with pytest.raises(StudyError, match=said):
        parse_study(content)
