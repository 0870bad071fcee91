"""The engine "ray": the same two Flower apps through Flower's own simulation engine.

For a cluster, or to see what Flower itself would do; on one machine the pool of workers starts
sooner and needs less memory. A cluster's machines must see the site folders under the same path
and have the same wardround installed; before anything is trained each is asked for the former.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from wardround.client.app import app as client_app
from wardround.client.site.folder import open_site
from wardround.common.errors import InputError, install_command
from wardround.simulations.engines.in_process import run_client


@dataclass(frozen=True, slots=True)
class RayOptions:
    """What one site's work gets of Ray.

    Attributes:
        address: A running cluster (``auto`` finds this machine's); None starts one here and stops
            it afterwards.
        cpus_per_site: CPUs, at least 0.01.
        gpus_per_site: GPUs or a fraction of one; None is a whole one where the device is a GPU.
    """

    address: str | None = None
    cpus_per_site: float = 1.0
    gpus_per_site: float | None = None

    def check(self, device: str, cores: int) -> None:
        """Refuse what Ray could not do.

        Raises:
            InputError: Ray is not installed, or the sites would never get what they are to have.
        """
        if find_spec("ray") is None:
            msg = (
                "the engine 'ray' needs the package ray, which is not installed: "
                f"run  {install_command('ray')}  or use --engine pool."
            )
            raise InputError(msg)
        if device.startswith("cuda:"):
            msg = f"Ray gives out the GPUs itself, so {device} cannot be had: use --device cuda."
            raise InputError(msg)
        if not 0.01 <= self.cpus_per_site < math.inf:
            msg = f"--ray-cpus-per-site {self.cpus_per_site:g} cannot be used: give at least 0.01."
            raise InputError(msg)
        if self.address is None and self.cpus_per_site > cores:
            msg = (
                f"--ray-cpus-per-site {self.cpus_per_site:g} is more than the {cores} cores of "
                "this machine: lower it, or give a cluster's --ray-address."
            )
            raise InputError(msg)
        self._check_gpus(device)

    def _check_gpus(self, device: str) -> None:
        wanted = self.gpus_per_site or 0.0
        if not 0 <= wanted < math.inf:
            msg = f"--ray-gpus-per-site {wanted:g} cannot be used: give 0 or more, e.g. 0.25."
            raise InputError(msg)
        if wanted and device == "cpu":
            msg = "--ray-gpus-per-site gives GPUs and --device cpu forbids them: leave one out."
            raise InputError(msg)
        if self.address is None and wanted > torch.cuda.device_count():
            msg = (
                f"--ray-gpus-per-site {wanted:g} is more than the {torch.cuda.device_count()} "
                "GPUs of this machine: lower it, or give a cluster's --ray-address."
            )
            raise InputError(msg)

    def gpus_for(self, device: str) -> float:
        """Return the GPUs of each site for a chosen device type, ``cpu`` or ``cuda``."""
        if self.gpus_per_site is not None:
            return self.gpus_per_site
        return 1.0 if device == "cuda" else 0.0


class AssignedClientApp(ClientApp):
    """The hospital's ClientApp, told by its node's number which site of this simulation it is."""

    def __init__(self, contexts: Sequence[Context], threads: int) -> None:
        super().__init__()
        self._sites = list(contexts)
        self._threads = threads

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer as the site that the context's node stands for."""
        from wardround.common.flower.ray.runtime import PARTITION_ID

        site = self._sites[int(context.node_config[PARTITION_ID])]
        # Flower keeps the node's own context, and refuses one whose configuration was changed.
        placed = replace(
            context,
            node_config={**context.node_config, **site.node_config},
            run_config=site.run_config,
        )
        torch.set_num_threads(self._threads)
        return run_client(client_app, message, placed)


@contextmanager
def open_ray_grid(
    contexts: Sequence[Context], options: RayOptions, actors: int, threads: int
) -> Iterator[Grid]:
    """Give a grid whose sites run as actors of Ray, and stop what was started.

    Args:
        contexts: One a site, with its folder.
        actors: How many sites may work at a time on this machine.
        threads: Threads of torch in each.

    Raises:
        RunError: Ray does not start, or ends early.
    """
    from wardround.common.flower.ray.runtime import RayPlan, open_ray

    gpus_each = options.gpus_for(str(contexts[0].node_config["device"]).partition(":")[0])
    for context in contexts:
        # A folder is found from wherever Ray starts an actor; within one, the GPU is the first.
        context.node_config["site"] = str(Path(str(context.node_config["site"])).resolve())
        context.node_config["device"] = "cuda" if gpus_each else "cpu"
    plan = RayPlan(
        sites=len(contexts),
        cpus_per_site=options.cpus_per_site,
        gpus_per_site=gpus_each,
        address=options.address,
        cpus=max(1, math.ceil(actors * options.cpus_per_site)),
        gpus=torch.cuda.device_count() if gpus_each else 0,
        paths=tuple(_shared_paths(contexts)),
    )
    with open_ray(AssignedClientApp(contexts, threads), plan) as grid:
        yield grid


def _shared_paths(contexts: Sequence[Context]) -> Iterator[str]:
    """Yield where each site's folder and its images lie; the folders are absolute."""
    folders = [Path(str(context.node_config["site"])) for context in contexts]
    yield from dict.fromkeys(str(folder) for folder in folders)
    yield from dict.fromkeys(str(open_site(folder).data_root) for folder in folders)
