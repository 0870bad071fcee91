"""A model for other run times: ONNX and torch.export, each checked against torch itself."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor, nn

from wardround.common.errors import InputError, ModelError, install_command

_NEEDED = ("onnx", "onnxruntime", "onnxscript")


def write_onnx(network: nn.Module, inputs: Sequence[Tensor], path: Path) -> float:
    """Write a network as ONNX; return the largest difference that onnxruntime's outputs have.

    The number of images of a batch is free, their size is not.

    Args:
        network: In evaluation mode, on the CPU.
        inputs: What it takes, each ``(B, ...)``: the outputs are compared on these.
        path: The file, which must be new.

    Raises:
        InputError: The extra ``export`` is not installed, or the file exists.
        ModelError: The network cannot be written as ONNX.
    """
    if any(find_spec(name) is None for name in _NEEDED):
        msg = f"ONNX needs packages that are not installed: run {install_command('export')}."
        raise InputError(msg)
    _require_new(path)
    given = tuple(inputs)
    names = [f"input{number}" for number in range(len(given))]
    batch = torch.export.Dim("batch", min=1)
    try:
        with _quietly():
            torch.onnx.export(
                network,
                given,
                str(path),
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=tuple({0: batch} for _ in given),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter breaks in many ways
        path.unlink(missing_ok=True)
        msg = f"torch cannot write this network as ONNX ({type(error).__name__})."
        raise ModelError(msg) from None
    return _onnx_difference(network, given, names, path)


def write_exported(network: nn.Module, inputs: Sequence[Tensor], path: Path) -> float:
    """Write a network as a program of ``torch.export``; return the largest difference of outputs.

    Args:
        network: In evaluation mode, on the CPU.
        inputs: What it takes, each ``(B, ...)``: the outputs are compared on these.
        path: The file (.pt2), which must be new.

    Raises:
        InputError: The file exists.
        ModelError: The network cannot be exported.
    """
    _require_new(path)
    given = tuple(inputs)
    try:
        with _quietly():
            torch.export.save(torch.export.export(network, given), path)
            loaded = torch.export.load(path).module()
    except Exception as error:  # the exporter breaks in many ways
        path.unlink(missing_ok=True)
        msg = f"torch.export cannot write this network ({type(error).__name__})."
        raise ModelError(msg) from None
    with torch.inference_mode():
        return _difference(_first(network(*given)), _first(loaded(*given)))


def _onnx_difference(
    network: nn.Module, given: tuple[Tensor, ...], names: Sequence[str], path: Path
) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    fed = {name: one.numpy() for name, one in zip(names, given, strict=True)}
    found = torch.from_numpy(session.run(["logits"], fed)[0])
    with torch.inference_mode():
        return _difference(_first(network(*given)), found)


def _difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).abs().max())


def _first(outputs: Tensor | Sequence[Tensor]) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def _require_new(path: Path) -> None:
    if path.exists():
        msg = f"{path} exists already: choose another --out."
        raise InputError(msg)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the exporters' progress and warnings off the screen."""
    log = logging.getLogger("torch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
