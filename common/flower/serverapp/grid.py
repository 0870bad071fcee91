"""A study's process as Flower's ServerApp process: a run, its task, and the grid to its sites.

It talks to the inner listener of a link.

Written against Flower 1.41; ``tests/unit/common/flower/superlink/test_grid.py`` holds the contract.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import httpx
from flwr.app import Context, Message, RecordDict
from flwr.common.constant import SubStatus
from flwr.common.serde import (
    context_from_proto,
    fab_to_proto,
    run_from_proto,
    user_config_to_proto,
)
from flwr.proto.control_pb2 import StartRunRequest
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
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from wardround.common.errors import RunError
from wardround.common.files.lock import held_alone
from wardround.common.flower.app_bundle import RUN_KEY, STUDY_KEY, bundle, bundle_hash
from wardround.common.flower.serverapp.link_client import (
    Entrance,
    Holding,
    LinkLostError,
    Persistence,
    make_client,
)
from wardround.common.flower.serverapp.transfers import Transfers

__all__ = ["Entrance", "LinkGrid", "LinkLostError", "open_run"]
_LOOK_SECONDS = 0.2  # the link itself waits for a reply; this only spaces two calls
_HEARTBEAT_SECONDS = 10.0  # well within the time after which Flower takes a silent study for dead


class LinkGrid(HttpGrid):
    """Flower's grid over HTTP, which says when the link has gone."""

    def __init__(self, entrance: Entrance, token: str) -> None:
        super().__init__(entrance.host_and_port, insecure=True, token=token)
        self._entrance = entrance
        self._holding = Holding()
        self._asked: list[str] = []
        self._retry_invoker = Persistence(entrance)  # type: ignore[assignment] # its invoke() alone is used

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message for a site."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the answers that are there.

        Asked for the same ones again it waits a moment for them, so that who waits for an answer
        need not ask so often, and who only looks is not kept.
        """
        asked = list(message_ids)
        self._holding.is_wanted, self._asked = asked == self._asked, asked
        response = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=asked))
        pairs = zip(response.messages_list, response.message_object_trees, strict=True)
        return [self._post.pull(outline, tree) for outline, tree in pairs]

    def site_names(self) -> dict[int, str]:
        """Return the connected sites by node, under the names that the server has for them."""
        response = self._runtime_client.GetNodes(GetNodesRequest())
        return {node.node_id: node.name for node in response.nodes}

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull until all have answered or the time is over."""
        until = None if timeout is None else time.monotonic() + timeout
        waiting, replies = set(self.push_messages(list(messages))), list[Message]()
        while waiting and (until is None or time.monotonic() < until):
            for reply in self.pull_messages(waiting):
                replies.append(reply)
                waiting.discard(reply.metadata.reply_to_message_id)
            time.sleep(_LOOK_SECONDS)
        return replies

    def beat(self) -> None:
        """Tell the link that this process is alive; a link that is gone is noticed elsewhere."""
        with suppress(httpx.HTTPError, LinkLostError, RunError):
            self._runtime_client.SendTaskHeartbeat(SendTaskHeartbeatRequest())

    def begin(self) -> Context:
        """Take the run up: from here on this process is its server."""
        given = self._runtime_client.PullTaskInput(PullTaskInputRequest())
        context = context_from_proto(given.context)
        TaskIdentity.task_id = given.task_id
        TaskIdentity.run_id = given.run.run_id
        TaskIdentity.node_id = context.node_id
        self.set_run(run_from_proto(given.run))
        return context

    def finish(self, succeeded: bool) -> None:
        """End the run; the link forgets all of it."""
        status = SubStatus.COMPLETED if succeeded else SubStatus.FAILED
        with suppress(httpx.HTTPError, LinkLostError, RunError):
            self._runtime_client.PushTaskOutput(PushTaskOutputRequest(sub_status=status))
        self.close()

    @property
    def _post(self) -> Transfers:
        return Transfers(self._runtime_client, self.node, self.run.run_id)

    def _try_push_messages(self, run_id: int, messages: Iterable[Message]) -> list[str]:
        return self._post.push(list(messages))

    def _connect(self) -> None:
        self._client = make_client(
            RuntimeHttpClient,
            self._entrance,
            [RuntimeTokenHttpInterceptor(self._token), self._holding],
        )


@contextmanager
def open_run(entrance: Entrance, study_json: str, name: str) -> Iterator[tuple[LinkGrid, Context]]:
    """Open a run with a link, and close it at the end.

    Args:
        study_json: What sites read of the study.
        name: Of the run; another run of this name that is open with the link is closed.

    Raises:
        LinkLostError: The link has gone.
        RunError: The link is there and does not do what is asked.
    """
    with held_alone(entrance.lock_path):
        run_id = _start(entrance, study_json, name)
        grid = LinkGrid(entrance, _acquire(entrance, run_id))
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(grid, stop), daemon=True)
    succeeded = False
    try:
        context = grid.begin()
        heart.start()
        yield grid, context
        succeeded = True
    finally:
        stop.set()
        grid.finish(succeeded)


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
