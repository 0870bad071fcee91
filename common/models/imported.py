"""A model folder of the weights that a MONAI bundle holds.

A bundle is code: its configuration names Python classes and holds expressions that ``monai.bundle``
runs. Of a bundle that comes in, only JSON is read, as data, and weights that hold nothing but
numbers. Nothing of it is imported, evaluated or unpickled.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import wardround
from wardround.common.errors import ModelError
from wardround.common.models.bundle import INFERENCE, METADATA, OURS, OWN_NETWORK
from wardround.common.models.card import Origin, licence_text, model_card
from wardround.common.models.contract import Contract, study_content
from wardround.common.models.model_folder import (
    network_with,
    write_model_folder,
)
from wardround.common.models.networks.named_once import under_first_names
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.model_file import load_model
from wardround.common.parameters.schema import Parameters
from wardround.common.runtime.printable import printable
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

_MOST_LICENCE = 20_000  # characters
_NOT_KNOWN = "it comes from a bundle, which does not say what its training images looked like"
_TARGETS = ("monai.", "torch.", "ignite.", "wardround.")
_NETWORKS = "monai.networks.nets."
_MOST_CONFIG_BYTES, _MOST_WEIGHT_BYTES = 16 * 2**20, 8 * 2**30
_DEEPEST = 64


def import_bundle(bundle: Path, study: Study | None, out: Path) -> str:
    """Write a model folder of a bundle's weights; return its digest.

    Args:
        study: What the weights are for; None for a bundle that wardround wrote.

    Raises:
        ModelError: The bundle is refused, see :func:`read_bundle`, or the folder exists.
    """
    if out.exists():
        msg = f"{out} exists already: choose another --out."
        raise ModelError(msg)
    chosen, weights, metadata = read_bundle(bundle, study)
    name = printable(str(metadata.get("name") or bundle.resolve().name), 80)
    contract = Contract(
        wardround=wardround.__version__,
        name=name,
        study=study_content(chosen),
        study_digest=chosen.digest,
        parameters=digest(weights),
        seen_note=_NOT_KNOWN,
    )
    said = printable(str(metadata.get("description") or "nothing"), 1_000)
    origin = Origin(
        (f"the bundle {name}; it says of itself: {said}",),
        ("nothing is known of what was promised to patients",),
        _licence(bundle),
    )
    texts = model_card(contract, chosen, origin, ()), licence_text(origin.licence)
    return write_model_folder(out, weights, contract, (), texts)


def _licence(bundle: Path) -> str:
    path = bundle / "LICENSE"
    if path.is_symlink() or not path.is_file():
        return "The bundle holds no licence: ask whoever made it."
    with path.open(encoding="utf-8", errors="replace") as stream:
        return printable(stream.read(_MOST_LICENCE), _MOST_LICENCE, lines=True)


def read_bundle(folder: Path, study: Study | None) -> tuple[Study, Parameters, Mapping[str, Any]]:
    """Return study, weights and metadata of a bundle; nothing of it is executed.

    Args:
        study: What the weights are for; None takes what a bundle of ours says of itself.

    Raises:
        ModelError: It is no bundle, its network is none that wardround knows, its configuration
            names code of its own, or its weights are a pickle that holds more than numbers.
    """
    metadata = _json(folder / "configs" / METADATA)
    for path in sorted((folder / "configs").glob("*.json")):
        _refuse_code(_json(path), path.name)
    if study is None:
        study = _own_study(folder)
    _check_network(folder, study)
    weights = _weights(folder)
    network = network_with(study, weights)  # refused here where they do not fit
    return study, under_first_names(network, weights), metadata


def _own_study(folder: Path) -> Study:
    path = folder / "configs" / OURS
    if not path.is_file():
        msg = (
            "the bundle does not come from wardround, so that nothing says how its images are "
            "prepared: give --study, a study file whose network and [data] are the bundle's."
        )
        raise ModelError(msg)
    try:
        contract = Contract.model_validate(_json(path))
    except ValueError:
        msg = f"{OURS} of the bundle is not what this version writes: give --study."
        raise ModelError(msg) from None
    return parse_study(dict(contract.study), "the bundle's study", planned=False)


def _check_network(folder: Path, study: Study) -> None:
    """Refuse a bundle whose network is another than the study's, as far as its JSON says."""
    path = folder / "configs" / INFERENCE
    definition = _json(path).get("network_def") if path.is_file() else None
    if definition is None:
        return
    found = definition.get("_target_") if isinstance(definition, dict) else None
    if found == OWN_NETWORK:
        return
    if not isinstance(found, str) or any(_is_expression(v) for v in _values(definition, "")):
        msg = (
            "the bundle's network_def is not a plain definition but an expression, which would "
            "be run: wardround runs nothing of a bundle."
        )
        raise ModelError(msg)
    with torch.device("meta"):
        from wardround.common.models.networks.registry import build_network

        ours = getattr(build_network(study, 0), "monai_definition", {}).get("_target_", "")
    if found.removeprefix(_NETWORKS) != str(ours).removeprefix(_NETWORKS):
        msg = (
            f"the bundle's network is {printable(found, 80)}, the study's "
            f"{study.model.network}: give a --study with the bundle's network."
        )
        raise ModelError(msg)


def _refuse_code(content: object, name: str) -> None:
    for key, value in _named_values(content):
        if key != "_target_" or not isinstance(value, str):
            continue
        if "." in value and not value.startswith(_TARGETS):
            msg = (
                f"{printable(name, 80)} of the bundle names {printable(value, 80)}, which would "
                "run code that is not MONAI's: wardround runs nothing of a bundle."
            )
            raise ModelError(msg)


def _weights(folder: Path) -> Parameters:
    models = folder / "models"
    safe = models / "model.safetensors"
    path = safe if safe.is_file() else models / "model.pt"
    if path.is_symlink() or not path.is_file():
        msg = f"the bundle has neither {safe.name} nor model.pt in models/: nothing to import."
        raise ModelError(msg)
    if path.stat().st_size > _MOST_WEIGHT_BYTES:
        msg = f"{path.name} of the bundle is larger than {_MOST_WEIGHT_BYTES >> 30} GiB."
        raise ModelError(msg)
    return load_model(path).parameters if path == safe else _pickled(path)


def _pickled(path: Path) -> Parameters:
    """Read tensors that ``torch.save`` wrote, with torch's reader that calls nothing else."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # it breaks in many ways; its text quotes the file
        msg = (
            f"{path.name} of the bundle is a pickle that holds more than numbers, or is damaged "
            f"({type(error).__name__}); loading it could run code, so it is not loaded. Ask for "
            "models/model.safetensors."
        )
        raise ModelError(msg) from None
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        msg = f"{path.name} of the bundle holds no named tensors: it is no state dict."
        raise ModelError(msg)
    return {name: value.detach() for name, value in found.items()}


def _named_values(content: object, depth: int = 0) -> Iterator[tuple[str, object]]:
    if depth > _DEEPEST:
        msg = "the bundle's configuration is nested deeper than any that is meant well."
        raise ModelError(msg)
    if isinstance(content, dict):
        for key, value in content.items():
            yield str(key), value
            yield from _named_values(value, depth + 1)
    elif isinstance(content, list):
        for value in content:
            yield from _named_values(value, depth + 1)


def _values(content: object, key: str) -> Iterator[object]:
    yield from (value for _, value in _named_values({key: content}))
    if isinstance(content, dict):
        for value in content.values():
            yield from (value if isinstance(value, list) else ())


def _is_expression(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("$", "@", "%"))


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.is_symlink() or path.stat().st_size > _MOST_CONFIG_BYTES:
            raise ValueError
        content = json.loads(path.read_bytes())
    except OSError:
        msg = f"there is no {path.name} in the bundle's configs/: give the folder of a bundle."
        raise ModelError(msg) from None
    except (ValueError, RecursionError):
        msg = f"{printable(path.name, 80)} of the bundle is not JSON that could be read."
        raise ModelError(msg) from None
    if not isinstance(content, dict):
        msg = f"{printable(path.name, 80)} of the bundle is not a table."
        raise ModelError(msg)
    return content
