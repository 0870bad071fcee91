"""Two models compared, and the digest of one."""

import hashlib
import json
from collections.abc import Mapping
from math import hypot, inf, isfinite

import numpy as np
import torch
from torch import Tensor

from wardround.common.parameters.array_records import to_numpy
from wardround.common.parameters.schema import check_schema, schema


def difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return the largest absolute difference of two models; NaN where either holds a NaN.

    Raises:
        ModelError: They do not have the same names, shapes and types.
    """
    check_schema(a, schema(b))
    largest = [
        (tensor.double() - b[name].double()).abs().max()
        for name, tensor in a.items()
        if len(tensor.view(-1))
    ]
    return float(torch.stack(largest).max()) if largest else 0.0


def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return the Euclidean distance of two models over their floating tensors."""
    lengths = [
        float(torch.linalg.vector_norm(tensor - b[name], dtype=torch.float64))
        for name, tensor in a.items()
        if tensor.is_floating_point()
    ]
    return hypot(*lengths)


def largest_weight(model: Mapping[str, Tensor]) -> float:
    """Return the largest absolute value of a model's floating tensors; NaN where one is NaN."""
    ends = [
        torch.stack(tensor.detach().aminmax()).abs().max().double()
        for tensor in model.values()
        if tensor.is_floating_point() and tensor.numel()
    ]
    return float(torch.stack(ends).max()) if ends else 0.0


def is_finite(tensor: Tensor, most: float = inf) -> bool:
    """Return whether a tensor holds neither NaN nor infinity, without a copy of it.

    Args:
        tensor: Of any shape; one of integers is finite.
        most: The largest size that a number may have beside.
    """
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    lowest, highest = torch.aminmax(tensor)  # both are NaN where one value is
    return all(isfinite(end) and abs(float(end)) <= most for end in (lowest, highest))


def digest(parameters: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 over names, shapes, types and values, 64 hexadecimal digits.

    It does not depend on the order of the names, nor on the device.
    """
    names = sorted(parameters)
    ordered = {name: parameters[name] for name in names}
    head = [(spec.name, spec.shape, spec.dtype) for spec in schema(ordered)]
    # The head fixes the length of everything that follows, so no two models hash the same bytes.
    total = hashlib.sha256(json.dumps(head).encode() + b"\n")
    for tensor in ordered.values():
        total.update(to_numpy(tensor).reshape(-1).view(np.uint8).data)
    return total.hexdigest()
