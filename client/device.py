"""Which processor a site trains on."""

import torch

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
