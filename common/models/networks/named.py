"""Networks that are not Wardround's own: of an installed package, or one of MONAI's by its class.

What follows from the study (dimensions, planes, outputs, image size) is given to whichever
argument is called so; ``model.arguments`` gives the rest.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from wardround.common.errors import StudyError, known_names
from wardround.common.files.packages.importing import component
from wardround.common.files.packages.references import MONAI
from wardround.common.models.networks.sizing import (
    WithoutMemory,
    counted,
    example_inputs,
    gives_many,
)
from wardround.common.models.networks.small import FirstOutput
from wardround.common.runtime.printable import printable
from wardround.common.study.study import Study

Build = Callable[..., nn.Module]

# Of MONAI, by the class: those that are built of arguments alone, and read no file for it.
MONAI_NETWORKS = (
    "AttentionUnet",
    "BasicUNet",
    "BasicUNetPlusPlus",
    "DenseNet121",
    "DenseNet169",
    "DenseNet201",
    "DenseNet264",
    "DynUNet",
    "FlexibleUNet",
    "HighResNet",
    "SegResNet",
    "SegResNetDS",
    "SENet154",
    "SEResNet50",
    "SEResNet101",
    "SEResNext50",
    "SwinUNETR",
    "UNETR",
    "UNet",
    "VNet",
    "resnet10",
    "resnet18",
    "resnet34",
    "resnet50",
)
# What the study says already, by all names that networks call it.
_DIMENSIONS = ("spatial_dims", "dimensions")
_INPUTS = ("in_channels", "n_input_channels", "num_input_channels")
_OUTPUTS = ("out_channels", "num_classes", "n_classes")
_SIZE = ("img_size", "image_size")
_GIVEN = (*_DIMENSIONS, *_INPUTS, *_OUTPUTS, *_SIZE)
# Never a study's to say: what is read, where it is looked for, where it is computed.
_NEVER = frozenset(
    {"pretrained", "weight", "weights", "url", "path", "paths", "file", "files", "dir", "hub"}
    | {"cache", "device", "devices", "dtype", "progress", "args", "kwargs"}
)


def build_named(study: Study) -> nn.Module:
    """Return a network of a package or of MONAI, untrained.

    Raises:
        StudyError: It is unknown, does not take these arguments, or these images; or it is larger
            than a study may ask for.
        PackageError: Its package is not installed as the study names it.
    """
    name = study.model.network
    build = _class_of(study)
    arguments = _arguments(build, study)
    with counted(name), WithoutMemory():
        sized = _made(name, build, arguments)
    is_first_of_many = gives_many(sized, study)
    network = _made(name, build, arguments)
    if name.startswith(MONAI):
        target = f"monai.networks.nets.{name.removeprefix(MONAI)}"
        network.monai_definition = {"_target_": target, **arguments}  # type: ignore[assignment] # torch types it a module
    _require_separate_patients(network, study)
    return FirstOutput(network) if is_first_of_many else network


def _class_of(study: Study) -> Build:
    name = study.model.network
    if not name.startswith(MONAI):
        found = component("networks", name, study.packages)
        if not callable(found):
            msg = f"{name} is no class or function that makes a network: tell its author."
            raise StudyError(msg)
        return found
    wanted = name.removeprefix(MONAI)
    if wanted not in MONAI_NETWORKS:
        raise StudyError(known_names("network", name, [MONAI + one for one in MONAI_NETWORKS]))
    from monai.networks import nets

    build: Build | None = getattr(nets, wanted, None)
    if build is None:
        msg = f"the MONAI that is installed here has no {wanted}: install a newer one."
        raise StudyError(msg)
    chosen: Build = build
    return chosen


def _arguments(build: Build, study: Study) -> dict[str, Any]:
    """Return what a network is built with.

    Raises:
        StudyError: The study gives what it may not, what is unknown, or lacks what is needed.
    """
    name, said = study.model.network, _as_lists(study.model.arguments)
    try:
        taken = inspect.signature(build).parameters
    except (TypeError, ValueError):
        msg = f"{name} does not say which arguments it takes: tell its author."
        raise StudyError(msg) from None
    is_open = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values())
    known = [key for key in taken if key not in _GIVEN and not _is_refused(key)]
    for key in said:
        if key in _GIVEN:
            msg = f"model.arguments.{key} follows from the study itself: remove it."
            raise StudyError(msg)
        if _is_refused(key):
            msg = (
                f"model.arguments.{key} would have a network read a file or choose its device, "
                "which is no study's to say: remove it."
            )
            raise StudyError(msg)
        if key not in taken and not (is_open and name.startswith(MONAI)):
            raise StudyError(known_names(f"argument of {name}", key, known))
    arguments = {**_given(taken, is_open, study), **said}
    for key, one in taken.items():
        needed = one.default is inspect.Parameter.empty and one.kind not in (
            inspect.Parameter.VAR_KEYWORD,
            inspect.Parameter.VAR_POSITIONAL,
        )
        if needed and key not in arguments:
            msg = f"{name} needs the argument {key}: give it as model.arguments.{key}."
            raise StudyError(msg)
    return arguments


def _is_refused(key: str) -> bool:
    return not _NEVER.isdisjoint(key.split("_"))


def _as_lists(given: Mapping[str, object]) -> dict[str, Any]:
    return {key: _listed(value) for key, value in given.items()}


def _listed(value: object) -> object:
    return [_listed(one) for one in value] if isinstance(value, tuple) else value


def _given(taken: Mapping[str, inspect.Parameter], is_open: bool, study: Study) -> dict[str, Any]:
    """Return what follows from the study, under the names that the network has for it."""
    is_table = study.data.kind == "table"
    facts: dict[tuple[str, ...], Any] = {
        _DIMENSIONS: 0 if is_table else study.data.dimensions,
        _INPUTS: study.data.covariate_width if is_table else study.data.input_planes,
        _OUTPUTS: study.output_count,
        _SIZE: study.input_size,
    }
    found = {key: value for names, value in facts.items() for key in names if key in taken}
    if is_open and not any(key in taken for key in _INPUTS):
        # MONAI's functions hand on what they are given to the class behind them.
        found.update(_behind(study))
    if "pretrained" in taken:
        found["pretrained"] = False
    return {key: value for key, value in found.items() if value is not None}


def _behind(study: Study) -> dict[str, Any]:
    if study.model.network.startswith(f"{MONAI}resnet"):
        return {
            "spatial_dims": study.data.dimensions,
            "n_input_channels": study.data.input_planes,
            "num_classes": study.output_count,
        }
    return {
        "spatial_dims": study.data.dimensions,
        "in_channels": study.data.input_planes,
        "num_classes": study.output_count,
    }


def _made(name: str, build: Build, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        network: object = build(**arguments)
    except StudyError:
        raise
    except Exception as error:  # another's code refuses in many ways
        msg = (
            f"{name} cannot be built with these arguments ({type(error).__name__}: "
            f"{printable(str(error), 200)}): change model.arguments or the study's sizes."
        )
        raise StudyError(msg) from None
    if not isinstance(network, nn.Module):
        msg = f"{name} makes a {type(network).__name__} and no torch.nn.Module: tell its author."
        raise StudyError(msg)
    return network


def _require_separate_patients(network: nn.Module, study: Study) -> None:
    """Refuse what would carry something of one patient into the pass of another.

    Each patient of a private study takes a pass of its own. What a network still keeps from pass
    to pass are its buffers: running means, say.

    Raises:
        StudyError: It changes a buffer while it trains.
    """
    if study.privacy.mode != "patient":
        return
    before = {key: value.clone() for key, value in network.named_buffers()}
    example = example_inputs(study)
    if example is None or not before or any(value.is_meta for value in before.values()):
        return
    was = network.training
    with torch.no_grad():
        network.train()(torch.randn(example.shape))
    network.train(was)
    changed = [key for key, value in network.named_buffers() if not torch.equal(value, before[key])]
    if changed:
        msg = (
            f"{study.model.network} keeps {printable(changed[0], 80)} from one patient to the "
            "next while it trains, so that no patient has a gradient of its own to clip: use "
            "instance or group normalisation in it."
        )
        raise StudyError(msg)
