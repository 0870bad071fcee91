"""Networks that are not Wardround's own: of an installed package, or one of MONAI's by its class.

What follows from the study (dimensions, planes, outputs, image size) is given to whichever
argument is called so; ``model.arguments`` gives the rest. Before a network is built its numbers
are counted, while its tensors have shapes and no memory, so that no study can ask for a network
that fills the machine.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from wardround.common.errors import StudyError, known_names
from wardround.common.files.packages.importing import component
from wardround.common.files.packages.references import MONAI
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
MOST_BYTES = 64 * 2**30  # of a network in training, with one batch of what its layers make
_MOST_MODULES = 5_000
_COPIES = 4  # numbers, gradients, and two moments of an optimiser


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
    with _counted(name), _WithoutMemory():
        sized = _made(name, build, arguments)
    gives_many = _gives_many(sized, study)
    network = _made(name, build, arguments)
    if name.startswith(MONAI):
        target = f"monai.networks.nets.{name.removeprefix(MONAI)}"
        network.monai_definition = {"_target_": target, **arguments}  # type: ignore[assignment]
    _require_separate_patients(network, study)
    return FinalOutput(network) if gives_many else network


class FinalOutput(nn.Module):
    """A network that also gives what it finds on the way: the final output alone is kept."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, K)`` or ``(B, K, *spatial)``."""
        found: Tensor = _first(self.network(images))
        return found


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
    return build


def _arguments(build: Build, study: Study) -> dict[str, Any]:
    """Return what a network is built with.

    Raises:
        StudyError: The study gives what it may not, what is unknown, or lacks what is needed.
    """
    name, said = study.model.network, _as_lists(study.model.arguments)
    taken = inspect.signature(build).parameters
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


class _WithoutMemory(TorchFunctionMode):
    """Gives tensors that a network is made of a shape and no memory."""

    _MAKING = frozenset(
        {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full}
        | {torch.empty_strided, torch.normal, torch.randint, torch.eye}
    )

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in self._MAKING and given.get("device") is None and "generator" not in given:
            given["device"] = "meta"
        return func(*args, **given)


@contextmanager
def _counted(name: str) -> Iterator[None]:
    """Refuse a network while it grows beyond what a study may ask for."""
    numbers = modules = 0

    def add_numbers(owner: nn.Module, key: str, tensor: Tensor | None) -> None:
        nonlocal numbers
        numbers += 0 if tensor is None else tensor.numel()
        if numbers * 4 * _COPIES > MOST_BYTES:
            raise _too_large(name, f"{numbers:,} numbers or more")

    def add_module(owner: nn.Module, key: str, part: nn.Module | None) -> None:
        nonlocal modules
        modules += 1
        if modules > _MOST_MODULES:
            msg = f"{name} with these arguments has more than {_MOST_MODULES} layers: choose fewer."
            raise StudyError(msg)

    held = (
        hooks.register_module_parameter_registration_hook(add_numbers),
        hooks.register_module_buffer_registration_hook(add_numbers),
        hooks.register_module_module_registration_hook(add_module),
    )
    try:
        yield
    finally:
        for one in held:
            one.remove()


def _too_large(name: str, what: str) -> StudyError:
    return StudyError(
        f"{name} with these arguments has {what}, more than the {MOST_BYTES >> 30} GiB that a "
        "study may ask for in training: choose smaller arguments."
    )


def _gives_many(sized: nn.Module, study: Study) -> bool:
    """Check a network without memory on images without memory; say if it gives several outputs.

    Raises:
        StudyError: It cannot take the images, gives other outputs, or makes too much of them.
    """
    images = _example(study)
    if images is None:
        return False
    network, made = sized.to("meta"), 0

    def add(layer: nn.Module, given: Any, outputs: Any) -> None:
        nonlocal made
        made += outputs.nbytes if isinstance(outputs, Tensor) else 0

    leaves = [layer for layer in network.modules() if not any(True for _ in layer.children())]
    handles = [layer.register_forward_hook(add) for layer in leaves]
    try:
        with torch.no_grad():
            outputs = network.train()(images)
    except NotImplementedError:  # it looks at values, which are not there
        return False
    except Exception as error:  # another's code refuses in many ways
        raise _misfit(study, images, error) from None
    finally:
        for handle in handles:
            handle.remove()
    _require_outputs(_first(outputs), study)
    numbers = sum(weight.nbytes for weight in network.parameters()) * _COPIES
    needed = numbers + made * _batch(study) / len(images)
    if needed > MOST_BYTES:
        raise _too_large(study.model.network, f"about {needed / 2**30:,.0f} GiB in training")
    return not isinstance(outputs, Tensor)


def _misfit(study: Study, images: Tensor, error: Exception) -> StudyError:
    return StudyError(
        f"{study.model.network} does not take the study's images of {list(images.shape[1:])} "
        f"({type(error).__name__}: {printable(str(error), 200)}): change data.size, "
        "training.patch_size or model.arguments."
    )


def _example(study: Study) -> Tensor | None:
    """Return inputs of two examples, with shapes and no memory; None if their size is free."""
    if study.data.kind == "table":
        return torch.empty(2, study.data.covariate_width, device="meta")
    if study.input_size is None:
        return None
    return torch.empty(2, study.data.input_planes, *study.input_size, device="meta")


def _batch(study: Study) -> int:
    """Return how many examples a step has at once."""
    training, privacy = study.training, study.privacy
    if privacy.mode == "patient":
        return privacy.examples_per_patient * privacy.augmentation_copies
    return training.batch_size * (training.patches_per_image if training.patch_size else 1)


def _first(outputs: Any) -> Any:
    """Return the final output of a network with deep supervision, or the only one."""
    return outputs[0] if isinstance(outputs, list | tuple) and outputs else outputs


def _require_outputs(outputs: object, study: Study) -> None:
    wanted = (2, study.output_count, *((study.input_size or ()) if study.task.dense else ()))
    found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if found != wanted:
        msg = (
            f"{study.model.network} gives {found} for 2 examples, and {study.study.task} needs "
            f"{wanted}: choose a network for this task, or other arguments."
        )
        raise StudyError(msg)


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
    example = _example(study)
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
