"""Machine and versions behind a run, so that a number can be judged and a run repeated."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("torch", "flwr", "monai", "numpy", "nibabel", "pydicom", "pydantic")


def describe_environment(device: str, threads: int) -> dict[str, str]:
    """Return what a report states about the machine."""
    facts = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count() or 1),
        "device": _device_name(device),
        "threads": str(threads),
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def _device_name(device: str) -> str:
    import torch

    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        return torch.cuda.get_device_name()
    return "cpu"
