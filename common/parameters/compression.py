"""Sending less: what leaves a site, in fewer bytes.

What is compressed is the update: the site's model minus the model it received. What a round loses,
the site keeps as a residual and adds to its next update (error feedback), so that over the rounds
everything arrives. All floating tensors form one vector, and a compressed update is at most three
arrays whose shapes both sides derive from the network: a message is checked against
:func:`compressed_schema` before anything is allocated.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from wardround.common.errors import ModelError
from wardround.common.parameters.arithmetic import is_finite
from wardround.common.parameters.codecs import (
    COMPRESSIONS,
    CompressionOptions,
    Layout,
    kind_of,
    layout_of,
    size_of,
)
from wardround.common.parameters.schema import ArraySpec, Parameters, Schema, check_schema, schema

__all__ = [
    "COMPRESSIONS",
    "CompressionOptions",
    "apply_update",
    "compress",
    "compressed_schema",
    "decompress",
    "update_of",
]


def update_of(model: Parameters, received: Parameters) -> Parameters:
    """Return a model minus the received one; integers and booleans as int64.

    Raises:
        ModelError: They do not have the same names, shapes and types.
    """
    check_schema(model, schema(received))
    return {
        name: tensor.sub(received[name])
        if tensor.is_floating_point()
        else tensor.long().sub(received[name].long())
        for name, tensor in model.items()
    }


def apply_update(received: Mapping[str, Tensor], update: Parameters) -> Parameters:
    """Return the model that an update leads to, with the types of the received one.

    Args:
        received: Named tensors of any shape: the model that the site was sent.
        update: What the site adds to each, of the same shapes; its tensors become those of the
            model where the types agree.
    """
    return {name: _added(update[name], tensor) for name, tensor in received.items()}


def compressed_schema(expected: Schema, kind: str, options: CompressionOptions) -> Schema:
    """Return the arrays of a compressed update, for a network.

    Args:
        expected: The network's schema.

    Raises:
        StudyError: The kind is unknown.
    """
    if kind == "none":
        return tuple(ArraySpec(s.name, s.shape, _update_type(s)) for s in expected)
    layout = layout_of(expected)
    arrays = kind_of(kind).arrays(layout, options) if layout.count else {}
    specs = [ArraySpec(name, (count,), dtype) for name, (count, dtype) in arrays.items() if count]
    whole = sum(size_of(spec) for spec in layout.integers)
    return (*specs, *([ArraySpec("integers", (whole,), "int64")] if whole else []))


def compress(
    update: Parameters,
    kind: str,
    options: CompressionOptions,
    residual: Parameters | None = None,
) -> tuple[Parameters, Parameters]:
    """Return the arrays to send, and what they leave out: the residual for the next round.

    Args:
        update: From :func:`update_of`.
        kind: A key of COMPRESSIONS.
        residual: Of the site's round before; None in its first.

    Raises:
        StudyError: The kind is unknown.
        ModelError: The update holds a value that is not finite.
    """
    if kind == "none":
        return dict(update), {}
    layout = layout_of(schema(update))
    vector = _flatten(update, layout)
    if residual:
        vector = vector + _flatten(residual, layout)
    if not is_finite(vector):
        msg = "the update holds values that are not finite: lower training.learning_rate."
        raise ModelError(msg)
    chosen = kind_of(kind)
    arrays = chosen.write(vector, layout, options) if len(vector) else {}
    arrays = {name: array for name, array in arrays.items() if len(array)}
    lost = vector - chosen.read(arrays, layout) if len(vector) else vector
    if layout.integers:
        whole = [update[spec.name].reshape(-1).long() for spec in layout.integers]
        arrays["integers"] = torch.cat(whole)
    # Tensors of their own, since a file of them takes no shared memory.
    return arrays, {name: part.clone() for name, part in _unflatten(lost, layout).items()}


def decompress(
    arrays: Parameters, kind: str, options: CompressionOptions, expected: Schema
) -> Parameters:
    """Return the update in the arrays, float32 and int64; "none" keeps the floating types.

    Args:
        expected: The network's schema.

    Raises:
        StudyError: The kind is unknown.
        ModelError: The arrays are not those of this network, or hold what no site of ours sends.
    """
    check_schema(arrays, compressed_schema(expected, kind, options))
    if kind == "none":
        return dict(arrays)
    layout = layout_of(expected)
    vector = kind_of(kind).read(arrays, layout) if layout.count else torch.zeros(0)
    if not is_finite(vector):
        msg = "the compressed update holds values that are not finite: the site must send it anew."
        raise ModelError(msg)
    update = _unflatten(vector, layout)
    offset = 0
    for spec in layout.integers:
        part = arrays["integers"][offset : offset + size_of(spec)]
        update[spec.name] = part.reshape(spec.shape)
        offset += size_of(spec)
    return {spec.name: update[spec.name] for spec in expected}


def _flatten(update: Parameters, layout: Layout) -> Tensor:
    parts = [update[spec.name].reshape(-1).float() for spec in layout.floating]
    return torch.cat(parts) if parts else torch.zeros(0)


def _unflatten(vector: Tensor, layout: Layout) -> Parameters:
    update, offset = {}, 0
    for spec in layout.floating:
        part = vector[offset : offset + size_of(spec)].reshape(spec.shape)
        update[spec.name] = part
        offset += size_of(spec)
    return update


def _added(change: Tensor, start: Tensor) -> Tensor:
    if change.dtype == start.dtype:
        return change.add_(start)
    return torch.add(change, start).to(start.dtype)


def _update_type(spec: ArraySpec) -> str:
    return spec.dtype if "float" in spec.dtype else "int64"
