"""A model as named tensors: read from a network, and what two of them must agree on.

Every function of this folder keeps names and data types: the integer counters of a BatchNorm stay
integers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from wardround.common.errors import ModelError

Parameters = dict[str, Tensor]
Model = Mapping[str, Tensor]  # to read only: it may lie on disk

# The types a model may hold, with how they are written. NumPy has no bfloat16, so its bits travel
# as int16; only the array's own "dtype" says what they mean.
_WRITTEN_AS = {
    "float64": "<f8",
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "<i2",
    "int64": "<i8",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "|i1",
    "uint8": "|u1",
    "bool": "|b1",
}
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One tensor of a model, without its values.

    Attributes:
        dtype: Name of a torch type, e.g. "float32".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def byte_count(self) -> int:
        """Size of the values in bytes."""
        return prod(self.shape) * np.dtype(written_as(self.dtype)).itemsize


Schema = tuple[ArraySpec, ...]


def schema(source: nn.Module | Mapping[str, Tensor]) -> Schema:
    """Return name, shape and type of every tensor, in the network's order."""
    named = source.state_dict() if isinstance(source, nn.Module) else source
    return tuple(
        ArraySpec(name, tuple(tensor.shape), type_name(tensor)) for name, tensor in named.items()
    )


def check_schema(parameters: Mapping[str, Tensor], expected: Iterable[ArraySpec]) -> None:
    """Check that parameters have exactly the expected names, shapes and types, in any order.

    Raises:
        ModelError: Says what is missing, unknown or different.
    """
    compare_schemas(schema(parameters), expected)


def compare_schemas(given: Iterable[ArraySpec], expected: Iterable[ArraySpec]) -> None:
    """Check that one schema is another, in any order.

    Raises:
        ModelError: Says what is missing, unknown or different.
    """
    found = {spec.name: spec for spec in given}
    wanted = {spec.name: spec for spec in expected}
    different = [
        f"{name!r} is {found[name].dtype:.20} {list(found[name].shape)!s:.80}, "
        f"not {spec.dtype} {list(spec.shape)}"
        for name, spec in wanted.items()
        if name in found and found[name] != spec
    ]
    problems = (
        *_listed("missing:", [repr(name) for name in wanted if name not in found]),
        *_listed("unknown:", [repr(name)[:80] for name in found if name not in wanted]),
        *_listed("different:", different),
    )
    if problems:
        msg = (
            f"the parameters do not fit the network ({'; '.join(problems)}): "
            "use the study that the model was trained with."
        )
        raise ModelError(msg)


def select(names: Iterable[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the names that match a shell-style pattern (``*`` matches dots too), in their order.

    Raises:
        ModelError: A pattern matches no name, which is most likely a slip.
    """
    known = tuple(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            msg = (
                f"the pattern {pattern!r} matches no parameter: "
                f"the names are like {', '.join(repr(name) for name in known[:_SHOWN])}."
            )
            raise ModelError(msg)
    return tuple(name for name in known if any(fnmatchcase(name, p) for p in patterns))


def under(prefix: str, parameters: Mapping[str, Tensor]) -> Parameters:
    """Return the entries whose names start with a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in parameters.items()
        if name.startswith(prefix)
    }


def prefixed(prefix: str, parameters: Mapping[str, Tensor]) -> Parameters:
    """Return the entries with a prefix before their names."""
    return {prefix + name: tensor for name, tensor in parameters.items()}


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


def _listed(title: str, items: list[str]) -> list[str]:
    if not items:
        return []
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return [f"{title} {', '.join(items[:_SHOWN])}{more}"]


def type_name(tensor: Tensor) -> str:
    """Return how a schema calls a tensor's type, e.g. "float32"."""
    return str(tensor.dtype).removeprefix("torch.")


def written_as(dtype: str) -> str:
    """Return how NumPy writes a type of a model.

    Raises:
        ModelError: No model may hold it.
    """
    try:
        return _WRITTEN_AS[dtype]
    except KeyError:
        msg = f"arrays of type {dtype!r:.40} are not sent: known are {', '.join(_WRITTEN_AS)}."
        raise ModelError(msg) from None
