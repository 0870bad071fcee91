"""Pretrained weights: a file that server and sites hold, which a study names by its hash.

It is looked for where its hash says, so that no site and no study has to give a path.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from wardround.common.errors import ModelError
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.files.cache_folder import cache_folder
from wardround.common.models.lora import frozen_names
from wardround.common.models.sharing import head_names
from wardround.common.models.start import (
    NO_LICENCE,
    Start,
    WeightsOrigin,
    match,
    plain_name,
    require_frozen,
)
from wardround.common.parameters.model_file import SavedModel, load_model
from wardround.common.parameters.schema import Parameters, check_schema, schema
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.common.models.model_folder import ModelFolder

_SHOWN = 12  # digits of a SHA-256 that a person compares


class MissingWeightsError(ModelError):
    """The study's pretrained weights are not on this machine."""


def weights_path(sha256: str) -> Path:
    """Return where the file with this hash belongs."""
    return cache_folder() / "weights" / f"{sha256}.safetensors"


def offer_weights(model: "ModelFolder") -> str:
    """Put a model's weights where studies look for them; return their SHA-256.

    What the model is and its licence stand in the file, so that the hash covers them: whatever is
    trained from it says so.

    Raises:
        ModelError: The weights are not those of the contract, or the file cannot be written.
    """
    from safetensors.torch import save

    said, study = model.contract, model.study
    licence = model.licence.replace(NO_LICENCE, "")  # the text that stands in every folder
    origin = WeightsOrigin(
        said.name, model.digest, study.name, study.study.task, licence.strip(), study.digest
    )
    content = save(model.weights(), origin.as_metadata())
    sha256 = hashlib.sha256(content).hexdigest()
    store_weights(sha256, content)
    return sha256


def stored_weights(sha256: str) -> bytes:
    """Return the file with this hash, as it is sent to a site that lacks it.

    Raises:
        ModelError: It is absent, or is another one.
    """
    _require(sha256)
    return weights_path(sha256).read_bytes()


def read_weights(sha256: str, content: bytes) -> Parameters:
    """Return the tensors of a file that came in a message, if it is the one that a study names.

    Raises:
        ModelError: It is another one, or no file of tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if hashlib.sha256(content).hexdigest() != sha256:
        msg = "the weights that came are not those that the study names by their hash."
        raise ModelError(msg)
    try:
        found: Parameters = load(content)
    except SafetensorError:
        msg = "the weights that came are no safetensors file."
        raise ModelError(msg) from None
    return found


def store_weights(sha256: str, content: bytes) -> None:
    """Keep a file of weights that :func:`read_weights` has checked.

    Raises:
        ModelError: It cannot be written.
    """
    place = weights_path(sha256)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, content, BY_UMASK)
    except OSError as error:
        msg = f"cannot write {place} ({error.strerror}): make room, or set WARDROUND_CACHE."
        raise ModelError(msg) from None


def lacks_weights(study: Study) -> bool:
    """Return whether a study starts from weights that are not on this machine."""
    sha256 = study.model.weights_sha256
    return sha256 is not None and not weights_path(sha256).is_file()


def load_pretrained(network: nn.Module, study: Study) -> Start | None:
    """Have a network start from the study's pretrained weights, where it names some.

    Beneath adapters they are the frozen weights, and the file's head is not used. Otherwise each
    layer that the file fits is taken, see :func:`wardround.common.models.start.match`.

    Returns:
        What was taken; None where the study names no weights, or adapters lie above them.

    Raises:
        ModelError: The file is absent, is another one, or does not fit the network.
    """
    if study.model.weights_sha256 is None:
        return None
    if study.model.adapter_rank is not None:
        load_base(network, study.model.weights_sha256)
        return None
    saved = _saved(study.model.weights_sha256)
    state, origin = network.state_dict(), WeightsOrigin.of(saved.metadata)
    start = match(state, saved.parameters, origin, study.study.task, head_names(network))
    require_frozen(start, frozen_names(network))
    given = {name: saved.parameters[theirs] for name, theirs in start.taken.items()}
    check_schema(given, schema({name: state[name] for name in given}))
    for name, tensor in given.items():
        state[name].copy_(tensor)
    if study.continual is not None and study.continual.parent is not None:
        from wardround.common.models.parent import start_from_parent  # few studies have one

        return start_from_parent(state, saved, start, study)
    return start


def load_base(network: nn.Module, sha256: str) -> None:
    """Set the frozen weights of an adapted network to those of the file with this hash.

    The file has MONAI's names or those of a model of ours without adapters; its head is not used.

    Args:
        sha256: Of the file, 64 hexadecimal digits.

    Raises:
        ModelError: The file is absent, is another one, or does not fit the network.
    """
    saved, frozen = _saved(sha256).parameters, frozenset(frozen_names(network))
    weights = {n: w for n, w in network.named_parameters() if n in frozen}
    # A file may leave constants out, e.g. Swin's table of relative positions: only weights count.
    known = {plain_name(name): tensor for name, tensor in saved.items()}
    given = {
        n: saved.get(n, known[plain_name(n)])
        for n in weights
        if n in saved or plain_name(n) in known
    }
    check_schema(given, schema(weights))
    for name, weight in weights.items():
        weight.data.copy_(given[name])


def start_of(study: Study) -> Start | None:
    """Return what a study's network would take of its weights; None where they say nothing here.

    Raises:
        ModelError: The file is on this machine, and does not fit.
    """
    if study.model.weights_sha256 is None or lacks_weights(study):
        return None
    from wardround.common.models.networks.registry import build_network

    return load_pretrained(build_network(study, study.federation.seed), study)


def frozen_as_drawn(study: Study) -> str:
    """Return a sentence where a study freezes numbers and starts from no weights; "" elsewhere."""
    if study.model.weights_sha256 is not None:
        return ""
    if study.model.frozen:
        what, otherwise = "what model.frozen names stays", "freeze nothing"
    elif study.model.adapter_rank is not None:
        what, otherwise = "the network beneath the adapters stays", "remove model.adapter_rank"
    else:
        return ""
    return (
        f"{what} as federation.seed draws it, for ever, since the study starts from no weights: "
        f"set model.weights_sha256, or {otherwise}"
    )


def origin_words(study: Study) -> Iterator[str]:
    """Yield what a model of a study started from, and the licence of that, as far as is known."""
    if study.model.weights_sha256 is None:
        return
    try:
        origin = WeightsOrigin.of(_saved(study.model.weights_sha256).metadata)
    except ModelError:
        origin = WeightsOrigin()
    if not origin.licence.strip():
        yield (
            "it started from pretrained weights with the SHA-256 "
            f"{study.model.weights_sha256[:_SHOWN]}..., whose licence is not known here: ask "
            "whoever made them"
        )
        return
    yield f"it started from {origin.words()}, whose licence binds it too: {origin.licence.strip()}"


def _saved(sha256: str) -> SavedModel:
    """Return the tensors and the header of the file with this hash."""
    return load_model(_require(sha256))


def _require(sha256: str) -> Path:
    path = weights_path(sha256)
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        msg = (
            f"the study's pretrained weights {sha256[:_SHOWN]} are not on this machine: "
            f"put the file at {path}, or run 'wardround model pretrain' with the model folder."
        )
        raise MissingWeightsError(msg) from None
    if found != sha256:
        msg = f"{path} has the SHA-256 {found[:_SHOWN]}..., which its name denies: copy it again."
        raise ModelError(msg)
    return path
