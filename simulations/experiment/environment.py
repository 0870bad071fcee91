"""Machine and versions behind a run, so that a number can be judged and a run repeated."""

import platform
from importlib.metadata import PackageNotFoundError, version

from wardround.simulations.experiment.federation import Machine, cores

_PACKAGES = ("torch", "flwr", "monai", "numpy", "nibabel", "pydicom", "pydantic")


def describe_environment(machine: Machine) -> dict[str, str]:
    """Return what a report states about the machine."""
    facts = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(cores()),
        "device": _device_name(machine.device),
        "engine": machine.engine,
        "workers": str(machine.workers or "as many as cores or GPUs"),
        "threads": str(machine.threads or "cores shared among the workers"),
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
