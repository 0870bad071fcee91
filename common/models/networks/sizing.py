"""How large a network would be in training, found before it is built.

Its numbers are counted while its tensors have shapes and no memory, so that no study can ask for a
network that fills the machine; then it is shown images without memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from wardround.common.errors import StudyError
from wardround.common.runtime.printable import printable
from wardround.common.study.study import Study

MOST_BYTES = 64 * 2**30  # of a network in training, with one batch of what its layers make
_MOST_MODULES = 5_000
_COPIES = 4  # numbers, gradients, and two moments of an optimiser


class WithoutMemory(TorchFunctionMode):
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
def counted(name: str) -> Iterator[None]:
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


def gives_many(sized: nn.Module, study: Study) -> bool:
    """Check a network without memory on images without memory; say if it gives several outputs.

    Raises:
        StudyError: It cannot take the images, gives other outputs, or makes too much of them.
    """
    images = example_inputs(study)
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


def example_inputs(study: Study) -> Tensor | None:
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
