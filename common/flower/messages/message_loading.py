"""The message in a parcel, once its size is known; nothing is allocated before.

Written against Flower 1.41;
``tests/unit/common/flower/supernode/test_message_files.py`` holds the contract.
"""

from pathlib import Path

from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import get_object_id

from wardround.common.errors import ModelError
from wardround.common.flower.messages.inflation import UNREADABLE, assemble
from wardround.common.flower.messages.message_file import MessageFile
from wardround.common.flower.messages.sizes import Sizes


def read_message(path: Path, limit: int, must_match: bool = False) -> Message:
    """Return the message in a file.

    Args:
        limit: The most bytes that its content may have in memory; nothing is allocated beyond it.
        must_match: Whether each object has to be what its name, a hash, says.

    Raises:
        ModelError: It is larger, or its objects do not make a message.
    """
    with MessageFile(path) as message_file:
        root = message_file.envelope.tree.object_id
        try:
            size = Sizes(message_file).of(root)
            if size > limit:
                msg = f"the message holds {size / 1e6:.3g} MB, and {limit / 1e6:g} MB are allowed."
                raise ModelError(msg)
            found = assemble(
                root, _Matching(message_file).content if must_match else message_file.content
            )
        except UNREADABLE as error:
            msg = f"the message cannot be read ({type(error).__name__}): update wardround."
            raise ModelError(msg) from None
    if not isinstance(found, Message):
        msg = "what was sent is no message: update wardround."
        raise ModelError(msg)
    found.metadata.__dict__["_message_id"] = root  # a message does not travel with its own id
    return found


class _Matching:
    """The objects of a parcel, each compared with its name."""

    def __init__(self, message_file: MessageFile) -> None:
        self._message_file = message_file

    def content(self, object_id: str) -> bytes:
        content = self._message_file.content(object_id)
        if get_object_id(content) != object_id:
            msg = "an object is not what its name says"
            raise ValueError(msg)
        return content
