"""A stack of sites gets what each site gets alone: weights, mean losses, its own faults."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, nn

from wardround.client.data.batch import Batch
from wardround.client.training.local import LocalWork, train_locally
from wardround.client.training.losses.mean_loss import MeanLoss
from wardround.client.training.losses.partial_labels import PartialLabels
from wardround.client.training.losses.registry import build_loss
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.optimisers import build_optimiser
from wardround.client.training.schedule import OvertimeError, SchedulePosition, TimeLimit
from wardround.client.training.stacked.eligibility import STACKED_NETWORKS, why_not_network
from wardround.client.training.stacked.steps import StackedSite, are_alike, train_stacked
from wardround.common.models.networks.registry import build_network
from wardround.common.models.sharing import layout_of
from wardround.common.parameters.schema import Parameters, read_parameters, write_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.study import Study

STEPS, SIZES = (4, 2, 5, 4), ((3, 3, 3, 3), (1, 2), (2, 4, 4, 4, 1), (3, 3, 1, 2))


def study_of(network: str, sides: int = 2, **training: Any) -> Study:
    dense = "unet" in network or network == "segresnet"
    size = [32 if network == "basic-unet" else 16 if dense else 12] * sides
    return parse_study(
        {
            "study": {"name": "s", "task": "segmentation" if dense else "classification"},
            "data": {
                "channels": ["image"],
                "classes": ["a", "b", "c"],
                "size": size,
                "dimensions": sides,
            },
            "model": {"network": network, **MODELS.get(network, {})},
            "training": {"learning_rate": 0.01, "optimiser": "sgd", **training},
        }
    )


MODELS: dict[str, dict[str, Any]] = {
    "small-cnn": {"features": [4, 6], "normalisation": "group"},
    "mlp": {"features": [8]},
    "unet": {"features": [4, 8]},
    "basic-unet": {"features": [4, 4, 4, 4, 4, 4]},
    "attention-unet": {"features": [4, 8], "normalisation": "instance"},
    "dynunet": {"features": [4, 6, 8]},
}


def batches_of(study: Study, sizes: Sequence[int], seed: int) -> list[Batch]:
    generator, size = Generator().manual_seed(seed), study.input_size or ()
    dense = size if study.task.dense else ()
    return [
        Batch(
            torch.randn(count, study.data.input_planes, *size, generator=generator),
            None,
            torch.randint(study.class_count, (count, *dense), generator=generator),
        )
        for count in sizes
    ]


def start_of(
    study: Study, network: nn.Module, place: int, steps: int, loss: MeanLoss
) -> LocalStart:
    generator, plan = Generator().manual_seed(place), plan_of(study)
    with torch.no_grad():
        for weight in network.parameters():
            moved = 0.01 * torch.randn(weight.shape, generator=generator)
            weight.add_(moved.to(weight.device))
    position = SchedulePosition(0.0, 0.5, steps)
    layout = layout_of(network, plan)
    parameters = read_parameters(network)
    return LocalStart(network, parameters, {}, {}, plan, layout, study.training, position, loss)


def alone(start: LocalStart, batches: list[Batch]) -> tuple[LocalWork, Parameters]:
    write_parameters(start.network, start.parameters)
    optimiser = build_optimiser(start.network, start.training)
    work = train_locally(start, batches, optimiser)
    return work, read_parameters(start.network)


def largest_difference(
    study: Study, losses: Sequence[MeanLoss] = (), steps: Sequence[int] = STEPS
) -> float:
    """Train four sites of unequal steps and batches both ways; return how far they come apart."""
    network = build_network(study, 0)
    assert not why_not_network(network)
    each = losses or [build_loss(study, None, torch.device("cpu"))] * len(steps)
    starts = [start_of(study, network, n, s, each[n]) for n, s in enumerate(steps)]
    drawn = [batches_of(study, SIZES[n][:s], n) for n, s in enumerate(steps)]
    expected = [alone(start, list(own)) for start, own in zip(starts, drawn, strict=True)]
    sites = [StackedSite(s, iter(own)) for s, own in zip(starts, drawn, strict=True)]
    assert are_alike(sites)
    apart = 0.0
    for (work, trained), found in zip(expected, train_stacked(network, sites), strict=True):
        assert found is not None
        assert found.work.updates == work.updates
        apart = max(apart, abs(found.work.mean_loss - work.mean_loss))
        for name, weight in found.trained.items():
            apart = max(apart, float((weight - trained[name]).abs().max()))
    return apart


@pytest.mark.parametrize("network", STACKED_NETWORKS)
def test_every_network_of_a_stack_is_trained_as_alone(network: str) -> None:
    assert largest_difference(study_of(network)) < 1e-5


def test_volumes_are_trained_as_alone() -> None:
    assert largest_difference(study_of("unet", 3)) < 1e-5


@pytest.mark.parametrize(
    "training",
    [
        {"optimiser": "adam", "schedule": "cosine", "warmup": 0.1},
        {"optimiser": "adamw", "weight_decay": 0.1, "schedule": "step"},
        {"momentum": 0.9, "weight_decay": 0.01, "schedule": "polynomial"},
        {"gradient_clip": 0.1, "learning_rate": 0.5},
        {"class_weights": [1.0, 2.0, 0.5]},
        {"loss": "focal"},
    ],
    ids=lambda training: "-".join(map(str, training)),
)
def test_every_choice_of_a_training_is_that_of_a_site_alone(training: dict[str, Any]) -> None:
    assert largest_difference(study_of("small-cnn", **training)) < 1e-5


def test_sites_weigh_and_tell_apart_their_own_classes() -> None:
    study = study_of("small-cnn")
    plain = build_loss(study, None, torch.device("cpu"))
    weighted = [replace(plain, class_weights=torch.rand(3) + 0.5) for _ in range(3)]
    assert largest_difference(study, [plain, *weighted]) < 1e-5
    dense = study_of("unet")
    whole = build_loss(dense, None, torch.device("cpu"))
    told = PartialLabels((0, 2), dense.class_count, True)
    losses = [whole, replace(whole, partial=told), whole, replace(whole, partial=told)]
    assert largest_difference(dense, losses) < 1e-5


def test_under_adam_only_biases_before_a_normalisation_come_apart_and_no_answer_does() -> None:
    """Their gradient is rounding alone, of which Adam makes a step of full length."""
    study = study_of("unet", 3, optimiser="adam", learning_rate=0.001)
    network, drawn = build_network(study, 0), batches_of(study, [1, 1, 1], 0)
    loss = build_loss(study, None, torch.device("cpu"))
    starts = [start_of(study, network, n, 3, loss) for n in range(2)]
    expected = [alone(start, drawn)[1] for start in starts]
    found = train_stacked(network, [StackedSite(start, iter(drawn)) for start in starts])
    for trained, other in zip(expected, found, strict=True):
        assert other is not None
        for name, weight in other.trained.items():
            assert name.endswith(".conv.bias") or (weight - trained[name]).abs().max() < 1e-5
        answers = []
        for parameters in (trained, {**trained, **other.trained}):
            write_parameters(network, parameters)
            with torch.no_grad():
                answers.append(network(*drawn[0].inputs))
        assert torch.allclose(*answers, atol=1e-5)


def test_a_layer_that_stands_at_several_places_is_given_back() -> None:
    """A DynUNet lists its layers twice, and torch would leave the stack's weights in it."""
    study = study_of("dynunet")
    network = build_network(study, 0)
    before = [id(weight) for weight in network.parameters()]
    loss = build_loss(study, None, torch.device("cpu"))
    starts = [start_of(study, network, n, 1, loss) for n in range(2)]
    train_stacked(network, [StackedSite(s, iter(batches_of(study, [2], 0))) for s in starts])
    assert [id(weight) for weight in network.parameters()] == before


def test_a_site_whose_loss_is_no_number_is_left_to_itself_and_spoils_no_other() -> None:
    study = study_of("small-cnn")
    network = build_network(study, 0)
    loss = build_loss(study, None, torch.device("cpu"))
    starts = [start_of(study, network, n, 2, loss) for n in range(3)]
    drawn = [batches_of(study, [2, 2], n) for n in range(3)]
    broken = {name: tensor * float("nan") for name, tensor in starts[1].parameters.items()}
    starts[1] = replace(starts[1], parameters=broken)
    sites = [StackedSite(s, iter(own)) for s, own in zip(starts, drawn, strict=True)]
    first, second, third = train_stacked(network, sites)
    assert second is None
    for place, found in ((0, first), (2, third)):
        assert found is not None
        _, trained = alone(starts[place], drawn[place])
        assert all(torch.allclose(w, trained[n], atol=1e-5) for n, w in found.trained.items())


def test_a_stack_ends_when_a_site_s_time_is_over() -> None:
    study = study_of("mlp")
    network = build_network(study, 0)
    loss = build_loss(study, None, torch.device("cpu"))
    starts = [start_of(study, network, n, 1, loss) for n in range(2)]
    starts[1] = replace(starts[1], limit=TimeLimit(0.0))
    sites = [StackedSite(s, iter(batches_of(study, [2], 0))) for s in starts]
    with pytest.raises(OvertimeError):
        train_stacked(network, sites)


def test_sites_that_differ_in_what_is_not_trained_are_not_alike() -> None:
    study = study_of("mlp")
    network = build_network(study, 0)
    next(network.parameters()).requires_grad_(False)
    loss = build_loss(study, None, torch.device("cpu"))
    starts = [start_of(study, network, n, 1, loss) for n in range(2)]
    assert not are_alike([StackedSite(start, iter(())) for start in starts])


@pytest.mark.gpu
def test_a_stack_on_a_gpu_is_trained_as_alone() -> None:
    """Up to what a GPU rounds: it sums in another order, and convolves in TF32."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    device = torch.device("cuda", 0)
    study = study_of("small-cnn")
    network = build_network(study, 0).to(device)
    loss = build_loss(study, None, device)
    starts = [start_of(study, network, n, 2, loss) for n in range(2)]
    drawn = [[b.to(device) for b in batches_of(study, [3, 2], n)] for n in range(2)]
    expected = [alone(start, list(own))[1] for start, own in zip(starts, drawn, strict=True)]
    sites = [StackedSite(s, iter(own)) for s, own in zip(starts, drawn, strict=True)]
    for trained, found in zip(expected, train_stacked(network, sites), strict=True):
        assert found is not None
        for name, weight in found.trained.items():
            assert torch.allclose(weight.cpu(), trained[name], atol=1e-3)
