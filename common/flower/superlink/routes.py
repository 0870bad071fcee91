"""The calls of Flower's APIs that a link answers, each with the handler of Flower's that does it.

Nothing else exists: who is let through a gate and asks for another path finds none. Written against
Flower 1.41; ``tests/unit/common/flower/superlink/test_wire.py`` holds the contract.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SubStatus
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.run_pb2 import GetRunRequest
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    GetNodesRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushAppMessagesRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.servicer.runtime import runtime_handlers as core
from flwr.superlink.servicer.control import control_handlers as control
from flwr.superlink.servicer.fleet import fleet_handlers as fleet
from flwr.superlink.servicer.runtime import runtime_handlers as runtime

from wardround.common.flower.superlink.link_state import LinkState


class NotAllowedError(Exception):
    """The caller is not who the request speaks of."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an API.

    Attributes:
        request: What it is asked with.
        reply: Answers it, for a caller's number or task.
        held: Whether it waits for post: "" never, "always", or if it was "asked" to.
    """

    request: type[Any]
    reply: Callable[[Any, LinkState, Any], Any]
    held: Literal["", "always", "asked"] = ""


def _pull(request: PullMessagesRequest, state: LinkState, _: int) -> Any:
    return fleet.pull_messages(request, state, state.object_store)


def _push(request: PushMessagesRequest, state: LinkState, node_id: int) -> Any:
    """Take a site's reply, if it is in this site's own name."""
    if any(message.metadata.src_node_id != node_id for message in request.messages_list):
        raise NotAllowedError
    return fleet.push_messages(request, state)


def _get_run(request: GetRunRequest, state: LinkState, _: int) -> Any:
    """Return a run; one that has come to its end is told apart from one that fell.

    Of the latter is said what is said of a run that nobody knows: as with a link that was restarted
    its next process asks for the same, and sites do well to work on.
    """
    if state.get_run_status({request.run_id})[request.run_id].sub_status == SubStatus.FAILED:
        code = ApiErrorCode.FLEET_GET_RUN_FAILED
        raise FlowerError(code, f"run {request.run_id} has no process")
    return fleet.get_run(request, state)


def _confirm(request: ConfirmMessageReceivedRequest, state: LinkState, _: int) -> Any:
    return fleet.confirm_message_received(request, state, state.object_store)


def _start_run(request: StartRunRequest, state: LinkState, _: None) -> Any:
    return control.start_run(request, AccountInfo(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME), state, None)


# What a site needs. It is entered on the roll when it joins, and never enters itself; it fetches no
# code.
FLEET: Mapping[str, Call] = {
    "/v1/fleet/activate-node": Call(
        ActivateNodeRequest, lambda r, state, _: fleet.activate_node(r, state)
    ),
    "/v1/fleet/deactivate-node": Call(
        DeactivateNodeRequest, lambda r, state, _: fleet.deactivate_node(r, state)
    ),
    "/v1/fleet/send-node-heartbeat": Call(
        SendNodeHeartbeatRequest, lambda r, state, _: fleet.send_node_heartbeat(r, state)
    ),
    "/v1/fleet/pull-messages": Call(PullMessagesRequest, _pull, held="always"),
    "/v1/fleet/push-messages": Call(PushMessagesRequest, _push),
    "/v1/fleet/get-run": Call(GetRunRequest, _get_run),
    "/v1/fleet/push-object": Call(
        PushObjectRequest, lambda r, state, _: fleet.push_object(r, state)
    ),
    "/v1/fleet/pull-object": Call(
        PullObjectRequest, lambda r, state, _: fleet.pull_object(r, state)
    ),
    "/v1/fleet/confirm-message-received": Call(ConfirmMessageReceivedRequest, _confirm),
}
# What a study's process needs before it has a task, and with one.
START: Mapping[str, Call] = {
    "/v1/control/start-run": Call(StartRunRequest, _start_run),
    "/v1/runtime/acquire-task": Call(
        AcquireTaskRequest, lambda r, state, _: runtime.acquire_task(r, state)
    ),
}
TASK: Mapping[str, Call] = {
    "/v1/runtime/pull-task-input": Call(PullTaskInputRequest, runtime.pull_task_input),
    "/v1/runtime/push-task-output": Call(PushTaskOutputRequest, runtime.push_task_output),
    "/v1/runtime/send-task-heartbeat": Call(SendTaskHeartbeatRequest, core.send_task_heartbeat),
    "/v1/runtime/get-nodes": Call(GetNodesRequest, runtime.get_nodes),
    "/v1/runtime/push-messages": Call(PushAppMessagesRequest, runtime.push_messages),
    "/v1/runtime/pull-messages": Call(PullAppMessagesRequest, runtime.pull_messages, held="asked"),
    "/v1/runtime/push-object": Call(PushObjectRequest, runtime.push_object),
    "/v1/runtime/pull-object": Call(PullObjectRequest, runtime.pull_object),
    "/v1/runtime/confirm-message-received": Call(
        ConfirmMessageReceivedRequest, runtime.confirm_message_received
    ),
}
