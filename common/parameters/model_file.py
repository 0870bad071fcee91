"""A model as a safetensors file."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from wardround.common.errors import ModelError
from wardround.common.files.durable import flush
from wardround.common.parameters.schema import Parameters


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

    temporary = path.with_name(path.name + ".part")
    try:
        tensors = {name: tensor.detach().contiguous() for name, tensor in parameters.items()}
        save_file(tensors, temporary, metadata)
        if durable:
            flush(temporary)
        temporary.replace(path)
        if (
            durable and os.name == "posix"
        ):  # elsewhere a folder cannot be opened, and needs no flush
            flush(path.parent)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink()
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
