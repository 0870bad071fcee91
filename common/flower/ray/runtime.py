"""Flower's own simulation engine on Ray, with its Grid handed to the caller.

Flower calls the ServerApp itself, in a thread beside its engine. The ServerApp that it gets here
only hands its Grid over and waits: whoever opened the engine then works with that Grid as with any
other, for as long as needed, and the actors keep their sites warm in between.

Written against Flower 1.41 and Ray 2.55: ``run_simulation`` is deprecated there, but it is the one
way that takes both apps as objects and runs in this process. Each assumption has a contract test in
``tests/unit/common/flower/ray/test_runtime.py``.
"""

import importlib
import logging
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, Queue
from types import ModuleType
from typing import TYPE_CHECKING

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import PARTITION_ID_KEY as _PARTITION_ID
from flwr.serverapp import Grid, ServerApp

from wardround.common.errors import RunError, root_cause
from wardround.common.flower.logs import quieten_flower
from wardround.common.flower.ray.isolation import surroundings_of_ray
from wardround.common.flower.site_grid import Run, SiteGrid, claim_identity
from wardround.common.runtime.system.files import short_temporary_folder
from wardround.common.runtime.system.signals import take_back_signals

if TYPE_CHECKING:
    from flwr.app import ConfigRecordValues
    from flwr.server.superlink.fleet.vce.backend.backend import BackendConfig

    from wardround.common.flower.ray.cluster import LastingPool

PARTITION_ID: str = _PARTITION_ID  # the key of a node's configuration that tells the nodes apart
POLL_SECONDS = 0.05  # short beside a round, long beside a look at a queue
STOP_SECONDS = 10.0  # Ray ends its actors within seconds or not at all
GIVE_UP_SECONDS = 60.0  # its start on a busy machine, which cannot be broken off
_TMP = short_temporary_folder()


@dataclass(frozen=True, slots=True)
class RayPlan:
    """What Ray is asked for.

    Attributes:
        sites: How many nodes Flower makes; their partition ids count from 0.
        cpus_per_site: CPUs that Ray reserves for one site's work; a fraction is possible.
        gpus_per_site: GPUs likewise: 0.25 lets four sites share one. Ray does not limit the memory.
        address: A running cluster; None starts Ray on this machine and stops it afterwards.
        cpus: CPUs that a Ray on this machine has.
        gpus: Its GPUs.
        paths: Absolute; what all machines of a cluster must see.
    """

    sites: int
    cpus_per_site: float = 1.0
    gpus_per_site: float = 0.0
    address: str | None = None
    cpus: int = 1
    gpus: int = 0
    paths: tuple[str, ...] = ()

    def backend(self, folder: str) -> "BackendConfig":
        """Return it as Flower's backend configuration.

        Args:
            folder: For the logs, sockets and overflowing memory of a Ray on this machine.
        """
        start: dict[str, ConfigRecordValues] = {
            "include_dashboard": False,
            "logging_level": logging.ERROR,
            "log_to_driver": False,
        }
        if self.address is not None:
            start["address"] = self.address
        else:
            start["address"], start["_temp_dir"] = "local", folder
            start["num_cpus"], start["num_gpus"] = self.cpus, self.gpus
        each: dict[str, ConfigRecordValues] = {
            "num_cpus": self.cpus_per_site,
            "num_gpus": self.gpus_per_site,
        }
        return {"init_args": start, "client_resources": each}


@contextmanager
def open_ray(client_app: ClientApp, plan: RayPlan) -> Iterator[Grid]:
    """Start the engine, give its Grid, and stop everything that was started.

    Args:
        client_app: Must be picklable; each call finds its node by ``node_config[PARTITION_ID]``.

    Raises:
        RunError: Ray does not start or ends early, or a machine does not see the plan's paths.
    """
    _require_reply(plan.address)
    with (
        quieten_flower(logging.ERROR),
        # Short, as a socket's path may have 107 letters; Ray itself would leave its logs behind.
        tempfile.TemporaryDirectory(prefix="ray-", dir=_TMP, ignore_cleanup_errors=True) as folder,
        surroundings_of_ray(folder if plan.address is None else None),
    ):
        engine = _Engine(client_app, plan, folder)
        try:
            grid = RayGrid(engine, plan.sites)
            if plan.address is not None:
                engine.wait_for_ray()
                _cluster().require_shared(plan.paths)
            yield grid
        finally:
            engine.stop()


class _Engine:
    """Flower's engine in a thread of its own."""

    def __init__(self, client_app: ClientApp, plan: RayPlan, folder: str) -> None:
        self._handover: Queue[Grid] = Queue()
        self._done = threading.Event()
        self._failure: BaseException | None = None
        self._pools: list[LastingPool] = []
        self._started = _remains().RayProcesses(folder) if plan.address is None else None
        arguments = (client_app, plan.sites, plan.backend(folder))
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._thread.start()

    def grid(self) -> Grid:
        """Return Flower's Grid as soon as it is there."""
        while True:
            self.check()
            try:
                return self._handover.get(timeout=POLL_SECONDS)
            except Empty:
                continue

    def check(self) -> None:
        """Refuse to wait for an engine that has ended.

        Raises:
            RunError: It has ended; says why.
        """
        take_back_signals()  # Ray has begun meanwhile, and taken them
        if self._thread.is_alive():
            return
        msg = (
            f"Ray does not run ({_first_line(self._failure)}). Lower --ray-cpus-per-site or "
            "--ray-gpus-per-site, check --ray-address, or use --engine pool."
        )
        raise RunError(msg)

    def wait_for_ray(self) -> None:
        """Wait until Flower has begun with Ray, which it does beside the ServerApp.

        Raises:
            RunError: It has ended.
        """
        import ray

        while not ray.is_initialized():
            self.check()
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End the ServerApp, and with it the engine; work in hand is given up after a while.

        Of a Ray that was started here no process is left, however it ends.
        """
        self._done.set()
        if self._started is not None:
            self._started.note()
        try:
            self._thread.join(STOP_SECONDS)
            until = time.monotonic() + GIVE_UP_SECONDS
            while self._thread.is_alive() and time.monotonic() < until:
                with quieten_flower(logging.CRITICAL):  # each site's work is an error to it now
                    self._give_up()
                    self._thread.join(STOP_SECONDS)
        finally:
            if self._started is not None:
                self._started.end()

    def _give_up(self) -> None:
        """End what the engine waits for: its actors, or a Ray that is only being started.

        Ray itself is left to the engine: under whoever waits for an actor, it would end without a
        word, and the wait would never.
        """
        import ray

        for pool in self._pools:
            pool.give_up()
        if self._started is not None and not ray.is_initialized():
            self._started.end()

    def _run(self, client_app: ClientApp, sites: int, backend: "BackendConfig") -> None:
        from flwr.simulation import run_simulation

        server_app = ServerApp()

        @server_app.main()
        def main(grid: Grid, context: Context) -> None:
            self._handover.put(grid)
            self._done.wait()

        try:
            with _cluster().lasting_actors() as self._pools:
                if self._done.is_set():  # its imports took longer than it was wanted
                    return
                run_simulation(server_app, client_app, sites, "ray", backend)
        except BaseException as error:  # told to whoever works with the grid, by check()
            self._failure = error


class RayGrid(SiteGrid):
    """Flower's Grid, which also says when its engine has ended instead of waiting for ever."""

    def __init__(self, engine: _Engine, sites: int) -> None:
        self._engine = engine
        self._sites = sites
        self._inner = engine.grid()
        super().__init__(self._inner.run)

    def set_run(self, run: Run) -> None:
        """Set the run this grid and Flower's own belong to."""
        super().set_run(run)
        self._inner.set_run(run)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message for a site."""
        # Another grid of this process (a baseline's) may have claimed the identity meanwhile.
        claim_identity(self.run.run_id)
        return super().create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the sites' node ids, once Flower has made all of them."""
        while True:
            nodes = list(self._inner.get_node_ids())
            if len(nodes) >= self._sites:
                return nodes
            self._engine.check()
            time.sleep(POLL_SECONDS)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue messages for the sites."""
        self._engine.check()
        return self._inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there; does not wait."""
        self._engine.check()
        return self._inner.pull_messages(message_ids)


def _cluster() -> ModuleType:
    """Return what needs Ray to be imported, which takes a second."""
    return importlib.import_module("wardround.common.flower.ray.cluster")


def _remains() -> ModuleType:
    """Return what looks for Ray's processes; imports Ray, too."""
    return importlib.import_module("wardround.common.flower.ray.remains")


def _require_reply(address: str | None) -> None:
    """Refuse at once an address that Ray would try for minutes.

    Raises:
        RunError: Nobody listens there.
    """
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        return  # "auto", or a form that Ray itself must judge
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=STOP_SECONDS).close()
    except (OSError, OverflowError):
        msg = (
            f"no Ray answers at {address}: check --ray-address, or leave it out to start one here."
        )
        raise RunError(msg) from None


def _first_line(error: BaseException | None) -> str:
    """Return the first line of what was wrong at the beginning."""
    if error is None:
        return "its engine has ended"
    first = root_cause(error)
    lines = str(first).strip().splitlines()
    return f"{type(first).__name__}: {lines[0]}" if lines else type(first).__name__
