"""The parameters and buffers of a network, read and set."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wardround.common.parameters.schema import Parameters, check_schema, schema


def read_parameters(network: nn.Module) -> Parameters:
    """Return copies, on the CPU, of a network's parameters and buffers."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }


def write_parameters(network: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Set all parameters and buffers of a network.

    Raises:
        ModelError: A name, shape or type differs; the network is then unchanged.
    """
    check_schema(parameters, schema(network))
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            tensor.copy_(parameters[name])


def parameter_count(network: nn.Module) -> int:
    """Return how many numbers a network learns; the counters and means it keeps are not counted."""
    return sum(parameter.numel() for parameter in network.parameters())
