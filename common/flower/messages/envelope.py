"""What a Flower message says of itself, without its content.

Written against Flower 1.41;
``tests/unit/common/flower/supernode/test_message_files.py`` holds the contract.
"""

from dataclasses import dataclass

from flwr.app import Error, Message
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

from wardround.common.runtime.printable import is_plain

_LONGEST_WORD = 256  # characters


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a message says of itself, without its content.

    Attributes:
        message: Its metadata, and its error where it carries one.
        tree: Which objects its content is made of.
    """

    message: ProtoMessage
    tree: ObjectTree

    @property
    def message_id(self) -> str:
        """The message's id."""
        return str(self.message.metadata.message_id)

    @property
    def run_id(self) -> int:
        """Flower's number of the run; not the run of an instruction."""
        return int(self.message.metadata.run_id)

    @property
    def kind(self) -> str:
        """What is asked, e.g. "train"."""
        return str(self.message.metadata.message_type)

    @property
    def group(self) -> str:
        """How the server calls the messages that belong together, e.g. "round 3"."""
        return str(self.message.metadata.group_id)

    @property
    def is_plain(self) -> bool:
        """Whether kind and group are short words that a screen shows as they are."""
        words = self.kind, self.group
        return all(len(word) <= _LONGEST_WORD and is_plain(word) for word in words)

    @property
    def object_ids(self) -> list[str]:
        """The ids of its objects, each once, in the order in which they travel."""
        return list(dict.fromkeys(tree.object_id for tree in iterate_object_tree(self.tree)))

    def opened(self) -> Message:
        """Return the message with no content in it, for a reply to refer to."""
        return message_from_proto(self.message)


def without_time(reply: Message, asked: Message) -> Message:
    """Return a reply that does not say when it was made.

    Flower dates each message to the microsecond. From the date of a reply the server reads how long
    its site worked, and from that how many patients there are. Here a reply has the date of the
    message that it answers, and expires with it.
    """
    reply.metadata.__dict__["_created_at"] = asked.metadata.created_at
    reply.metadata.ttl = asked.metadata.ttl
    return reply


def error_without_time(error: Error, asked: Message) -> Message:
    """Return the reply that something went wrong, which does not say when."""
    return without_time(Message(error, reply_to=asked), asked)
