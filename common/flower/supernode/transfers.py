"""Carrying messages between a SuperLink and a site's files, a few objects at a time.

Memory is bounded by those few objects, of 5 MB each, whatever a message holds.

Written against Flower 1.41; ``tests/unit/common/flower/supernode`` holds the contract.
"""

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Protocol, TypeVar

from flwr.app import Error
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import is_valid_sha256_hash
from flwr.supernode.fleet_http_client import FleetHttpClient

from wardround.common.flower.messages.envelope import Envelope, error_without_time
from wardround.common.flower.messages.message_file import MessageFile
from wardround.common.flower.messages.message_file_writer import MessageFileWriter
from wardround.common.flower.messages.prefetch import several

# A network has a few hundred tensors; a list without end must not fill the memory.
MOST_OBJECTS = 100_000
_OBJECT_WAIT_SECONDS, _OBJECT_PATIENCE = 0.1, 600
_PUSHES = 5  # each says again what the server lacks; a server that never keeps it is given up
_HEADS_BYTES = 2**20  # what may travel beside the arrays
_NO_SECONDS = 0.0  # Flower asks how long the work took, which tells how many patients there are

_Result = TypeVar("_Result")


class StoppedError(Exception):
    """The site was told to stop while it waited for the server."""


class TooLargeError(Exception):
    """A message holds more than may be taken in."""


class LostError(Exception):
    """The server no longer has what belongs to a message."""


class Insist(Protocol):
    """Asks the server until it answers."""

    def __call__(self, ask: Callable[[FleetHttpClient], _Result], /) -> _Result:
        """Return the reply."""


class Transfers:
    """What carries a node's messages.

    Args:
        node: Returns the node, as the server knows it.
        insist: Asks the server until it answers.
        stop: Ends the waiting for an object.
    """

    def __init__(self, node: Callable[[], Node], insist: Insist, stop: threading.Event) -> None:
        self._get_node = node
        self._insist = insist
        self._stop = stop

    @property
    def _node(self) -> Node:
        return self._get_node()

    def fetch(self, envelope: Envelope, path: Path, limit: int) -> None:
        """Write a message with all its objects to a file.

        What was fetched of it before this was interrupted, or this process killed, is not fetched
        again.

        Args:
            limit: The most bytes that it may have.

        Raises:
            TooLargeError: It has more; the rest is left with the server.
            LostError: The server has not got all of it.
            RunEndedError: The run is over.
            OSError: The disk is full, say.
        """
        writer = MessageFileWriter(path, envelope, goes_on=True)
        try:
            self._fetch_objects(envelope, writer, limit + _HEADS_BYTES)
            writer.finish()
        except (TooLargeError, OSError):
            writer.abandon()
            raise
        except BaseException:
            writer.leave()
            raise
        self.confirm(envelope)

    def confirm(self, envelope: Envelope) -> None:
        """Let the server drop what it kept of a message for this site."""
        request = ConfirmMessageReceivedRequest(
            node=self._node, run_id=envelope.run_id, message_object_id=envelope.message_id
        )
        self._insist(lambda client: client.ConfirmMessageReceived(request))

    def push(self, path: Path) -> None:
        """Send the reply in a file, without what the server has of it already.

        Raises:
            ModelError: The file is not whole.
            RunEndedError: The run is over.
            LostError: The server does not take it.
        """
        with MessageFile(path) as message_file:
            self._send(message_file.envelope, message_file.content)

    def excuse(self, envelope: Envelope) -> None:
        """Answer that a message did not arrive: the server sends it again if it still wants it."""
        self._send_error(envelope, ErrorCode.NODE_UNAVAILABLE, "away")

    def fail(self, envelope: Envelope, code: str) -> None:
        """Answer with a word, where not even a refusal can be written down."""
        self._send_error(envelope, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, code)

    def _send_error(self, envelope: Envelope, code: int, reason: str) -> None:
        reply = error_without_time(Error(code, reason), envelope.opened())
        reply.metadata.__dict__["_message_id"] = reply.object_id
        response = Envelope(message_to_proto(reply), ObjectTree(object_id=reply.object_id))
        self._send(response, lambda object_id: reply.deflate())

    def _send(self, envelope: Envelope, content: Callable[[str], bytes]) -> None:
        for _ in range(_PUSHES):
            if self._send_once(envelope, content):
                return
        msg = "the server does not keep the answer"
        raise LostError(msg)

    def _send_once(self, envelope: Envelope, content: Callable[[str], bytes]) -> bool:
        """Return whether the server has all of a reply; if not, it is offered again."""
        offer = PushMessagesRequest(
            node=self._node,
            messages_list=[envelope.message],
            message_object_trees=[envelope.tree],
            clientapp_runtime_list=[_NO_SECONDS],
        )
        response = self._insist(lambda client: client.PushMessages(offer))
        wanted = set(response.objects_to_push)

        def send(object_id: str) -> bool:
            request = PushObjectRequest(
                node=self._node,
                run_id=envelope.run_id,
                session_id=response.session_id,
                object_id=object_id,
                object_content=content(object_id),
            )
            return bool(self._insist(lambda client: client.PushObject(request)).stored)

        with closing(several(send, (one for one in envelope.object_ids if one in wanted))) as sent:
            return all(sent)

    def _fetch_objects(self, envelope: Envelope, writer: MessageFileWriter, limit: int) -> None:
        object_ids, total = envelope.object_ids, sum(writer.held.values())
        if len(object_ids) > MOST_OBJECTS or total > limit:
            raise TooLargeError
        missing = [one for one in object_ids if one not in writer.held]

        def fetch(object_id: str) -> tuple[str, bytes]:
            return object_id, self._fetch_object(envelope.run_id, object_id)

        with closing(several(fetch, missing)) as fetched:
            for object_id, content in fetched:
                total += len(content)
                if total > limit:
                    raise TooLargeError
                writer.add(object_id, content)

    def _fetch_object(self, run_id: int, object_id: str) -> bytes:
        """Return an object; one that is still on its way to the server is waited for."""
        if not is_valid_sha256_hash(object_id):
            msg = "an object without a valid name"
            raise LostError(msg)
        request = PullObjectRequest(node=self._node, run_id=run_id, object_id=object_id)
        for _ in range(_OBJECT_PATIENCE):
            response = self._insist(lambda client: client.PullObject(request))
            if response.object_available:
                return response.object_content
            if not response.object_found:
                break
            if self._stop.wait(_OBJECT_WAIT_SECONDS):
                raise StoppedError
        msg = "the server has not got an object of its message"
        raise LostError(msg)
