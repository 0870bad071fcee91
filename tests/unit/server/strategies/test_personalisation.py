"""What stays at the site: normalisations, heads and models of its own."""

import pytest
import torch
from tests.support.hospitals.linear_federation import (
    Federation,
    descend,
    hospitals,
    normalised,
    run,
    squared,
    two_layers,
)
from torch import Tensor, nn

from wardround.common.parameters.schema import read_parameters


def test_the_normalisations_of_fedbn_never_travel_and_differ_between_hospitals() -> None:
    federation = Federation(hospitals(), {"strategy": "fedbn"}, network=normalised()).run(2)
    assert set(federation.model) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    first, second = (federation.own(site) for site in federation.sites[:2])
    assert not torch.equal(first["1.running_mean"], second["1.running_mean"])
    assert not torch.equal(first["1.weight"], second["1.weight"])
    assert torch.equal(first["0.weight"], second["0.weight"])
    assert int(first["1.num_batches_tracked"]) == 16


@pytest.mark.parametrize("name", ["fedper", "fedrep"])
def test_heads_never_travel_and_differ_between_hospitals(name: str) -> None:
    federation = Federation(hospitals(), {"strategy": name}, network=two_layers()).run(2)
    assert set(federation.model) == {"0.weight", "0.bias"}
    first, second = (federation.own(site) for site in federation.sites[:2])
    assert not torch.equal(first["2.weight"], second["2.weight"])


def test_fedrep_trains_the_head_alone_and_then_the_body_alone() -> None:
    site = hospitals((20,), steps=4)[0]
    federation = Federation([site], {"strategy": "fedrep"}, network=two_layers()).run(1)
    inputs, targets = site.inputs, site.targets
    network = two_layers()
    for part in (network[2], network[2], network[0], network[0]):  # type: ignore[index]
        gradients = torch.autograd.grad(squared(network(inputs), targets), part.parameters())
        with torch.no_grad():
            for weight, gradient in zip(part.parameters(), gradients, strict=True):
                weight -= 0.05 * gradient
    expected = read_parameters(network)
    for name, tensor in federation.own(site).items():
        assert torch.allclose(tensor, expected[name], atol=1e-6)


def test_ditto_without_weight_trains_each_hospital_alone_and_shares_as_fedavg() -> None:
    chosen = {"strategy": "ditto", "options": {"personal_weight": 0.0}}
    federation = Federation(hospitals(), chosen).run(3)
    assert torch.equal(federation.weight, run("fedavg", 3))
    for site in federation.sites:
        standalone = descend(site, torch.zeros(2), 3 * site.steps)
        assert torch.allclose(federation.own(site)["weight"][0], standalone, atol=1e-5)


def test_dittos_personal_models_are_the_nearer_to_the_shared_one_the_larger_its_weight() -> None:
    distances = []
    for weight in (0.0, 0.5, 5.0):
        chosen = {"strategy": "ditto", "options": {"personal_weight": weight}}
        federation = Federation(hospitals(), chosen).run(20)
        own = [federation.own(site)["weight"][0] for site in federation.sites]
        distances.append(sum(float((one - federation.weight).norm()) for one in own))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < distances[0] / 3


def test_apfl_goes_from_the_shared_model_to_that_of_each_hospital_alone() -> None:
    def own(alpha: float) -> tuple[Federation, list[Tensor]]:
        chosen = {"strategy": "apfl", "options": {"mixture": alpha}}
        federation = Federation(hospitals(), chosen).run(2)
        return federation, [federation.own(site)["weight"][0] for site in federation.sites]

    federation, shared = own(0.0)
    assert torch.equal(federation.weight, run("fedavg", 2))
    assert all(torch.equal(one, federation.weight) for one in shared)
    federation, personal = own(1.0)
    for site, one in zip(federation.sites, personal, strict=True):
        assert torch.allclose(one, descend(site, torch.zeros(2), 2 * site.steps), atol=1e-5)


def test_apfl_trains_a_network_that_has_one_layer_in_several_places() -> None:
    shared = nn.PReLU()
    layers = nn.Sequential(nn.Linear(2, 4), shared, nn.Linear(4, 4), shared, nn.Linear(4, 1))
    federation = Federation(hospitals((20,), steps=3), {"strategy": "apfl"}, network=layers).run(2)
    assert all(tensor.isfinite().all() for tensor in federation.sites[0].memory.values())


def test_apfls_personal_part_follows_the_gradient_of_the_mixture() -> None:
    site, alpha = hospitals((20,), steps=1)[0], 0.25
    federation = Federation([site], {"strategy": "apfl", "options": {"mixture": alpha}}).run(1)
    gradient = -(site.inputs * site.targets.unsqueeze(1)).mean(0)
    personal, shared = -0.05 * alpha * gradient, -0.05 * gradient
    expected = alpha * personal + (1 - alpha) * shared
    assert torch.allclose(federation.own(site)["weight"][0], expected, atol=1e-6)
