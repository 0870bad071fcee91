"""Flower's own simulation engine on Ray, with its Grid handed to the caller.

Flower calls the ServerApp itself, in a thread beside its engine. The ServerApp that it gets here
only hands its Grid over and waits: whoever opened the engine then works with that Grid as with any
other, for as long as needed, and the actors keep their sites warm in between.

Written against Flower 1.41 and Ray 2.55: ``run_simulation`` is deprecated there, but it is the one
way that takes both apps as objects and runs in this process. Each assumption has a contract test in
``tests/unit/test_ray_runtime.py``.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, Queue
from typing import TYPE_CHECKING

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import PARTITION_ID_KEY as _PARTITION_ID
from flwr.serverapp import Grid, ServerApp

from wardround.common.errors import RunError
from wardround.common.flower.local import Run, claim_identity

if TYPE_CHECKING:
    from flwr.app import ConfigRecordValues
    from flwr.server.superlink.fleet.vce.backend.backend import BackendConfig

PARTITION_ID: str = _PARTITION_ID  # the key of a node's configuration that tells the nodes apart
POLL_SECONDS = 0.05
STOP_SECONDS = 10.0

# Ray's dashboard process, started even with include_dashboard=False, asks the clouds' metadata
# addresses over plain HTTP where it runs, and has no setting against it: Ray's own processes on
# this machine get a proxy that nobody answers at. Their own talk is gRPC on the loopback.
_NOBODY = "http://127.0.0.1:9"
_QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}  # else Ray warns of its own future
NO_LOOKUPS = {"http_proxy": _NOBODY, "no_proxy": "localhost,127.0.0.1"}


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
    """

    sites: int
    cpus_per_site: float = 1.0
    gpus_per_site: float = 0.0
    address: str | None = None
    cpus: int = 1
    gpus: int = 0

    def backend(self) -> "BackendConfig":
        """Return it as Flower's backend configuration."""
        start: dict[str, ConfigRecordValues] = {
            "include_dashboard": False,
            "logging_level": logging.ERROR,
            "log_to_driver": False,
        }
        if self.address is not None:
            start["address"] = self.address
        else:
            # On the loopback address Ray listens to this machine only, and does not try 8.8.8.8.
            start["address"], start["_node_ip_address"] = "local", "127.0.0.1"
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
        RunError: Ray does not start, or ends early.
    """
    with _environment(_QUIET if plan.address else _QUIET | NO_LOOKUPS), _silence():
        engine = _Engine(client_app, plan)
        try:
            yield RayGrid(engine, plan.sites)
        finally:
            engine.stop()


class _Engine:
    """Flower's engine in a thread of its own."""

    def __init__(self, client_app: ClientApp, plan: RayPlan) -> None:
        self._handover: Queue[Grid] = Queue()
        self._done = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(client_app, plan), daemon=True)
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
        """Refuse to wait for an engine that has ended."""
        if self._thread.is_alive():
            return
        msg = (
            f"Ray does not run ({_root(self._failure)}). Lower --ray-cpus-per-site or "
            "--ray-gpus-per-site, check --ray-address, or use --engine pool."
        )
        raise RunError(msg)

    def stop(self) -> None:
        """End the ServerApp, and with it the engine; work in hand is given up after a while."""
        self._done.set()
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            import ray

            ray.shutdown()
            self._thread.join(STOP_SECONDS)

    def _run(self, client_app: ClientApp, plan: RayPlan) -> None:
        from flwr.simulation import run_simulation

        server_app = ServerApp()

        @server_app.main()
        def main(grid: Grid, context: Context) -> None:
            self._handover.put(grid)
            self._done.wait()

        try:
            run_simulation(server_app, client_app, plan.sites, "ray", plan.backend())
        except BaseException as error:  # told to whoever works with the grid, by check()
            self._failure = error


class RayGrid(Grid):
    """Flower's Grid, which also says when its engine has ended instead of waiting for ever."""

    def __init__(self, engine: _Engine, sites: int) -> None:
        self._engine = engine
        self._sites = sites
        self._inner = engine.grid()

    def set_run(self, run: Run) -> None:
        """Set the run this grid belongs to."""
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        """The run this grid belongs to."""
        return self._inner.run

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
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

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
        """Return the answers that are there; does not wait."""
        self._engine.check()
        return self._inner.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull until all have answered or the time is over."""
        self._engine.check()
        return self._inner.send_and_receive(messages, timeout=timeout)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for the processes that Ray starts, and leave none of them behind."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in (*values, "PYTHONPATH"):  # Flower writes the latter
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


@contextmanager
def _silence() -> Iterator[None]:
    """Let Flower say nothing but errors: its progress is told by our own events."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _root(error: BaseException | None) -> str:
    """Return the first line of what was wrong at the beginning."""
    if error is None:
        return "its engine has ended"
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
