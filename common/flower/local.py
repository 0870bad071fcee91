"""What a Grid needs that runs without a SuperLink: identities that Flower's messages ask for.

Written against Flower 1.41; each function has a contract test:
``tests/unit/common/flower/test_fence.py``.
"""

from flwr.app import Error, Message, Metadata, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID as _SUPERLINK
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SUPERLINK_NODE_ID: int = _SUPERLINK

__all__ = [
    "SUPERLINK_NODE_ID",
    "MessageNumbers",
    "Run",
    "begin_local_run",
    "claim_identity",
    "empty_run",
    "rebuild",
    "stamp",
]


def claim_identity(run_id: int) -> None:
    """Let this process make messages as the server of a run; without it ``Message()`` raises."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def empty_run(run_id: int) -> Run:
    """Return the Run object of a run that no SuperLink knows."""
    return Run.create_empty(run_id)


def begin_local_run(run_id: int) -> Run:
    """Let this process make messages as the server of a run that no SuperLink knows."""
    claim_identity(run_id)
    return empty_run(run_id)


class MessageNumbers:
    """Gives messages their ids, which a SuperLink would: "message-1", "message-2", ..."""

    def __init__(self) -> None:
        self._given = 0

    def give(self, message: Message) -> str:
        """Give a message the next id and return it."""
        self._given += 1
        message_id = f"message-{self._given}"
        stamp(message, message_id)
        return message_id


def stamp(message: Message, message_id: str) -> None:
    """Give a message its id, which a SuperLink would."""
    message.metadata.__dict__["_message_id"] = message_id


def rebuild(metadata: Metadata, content: RecordDict | None, error: Error | None) -> Message:
    """Return the message that had this metadata, on the other side of a pipe."""
    return Message(content=content, error=error, metadata=metadata)  # type: ignore[call-overload,no-any-return] # Flower's own, undeclared way
