"""A study's process as Flower's ServerApp process: a run, its task, and the grid to its sites.

It talks to the inner listener of a link.

Written against Flower 1.41; ``tests/unit/common/flower/superlink/test_grid.py`` holds the contract.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import httpx
from flwr.app import Context, Message
from flwr.common.constant import SubStatus
from flwr.common.serde import (
    context_from_proto,
    fab_to_proto,
    run_from_proto,
    user_config_to_proto,
)
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    GetNodesRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import no_object_id_recompute
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from wardround.common.errors import RunError, WardroundError
from wardround.common.files.lock import held_alone
from wardround.common.flower.app_bundle import RUN_KEY, STUDY_KEY, bundle, bundle_hash
from wardround.common.flower.serverapp.link_client import (
    Entrance,
    Holding,
    LinkLostError,
    make_client,
)
from wardround.common.flower.serverapp.transfers import Transfers
from wardround.common.flower.site_grid import SUPERLINK_NODE_ID, SiteGrid, empty_run, stamp

__all__ = ["Entrance", "LinkGrid", "LinkLostError", "open_run"]
_HEARTBEAT_SECONDS = 10.0  # well within the time after which Flower takes a silent study for dead


class LinkGrid(SiteGrid):
    """A study's end of a link: sends and pulls over HTTP, and says when the link has gone."""

    def __init__(self, entrance: Entrance, token: str) -> None:
        super().__init__(empty_run(0))
        self._holding = Holding()
        self._asked: list[str] = []
        self._client = make_client(
            RuntimeHttpClient,
            entrance,
            [RuntimeTokenHttpInterceptor(token), self._holding],
        )

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids of the connected sites."""
        return list(self.site_names())

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; return their ids, "" for one that the link refused."""
        listed = list(messages)
        with no_object_id_recompute():
            for message in listed:
                stamp(message, message.object_id)
            return self._transfers.push(listed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there.

        Asked for the same ones again it waits a moment for them, so that who waits for a reply
        need not ask so often, and who only looks is not kept.
        """
        asked = list(message_ids)
        self._holding.is_wanted, self._asked = asked == self._asked, asked
        response = self._client.PullMessages(PullAppMessagesRequest(message_ids=asked))
        pairs = zip(response.messages_list, response.message_object_trees, strict=True)
        return [self._transfers.pull(outline, tree) for outline, tree in pairs]

    def site_names(self) -> dict[int, str]:
        """Return the connected sites by node, under the names that the server has for them."""
        response = self._client.GetNodes(GetNodesRequest())
        return {node.node_id: node.name for node in response.nodes}

    def beat(self) -> None:
        """Tell the link that this process is alive; a link that is gone is noticed elsewhere."""
        with suppress(httpx.HTTPError, LinkLostError, RunError):
            self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest())

    def begin(self) -> Context:
        """Take the run up: from here on this process is its server."""
        given = self._client.PullTaskInput(PullTaskInputRequest())
        context = context_from_proto(given.context)
        TaskIdentity.task_id = given.task_id
        TaskIdentity.run_id = given.run.run_id
        TaskIdentity.node_id = context.node_id
        self.set_run(run_from_proto(given.run))
        return context

    def finish(self, status: str) -> None:
        """End the run, as a sub-status of Flower's has it; the link forgets all of it."""
        with suppress(httpx.HTTPError, LinkLostError, RunError):
            self._client.PushTaskOutput(PushTaskOutputRequest(sub_status=status))
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @property
    def _transfers(self) -> Transfers:
        return Transfers(self._client, Node(node_id=SUPERLINK_NODE_ID), self.run.run_id)


@contextmanager
def open_run(
    entrance: Entrance, study_json: str, name: str, is_withdrawn: Callable[[], bool] = lambda: False
) -> Iterator[tuple[LinkGrid, Context]]:
    """Open a run with a link, and close it at the end.

    Sites leave what they are at for a run that has come to its end. For one that only fell they
    work on: the process that takes it up asks for the same.

    Args:
        study_json: What sites read of the study.
        name: Of the run; another run of this name that is open with the link is closed.
        is_withdrawn: Whether nobody will take the run up, asked where its work was cut short.

    Raises:
        LinkLostError: The link has gone.
        RunError: The link is there and does not do what is asked.
    """
    with held_alone(entrance.lock_path):
        run_id = _start(entrance, study_json, name)
        grid = LinkGrid(entrance, _acquire(entrance, run_id))
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(grid, stop), daemon=True)
    status = SubStatus.FAILED
    try:
        context = grid.begin()
        heart.start()
        yield grid, context
        status = SubStatus.COMPLETED
    except WardroundError:
        status = SubStatus.STOPPED  # it cannot go on
        raise
    except KeyboardInterrupt:
        status = SubStatus.STOPPED if is_withdrawn() else SubStatus.FAILED
        raise
    finally:
        stop.set()
        grid.finish(status)


def _start(entrance: Entrance, study_json: str, name: str) -> int:
    request = StartRunRequest(
        fab=fab_to_proto(Fab(bundle_hash(), bundle(), {})),
        override_config=user_config_to_proto({STUDY_KEY: study_json, RUN_KEY: name}),
    )
    with make_client(ControlHttpClient, entrance, []) as client:
        run_id: int = client.StartRun(request).run_id
    return run_id


def _acquire(entrance: Entrance, run_id: int) -> str:
    with make_client(RuntimeHttpClient, entrance, []) as client:
        while True:
            request = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
            response = client.AcquireTask(request)
            if not response.HasField("task"):
                msg = "the link gives no task for a run that it has started: restart the server."
                raise RunError(msg)
            if response.task.run_id == run_id:
                token: str = response.token
                return token
            # It is of a process that was killed between two calls: nobody else waits for it.


def _beat(grid: LinkGrid, stop: threading.Event) -> None:
    while not stop.wait(_HEARTBEAT_SECONDS):
        grid.beat()
