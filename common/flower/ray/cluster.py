"""A cluster of machines: one that goes takes no site with it, and all must see the same files.

Flower gives an actor that has died back to its pool, where it fails whatever it is given next, and
the round goes on without those sites. Here its work is done again by another actor: the model is
the one that it would have been. Written against Flower 1.41; the contracts are in
``tests/unit/common/flower/ray/test_cluster.py``.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import ray
from flwr.app import Context, Message
from flwr.server.superlink.fleet.vce.backend import raybackend
from flwr.simulation.ray_transport.ray_actor import BasicActorPool
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from wardround.common.errors import RunError

logger = logging.getLogger(__name__)
_LOOK_SECONDS = 0.05
_PATIENCE_SECONDS = 60.0  # for a machine to say what it sees; its first worker takes some seconds
_POOL = "BasicActorPool"
_NOBODY = "no machine of the Ray cluster is left that could work for it"
# Of an actor, a future and a job Flower and Ray say no more themselves.
_Job: TypeAlias = tuple[Any, Message, str, Context]


@contextmanager
def lasting_actors() -> Iterator[list["LastingPool"]]:
    """Have Flower's engine use a pool that does without an actor that has died.

    Yields:
        The pools that it has made.
    """
    made: list[LastingPool] = []

    def make(*words: Any, **named: Any) -> LastingPool:
        made.append(LastingPool(*words, **named))
        return made[-1]

    before = getattr(raybackend, _POOL)
    setattr(raybackend, _POOL, make)
    try:
        yield made
    finally:
        setattr(raybackend, _POOL, before)


class LastingPool(BasicActorPool):
    """Flower's pool of actors, less those whose machine or process has gone."""

    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self._jobs: dict[Any, tuple[Callable[..., Any], _Job]] = {}

    def submit(self, actor_fn: Callable[..., Any], job: _Job) -> Any:
        """Give a job to the next actor that is idle, and return its future.

        Raises:
            RunError: No actor is left.
        """
        actor = self._idle_actor()
        future = actor_fn(actor, *job)
        self._future_to_actor[future] = actor
        self._jobs[future] = (actor_fn, job)
        return future

    def fetch_result_and_return_actor_to_pool(self, future: Any) -> tuple[Message, Context]:
        """Wait for a job; where its actor dies, another one does it.

        Raises:
            RunError: No actor is left.
        """
        while True:
            try:
                _, reply, context = ray.get(future)
            except RayActorError:
                future = self._submit_elsewhere(future)
                continue
            except BaseException:
                self.add_actor_back_to_pool(future)
                raise
            self.add_actor_back_to_pool(future)
            return reply, context

    def add_actor_back_to_pool(self, future: Any) -> None:
        """Let an actor have its next job; one that has it already, or has died, is passed over."""
        self._jobs.pop(future, None)
        actor = self._future_to_actor.pop(future, None)
        if actor is not None:
            self.pool.append(actor)

    def give_up(self) -> None:
        """End all actors, so that nobody waits for what they have in hand."""
        self.num_actors = 0
        held: list[Any] = [*self.pool, *self._future_to_actor.values()]
        for actor in held:
            with suppress(RayError, ValueError):
                ray.kill(actor)

    def _submit_elsewhere(self, future: Any) -> Any:
        lost: Any = self._future_to_actor.pop(future)  # Flower types its class, not Ray's handle
        actor_fn, job = self._jobs.pop(future)
        if self.num_actors == 0:
            raise RunError(_NOBODY)
        self.num_actors -= 1
        logger.warning(
            "a process of the Ray cluster has gone, or its machine: the others do its work again, "
            "actors left=%d",
            self.num_actors,
        )
        with suppress(RayError, ValueError):
            ray.kill(lost)  # it may be there, and only out of reach
        return self.submit(actor_fn, job)

    def _idle_actor(self) -> Any:
        while self.num_actors > 0:
            with suppress(IndexError):
                return self.pool.pop()
            time.sleep(_LOOK_SECONDS)
        raise RunError(_NOBODY)


def require_shared(paths: Sequence[str]) -> None:
    """Refuse a cluster in which a machine does not see what the sites are made of.

    Args:
        paths: Absolute.

    Raises:
        RunError: A machine does not see one of them, or does not answer.
    """
    known = ray.nodes()  # type: ignore[no-untyped-call] # Ray gives it no type
    nodes = [node for node in known if node["Alive"]]
    look = ray.remote(num_cpus=0)(_unseen)
    asked = {
        look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(list(paths)): str(node["NodeManagerAddress"])
        for node in nodes
    }
    for answer, address in asked.items():
        try:
            unseen = ray.get(answer, timeout=_PATIENCE_SECONDS)
        except RayError as error:
            msg = (
                f"the machine {address} of the Ray cluster cannot work ({type(error).__name__}): "
                "install the same wardround there, or take it out of the cluster."
            )
            raise RunError(msg) from None
        if unseen:
            msg = (
                f"the machine {address} of the Ray cluster does not see {unseen[0]}: keep the run "
                "folder and the data on a disk that all machines see under the same path."
            )
            raise RunError(msg)


def _unseen(paths: list[str]) -> list[str]:
    return [path for path in paths if not os.path.exists(path)]
