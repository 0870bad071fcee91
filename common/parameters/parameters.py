"""The named tensors of a model: read, written, compared, sent, stored.

Every function keeps names and data types: the integer counters of a BatchNorm stay integers.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import hypot, isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wardround.common.errors import ModelError
from wardround.common.files.atomic import BY_UMASK, remove_unfinished, replace_file
from wardround.common.parameters.npy import decode_npy, encode_npy

if TYPE_CHECKING:
    from flwr.app import ArrayRecord

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
NPY = "numpy.ndarray"  # Flower's name of the serialisation
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
        return prod(self.shape) * np.dtype(_WRITTEN_AS[self.dtype]).itemsize


Schema = tuple[ArraySpec, ...]


class SavedModel(NamedTuple):
    """What a model file holds."""

    parameters: Parameters
    metadata: dict[str, str]


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


def schema(source: nn.Module | Mapping[str, Tensor]) -> Schema:
    """Return name, shape and type of every tensor, in the network's order."""
    named = source.state_dict() if isinstance(source, nn.Module) else source
    return tuple(
        ArraySpec(name, tuple(tensor.shape), _type_name(tensor)) for name, tensor in named.items()
    )


def check_schema(parameters: Mapping[str, Tensor], expected: Iterable[ArraySpec]) -> None:
    """Check that parameters have exactly the expected names, shapes and types, in any order.

    Raises:
        ModelError: Says what is missing, unknown or different.
    """
    _compare(schema(parameters), expected)


def difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return the largest absolute difference of two models; NaN where either holds a NaN.

    Raises:
        ModelError: They do not have the same names, shapes and types.
    """
    check_schema(a, schema(b))
    largest = [
        (tensor.double() - b[name].double()).abs().max()
        for name, tensor in a.items()
        if len(tensor.view(-1))
    ]
    return float(torch.stack(largest).max()) if largest else 0.0


def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return the Euclidean distance of two models over their floating tensors."""
    lengths = [
        float(torch.linalg.vector_norm(tensor - b[name], dtype=torch.float64))
        for name, tensor in a.items()
        if tensor.is_floating_point()
    ]
    return hypot(*lengths)


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor holds neither NaN nor infinity, without a copy of it."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    lowest, highest = torch.aminmax(tensor)  # both are NaN where one value is
    return isfinite(lowest) and isfinite(highest)


def parameter_count(network: nn.Module) -> int:
    """Return how many numbers a network learns; the counters and means it keeps are not counted."""
    return sum(parameter.numel() for parameter in network.parameters())


def digest(parameters: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 over names, shapes, types and values, 64 hexadecimal digits.

    It does not depend on the order of the names, nor on the device.
    """
    names = sorted(parameters)
    ordered = {name: parameters[name] for name in names}
    head = [(spec.name, spec.shape, spec.dtype) for spec in schema(ordered)]
    # The head fixes the length of everything that follows, so no two models hash the same bytes.
    total = hashlib.sha256(json.dumps(head).encode() + b"\n")
    for tensor in ordered.values():
        total.update(_to_numpy(tensor).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


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


def to_array_record(parameters: Mapping[str, Tensor]) -> "ArrayRecord":
    """Return the parameters as Flower sends them, with one copy of the values.

    Flower itself refuses bfloat16. Such a tensor is marked "bfloat16" and holds its bits as int16:
    our own strategies read it back, a stock Flower strategy must not be given it.
    """
    from flwr.app import Array, ArrayRecord

    record = ArrayRecord()
    for name, tensor in parameters.items():
        data = encode_npy(_to_numpy(tensor))
        record[name] = Array(_type_name(tensor), tuple(tensor.shape), NPY, data)
    return record


def from_array_record(record: "ArrayRecord", expected: Schema | None = None) -> Parameters:
    """Return the parameters in a record, with one copy of the values.

    Memory is allocated for bytes that have arrived, never for what a header claims. Where nothing
    is expected, each array still has to agree with itself.

    Raises:
        ModelError: An array is malformed, or is not what was expected.
    """
    if expected is not None:
        claims = (ArraySpec(n, tuple(a.shape), a.dtype) for n, a in record.items())
        _compare(claims, expected)
    parameters: Parameters = {}
    for name, array in record.items():
        if array.stype != NPY:
            msg = f"{name!r:.80} is serialised as {array.stype!r:.40}: only {NPY} is read."
            raise ModelError(msg)
        values = decode_npy(array.data, written_as(array.dtype), tuple(array.shape))
        tensor = torch.from_numpy(values)
        parameters[name] = tensor.view(torch.bfloat16) if array.dtype == "bfloat16" else tensor
    return parameters


def take_array_record(record: "ArrayRecord") -> Parameters:
    """Return the parameters in a record and empty it, so that no value is held twice.

    Raises:
        ModelError: An array is malformed.
    """
    from flwr.app import ArrayRecord

    parameters: Parameters = {}
    for name in list(record):
        parameters |= from_array_record(ArrayRecord({name: record.pop(name)}))
    return parameters


def save_model(
    path: Path,
    parameters: Mapping[str, Tensor],
    metadata: dict[str, str],
    durable: bool = True,
) -> None:
    """Write a safetensors file that is either whole or absent, even through a power cut.

    Args:
        metadata: Goes into the file's header, e.g. the study digest and the round.
        durable: Whether to wait until the disk has it; a killed process needs no such wait.

    Raises:
        ModelError: The file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        remove_unfinished(path)  # it may be as large as the model
        tensors = {name: tensor.detach().contiguous() for name, tensor in parameters.items()}
        replace_file(path, lambda part: save_file(tensors, part, metadata), BY_UMASK, durable)
    except (OSError, SafetensorError) as error:
        msg = f"cannot write the model {path} ({error}): choose a folder with free space."
        raise ModelError(msg) from None


def load_model(path: Path) -> SavedModel:
    """Read what :func:`save_model` wrote.

    Raises:
        ModelError: The file is absent or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            parameters = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            return SavedModel(parameters, stream.metadata() or {})
    except (OSError, SafetensorError) as error:
        kind = type(error).__name__
        msg = f"cannot read the model {path} ({kind}): give a whole .safetensors file."
        raise ModelError(msg) from None


def _compare(given: Iterable[ArraySpec], expected: Iterable[ArraySpec]) -> None:
    found = {spec.name: spec for spec in given}
    wanted = {spec.name: spec for spec in expected}
    different = [
        f"{name!r} is {found[name].dtype:.20} {list(found[name].shape)}, "
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


def _listed(title: str, items: list[str]) -> list[str]:
    if not items:
        return []
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return [f"{title} {', '.join(items[:_SHOWN])}{more}"]


def _type_name(tensor: Tensor) -> str:
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


def _to_numpy(tensor: Tensor) -> NDArray[np.generic]:
    written_as(_type_name(tensor))
    plain = tensor.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:
        plain = plain.view(torch.int16)
    array: NDArray[np.generic] = plain.numpy()
    return array
