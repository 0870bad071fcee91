"""Networks that hold a layer in two places say its numbers once.

MONAI's DynUNet has each block as a layer of its own and again within ``skip_layers``: its
``state_dict`` lists every number twice. A round would send each twice, and a pattern that freezes
a layer would miss its second name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor, nn


def name_once(network: nn.Module) -> None:
    """Have a network's ``state_dict`` list each number under its first name alone, in place.

    It can still be loaded with all its names, or with the first ones.
    """
    first = second_names(network)
    if first:
        network.register_state_dict_post_hook(  # type: ignore[no-untyped-call] # torch
            _LeaveOut(tuple(first))
        )
        network.register_load_state_dict_pre_hook(  # type: ignore[no-untyped-call] # types none
            _FillIn(first)
        )


def second_names(network: nn.Module) -> dict[str, str]:
    """Return the further names of numbers that have several, each with the first one."""
    firsts: dict[int, str] = {}
    further: dict[str, str] = {}
    numbers = chain(
        network.named_parameters(remove_duplicate=False),
        network.named_buffers(remove_duplicate=False),
    )
    for name, number in numbers:
        first = firsts.setdefault(id(number), name)
        if first != name:
            further[name] = first
    return further


def under_all_names(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights as the plain network of MONAI lists them, which says some numbers twice.

    Args:
        weights: Named tensors of any shape; those of the network, under their first names.
    """
    again = {name: weights[first] for name, first in second_names(network).items()}
    return {**weights, **again}


def under_first_names(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without the further names of a number, as earlier versions wrote them.

    Args:
        weights: Named tensors of any shape.
    """
    further = second_names(network)
    return {name: tensor for name, tensor in weights.items() if name not in further}


@dataclass  # not frozen: torch marks a hook
class _LeaveOut:
    """Removes the further names from what a network lists; a copy of the network keeps it."""

    names: tuple[str, ...]

    def __call__(
        self, network: nn.Module, state: dict[str, Any], prefix: str, metadata: object
    ) -> None:
        for name in self.names:
            state.pop(prefix + name, None)


@dataclass(frozen=True)
class _FillIn:
    """Adds the further names to what a network is loaded with."""

    first: Mapping[str, str]

    def __call__(self, network: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
        for name, first in self.first.items():
            if prefix + first in state:
                state.setdefault(prefix + name, state[prefix + first])
