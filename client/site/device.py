"""Which processor a site trains on, and how it computes there."""

import torch
from torch import nn

from wardround.common.errors import InputError
from wardround.common.study.study import Study


def device_for(name: str, study: Study) -> torch.device:
    """Return the device of a name for a study, as :func:`choose_device`.

    "auto" leaves tables on the CPU: a few rows a step are computed there before a GPU has begun.
    """
    return choose_device("cpu" if name == "auto" and study.data.kind == "table" else name)


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

    On a GPU those of 2D convolutions come last: a GPU's matrix units want them so, and would turn
    them round in each step (torch's and cuDNN's guides; not measured here). Where the weights lie
    so, cuDNN makes the images of all later layers lie so too.
    """
    kind: type[nn.Module]
    if device.type == "cpu":
        if precision != "float32":
            return network
        kind, order = nn.Conv3d, torch.channels_last_3d
    else:
        kind, order = nn.Conv2d, torch.channels_last
    for module in network.modules():
        if isinstance(module, kind) and isinstance(module.weight, nn.Parameter):
            module.weight.data = module.weight.data.contiguous(memory_format=order)
    return network


def choose_arithmetic(device: torch.device, study: Study) -> None:
    """Have a GPU compute as follows, whatever this process was told before.

    A "float32" study multiplies in TF32 within convolutions (products of 11 bits, sums of 24) and
    in whole float32 elsewhere: torch's own choice. Where all inputs have one size, cuDNN tries its
    algorithms out and takes the fastest. So two runs on a GPU agree up to rounding, not to the
    bit. A private step is exact, and chooses for itself.

    On the CPU nothing is changed.
    """
    if device.type != "cuda":
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.benchmark = (study.training.patch_size or study.data.size) is not None
