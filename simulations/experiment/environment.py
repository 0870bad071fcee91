"""Machine and versions behind a run, so that a number can be judged and a run repeated."""

import platform
from importlib.metadata import PackageNotFoundError, version

from wardround.client.site.device import choose_device
from wardround.common.runtime.code_digest import code_digest
from wardround.common.runtime.system.limits import cores
from wardround.simulations.experiment.federation import Machine

_PACKAGES = ("torch", "flwr", "monai", "numpy", "nibabel", "pydicom", "pydantic")


def describe_environment(machine: Machine) -> dict[str, str]:
    """Return what a report states about the machine."""
    facts = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(cores()),
        "device": _device_names(machine),
        "engine": machine.engine,
        "workers": str(machine.workers or "as many as cores or GPUs"),
        "threads": str(machine.threads or "cores shared among the workers"),
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    facts["code"] = f"SHA-256 {code_digest()}"
    return facts


def _device_names(machine: Machine) -> str:
    """Return the GPUs that work is given to, each once, or the CPU."""
    import torch

    chosen = choose_device(machine.device)
    if chosen.type == "cpu":
        return "cpu"
    used = dict.fromkeys(machine.devices_for(torch.cuda.device_count()))
    return ", ".join(f"{torch.cuda.get_device_name(name)} ({name})" for name in used)
