"""A model as a safetensors file."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from wardround.common.errors import ModelError
from wardround.common.files.atomic import BY_UMASK, remove_unfinished, replace_file
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
