"""What every Grid of ours has in common: its run, its messages, and waiting for replies.

A Grid is Flower's word for the server's way to its sites. Flower's own Grids warn of their own
future, sleep three seconds between two looks, and differ in small things; ours derive from the one
class here, and each adds only how messages reach its sites. A Grid that runs without a SuperLink
takes from here the identities that Flower's messages ask for, too.

Written against Flower 1.41; ``test_site_grid.py`` and ``test_fence.py`` in
``tests/unit/common/flower`` hold the contract.
"""

import time
from abc import abstractmethod
from collections.abc import Iterable

from flwr.app import Error, Message, Metadata, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID as _SUPERLINK
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SUPERLINK_NODE_ID: int = _SUPERLINK
LOOK_SECONDS = 0.05  # between two looks for replies, where nothing has arrived

__all__ = [
    "LOOK_SECONDS",
    "SUPERLINK_NODE_ID",
    "MessageNumbers",
    "PassingGrid",
    "Run",
    "SiteGrid",
    "begin_local_run",
    "claim_identity",
    "empty_run",
    "rebuild",
    "stamp",
]


class SiteGrid(Grid):
    """A Grid of one run.

    Whoever derives from it says which nodes there are (``get_node_ids``), how messages are sent
    (``push_messages``) and which replies are there (``pull_messages``).
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def set_run(self, run: Run) -> None:
        """Set the run this grid belongs to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run this grid belongs to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message for a site.

        Args:
            ttl: Seconds for which the message and its reply are valid; None takes Flower's value.
        """
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    @abstractmethod
    def get_node_ids(self) -> Iterable[int]:
        """Return the sites' node ids."""

    @abstractmethod
    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages to their sites; return their ids, by which replies are asked for."""

    @abstractmethod
    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages that are there."""

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull until all have replied or the time is over.

        Args:
            timeout: Seconds; None waits for all replies.
        """
        until = None if timeout is None else time.monotonic() + timeout
        waiting, replies = list(self.push_messages(list(messages))), list[Message]()
        while waiting and (until is None or time.monotonic() < until):
            arrived = list(self.pull_messages(waiting))
            replies.extend(arrived)
            answered = {reply.metadata.reply_to_message_id for reply in arrived}
            waiting = [message_id for message_id in waiting if message_id not in answered]
            if not arrived:
                time.sleep(LOOK_SECONDS)
        return replies

    def close(self) -> None:
        """Free what the grid holds."""


class PassingGrid(SiteGrid):
    """A Grid over another one, to which it passes everything on.

    Whoever derives from it adds what it notes or changes on the way.
    """

    def __init__(self, grid: SiteGrid) -> None:
        super().__init__(grid.run)
        self._grid = grid

    def set_run(self, run: Run) -> None:
        """Set the run this grid belongs to."""
        self._grid.set_run(run)

    def get_node_ids(self) -> Iterable[int]:
        """Return the sites' node ids."""
        return self._grid.get_node_ids()

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message for a site."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages to their sites; return their ids, by which replies are asked for."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages that are there."""
        return self._grid.pull_messages(message_ids)

    def close(self) -> None:
        """Free what the grid holds."""
        self._grid.close()


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
