"""A model as a safetensors file: written, loaded, or left there and read a tensor at a time."""

import json
import os
import struct
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

from wardround.common.errors import ModelError
from wardround.common.files.atomic import BY_UMASK, remove_unfinished, replace_file
from wardround.common.parameters.schema import Parameters

_LENGTH = struct.Struct("<Q")  # a safetensors file: length of the header, header, values
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


LINEAGE = "lineage"  # in the header of a finished run's model: the signed record of its rounds


class SavedModel(NamedTuple):
    """What a model file holds."""

    parameters: Parameters
    metadata: dict[str, str]


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
            parameters = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 # it is no mapping
            return SavedModel(parameters, stream.metadata() or {})
    except (OSError, SafetensorError) as error:
        kind = type(error).__name__
        msg = f"cannot read the model {path} ({kind}): give a whole .safetensors file."
        raise ModelError(msg) from None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor's values lie in the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int


class StoredModel(Mapping[str, Tensor]):
    """The named tensors of a safetensors file, by name, each read when it is asked for.

    A mapped file would stay in memory once it has been read through, and counts like any other
    memory where a container has a limit. The file is held open, so it may be removed meanwhile.
    """

    def __init__(self, path: Path) -> None:
        """Read where the tensors lie.

        Raises:
            ModelError: The file is absent or damaged.
        """
        try:
            self._stream = path.open("rb")
            weakref.finalize(self, self._stream.close)
            self._places = _places(self._stream)
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            kind = type(error).__name__
            msg = f"cannot read the model {path} ({kind}): give a whole .safetensors file."
            raise ModelError(msg) from None

    def __getitem__(self, name: str) -> Tensor:
        """Return one tensor, with memory of its own.

        Raises:
            ModelError: The file is shorter than it says.
        """
        place = self._places[name]
        tensor = torch.empty(place.shape, dtype=place.dtype)
        size = prod(place.shape) * tensor.element_size()
        if size:
            into = tensor.reshape(-1).view(torch.uint8).numpy().data
            self._stream.seek(place.start)
            if self._stream.readinto(into) != size:
                msg = f"the values of {name!r} are cut off: restore the checkpoint from a copy."
                raise ModelError(msg)
        return tensor

    def __iter__(self) -> Iterator[str]:
        """Yield the tensors' names."""
        return iter(self._places)

    def __len__(self) -> int:
        """Return how many tensors there are."""
        return len(self._places)


def _places(stream: BinaryIO) -> dict[str, _Place]:
    """Return where the tensors lie, by name."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    (length,) = _LENGTH.unpack(stream.read(_LENGTH.size))
    values = _LENGTH.size + length
    if values > size:
        msg = "the header is longer than the file"
        raise ValueError(msg)
    header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return {
        name: _Place(
            _DTYPES[entry["dtype"]], tuple(entry["shape"]), values + entry["data_offsets"][0]
        )
        for name, entry in sorted(header.items())
    }
