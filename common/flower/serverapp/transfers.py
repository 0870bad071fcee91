"""A study's messages to its link and back, a few objects at a time.

Flower's grid writes all of a message's objects before it sends the first, and holds all of an
answer's until it is made. Beside the model that is sent or received, this holds a few objects.

Written against Flower 1.41;
``tests/unit/common/flower/serverapp/test_transfers.py`` holds the contract.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from flwr.app import Error, Message
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PushAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError
from flwr.supercore.runtime import RuntimeHttpClient

from wardround.common.flower.messages.inflation import UNREADABLE, assemble
from wardround.common.flower.messages.prefetch import several


class Transfers:
    """The objects of a study's messages.

    Args:
        client: Of the link's Runtime API; threads share it.
        node: Who the study is, to Flower.
    """

    def __init__(self, client: RuntimeHttpClient, node: Node, run_id: int) -> None:
        self._client, self._node, self._run_id = client, node, run_id

    def push(self, messages: Sequence[Message]) -> list[str]:
        """Send messages, each object that they share once; return their ids, "" for one refused.

        Raises:
            ObjectPushError: The link did not keep an object.
        """
        objects: dict[str, InflatableObject] = {}
        for message in messages:
            objects |= get_all_nested_objects(message)
        offer = PushAppMessagesRequest(
            messages_list=[message_to_proto(remove_content_from_message(one)) for one in messages],
            message_object_trees=[get_object_tree(one) for one in messages],
        )
        reply = self._client.PushMessages(offer)
        wanted = set(reply.objects_to_push)
        requests = (
            PushObjectRequest(
                node=self._node,
                run_id=self._run_id,
                session_id=reply.session_id,
                object_id=object_id,
                object_content=item.deflate(),
            )
            for object_id, item in objects.items()
            if object_id in wanted
        )
        with closing(several(self._push_object, requests)) as pushed:
            for _ in pushed:
                pass
        return list(reply.message_ids)

    def pull(self, outline: ProtoMessage, tree: ObjectTree) -> Message:
        """Return a message; one whose objects are lost, or make none, as an error."""
        message_id, found = str(outline.metadata.message_id), message_from_proto(outline)
        try:
            with closing(several(self._pull_object, _before_their_parts(tree))) as coming:
                made = assemble(message_id, _InOrder(coming, self._pull_object))
            if not isinstance(made, Message):
                raise TypeError
            found = made
        except ObjectPullError:
            error = Error(ErrorCode.MESSAGE_UNAVAILABLE, "the link has lost a part of the answer")
            found = make_message(metadata=found.metadata, error=error)
        except UNREADABLE:
            error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "an answer that cannot be read")
            found = make_message(metadata=found.metadata, error=error)
        self._client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._node, run_id=self._run_id, message_object_id=message_id
            )
        )
        found.metadata.__dict__["_message_id"] = message_id
        return found

    def _push_object(self, request: PushObjectRequest) -> None:
        if not self._client.PushObject(request).stored:
            raise ObjectPushError(request.object_id, self._run_id, request.session_id)

    def _pull_object(self, object_id: str) -> tuple[str, bytes]:
        request = PullObjectRequest(node=self._node, run_id=self._run_id, object_id=object_id)
        reply = self._client.PullObject(request)
        if not reply.object_available:
            raise ObjectPullError(object_id, "the link has not got it")
        return object_id, reply.object_content


class _InOrder:
    """Hands out objects that were asked for ahead; one that is needed again is asked for again."""

    def __init__(
        self, coming: Iterator[tuple[str, bytes]], ask: Callable[[str], tuple[str, bytes]]
    ) -> None:
        self._coming, self._ask = coming, ask
        self._next: tuple[str, bytes] | None = None

    def __call__(self, object_id: str) -> bytes:
        following = self._next or next(self._coming, None)
        if following is not None and following[0] == object_id:
            self._next = None
            return following[1]
        self._next = following
        return self._ask(object_id)[1]


def _before_their_parts(tree: ObjectTree) -> list[str]:
    """Return the ids of a message's objects, each once, in the order in which it is made."""

    def walk(node: ObjectTree) -> Iterator[str]:
        yield node.object_id
        for child in node.children:
            yield from walk(child)

    return list(dict.fromkeys(walk(tree)))
