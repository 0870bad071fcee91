"""Pretrained weights: a file that server and sites hold, which a study names by its hash.

It is looked for where its hash says, so that no site and no study has to give a path.
"""

import hashlib
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from wardround.common.errors import ModelError
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.files.cache_folder import cache_folder
from wardround.common.models.lora import frozen_names
from wardround.common.models.sharing import head_names
from wardround.common.parameters.model_file import load_model
from wardround.common.parameters.schema import Parameters, check_schema, schema
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.common.models.model_folder import ModelFolder

_WRAPPERS = ("image_network.", "network.")  # our names' parts around MONAI's, outermost first
_SHOWN = 12  # digits of a SHA-256 that a person compares


def weights_path(sha256: str) -> Path:
    """Return where the file with this hash belongs."""
    return cache_folder() / "weights" / f"{sha256}.safetensors"


def offer_weights(model: "ModelFolder") -> str:
    """Put a model's weights where studies look for them; return their SHA-256.

    Raises:
        ModelError: The weights are not those of the contract, or the file cannot be written.
    """
    model.weights()
    source = model.weights_path
    with source.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    place = weights_path(sha256)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, lambda part: shutil.copyfile(source, part), BY_UMASK)
    except OSError as error:
        msg = f"cannot write {place} ({error.strerror}): make room, or set WARDROUND_CACHE."
        raise ModelError(msg) from None
    return sha256


def load_pretrained(network: nn.Module, study: Study) -> None:
    """Have a network start from the study's pretrained weights, where it names some.

    Beneath adapters they are the frozen weights, and the file's head is not used. Otherwise all
    numbers are the file's, but for a head of other classes.

    Raises:
        ModelError: The file is absent, is another one, or does not fit the network.
    """
    if study.model.weights_sha256 is None:
        return
    if study.model.adapter_rank is not None:
        load_base(network, study.model.weights_sha256)
        return
    saved, heads = _saved(study.model.weights_sha256), set(head_names(network))
    state = network.state_dict()
    given = {name: saved[_known(name, saved)] for name in state if _known(name, saved) in saved}
    own = {name for name in heads if name not in given or given[name].shape != state[name].shape}
    fitting = {name: tensor for name, tensor in given.items() if name not in own}
    check_schema(fitting, schema({n: t for n, t in state.items() if n not in own}))
    for name, tensor in fitting.items():
        state[name].copy_(tensor)


def load_base(network: nn.Module, sha256: str) -> None:
    """Set the frozen weights of an adapted network to those of the file with this hash.

    The file has MONAI's names or those of a model of ours without adapters; its head is not used.

    Args:
        sha256: Of the file, 64 hexadecimal digits.

    Raises:
        ModelError: The file is absent, is another one, or does not fit the network.
    """
    saved, frozen = _saved(sha256), frozenset(frozen_names(network))
    weights = {n: w for n, w in network.named_parameters() if n in frozen}
    # A file may leave constants out, e.g. Swin's table of relative positions: only weights count.
    given = {n: saved[_known(n, saved)] for n in weights if _known(n, saved) in saved}
    check_schema(given, schema(weights))
    for name, weight in weights.items():
        weight.data.copy_(given[name])


def _saved(sha256: str) -> Parameters:
    """Return the tensors of the file with this hash."""
    path = weights_path(sha256)
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        msg = (
            f"the study's pretrained weights {sha256[:_SHOWN]} are not on this machine: "
            f"put the file at {path}, or run 'wardround model pretrain' with the model folder."
        )
        raise ModelError(msg) from None
    if found != sha256:
        msg = f"{path} has the SHA-256 {found[:_SHOWN]}..., which its name denies: copy it again."
        raise ModelError(msg)
    return load_model(path).parameters


def _known(name: str, saved: Collection[str]) -> str:
    """Return a parameter's name in a file: our own, or MONAI's within."""
    for wrapper in _WRAPPERS:
        if name in saved:
            break
        name = name.removeprefix(wrapper)
    return name
