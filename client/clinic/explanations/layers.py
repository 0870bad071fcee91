"""In which order a network's layers work, and what comes out of each."""

from dataclasses import dataclass

import torch
from torch import nn

from wardround.client.clinic.explanations.attribution import Inputs


@dataclass(frozen=True, slots=True)
class RanLayer:
    """A layer that worked on one examination.

    Attributes:
        name: As ``network.get_submodule`` knows it.
        shape: Of its last output; empty where that is no tensor.
        calls: How often it worked: some networks use one activation in many places.
    """

    name: str
    shape: tuple[int, ...]
    calls: int


def ran_layers(network: nn.Module, inputs: Inputs) -> list[RanLayer]:
    """Return the network's modules in the order in which they last finished; itself is left out.

    Args:
        network: In evaluation mode.
    """
    found: dict[str, RanLayer] = {}
    hooks = [
        module.register_forward_hook(_Note(name, found))
        for name, module in network.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return list(found.values())


class _Note:
    """A hook that writes down what a layer gave."""

    def __init__(self, name: str, found: dict[str, RanLayer]) -> None:
        self._name, self._found = name, found

    def __call__(self, _module: nn.Module, _inputs: object, output: object) -> None:
        before = self._found.pop(self._name, None)  # so that the order is that of the last call
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else ()
        calls = 1 if before is None else before.calls + 1
        self._found[self._name] = RanLayer(self._name, shape, calls)
