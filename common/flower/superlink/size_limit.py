"""No reply is handed to a study that would take far more of its memory than the instruction did.

Written against Flower 1.41;
``tests/unit/common/flower/superlink/test_size_limits.py`` holds the contract.
"""

from flwr.app import Error, Message
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.server.superlink.linkstate.utils import create_message_error_unavailable_res_message

from wardround.common.flower.messages.inflation import UNREADABLE
from wardround.common.flower.messages.sizes import Sizes
from wardround.common.flower.superlink.object_store import DiskObjectStore

# How large a reply may be: so many times its instruction, and some more.
_SPARE_BYTES, _BYTES_A_BYTE = 16 * 2**20, 4
_REASON = "its answer is far larger than its order, or cannot be read: it is not taken in"


class SizeRule:
    """Measures what has come, without making a message of it.

    Args:
        disk_store: Keeps the parts of messages.
    """

    def __init__(self, disk_store: DiskObjectStore) -> None:
        self._disk_store = disk_store
        self._instructions: dict[str, int] = {}  # how large each is once it is in memory
        self._refused: dict[str, str] = {}  # answers, by their orders

    def note_instruction(self, instruction_id: str) -> None:
        """Note how large an instruction is, while all of it is there."""
        if instruction_id not in self._instructions:
            self._instructions[instruction_id] = self._size_of(instruction_id) or 0

    def refuses(self, instruction_id: str, reply_id: str) -> bool:
        """Whether a reply, all of which is there, is too large; or makes no message at all."""
        size = self._size_of(reply_id)
        most = _SPARE_BYTES + _BYTES_A_BYTE * self._instructions.get(instruction_id, 0)
        if size is not None and size <= most:
            return False
        self._refused[instruction_id] = reply_id
        return True

    def forget(self, instruction_id: str) -> None:
        """Remove what is kept of an instruction, with a reply that nobody will fetch."""
        self._instructions.pop(instruction_id, None)
        reply_id = self._refused.pop(instruction_id, None)
        if reply_id is not None:
            self._disk_store.delete(reply_id)

    def _size_of(self, message_id: str) -> int | None:
        try:
            return Sizes(self._disk_store).of(message_id)
        except UNREADABLE:
            return None


def refused_reply(instruction: Message) -> Message:
    """Return what a study is handed in the place of a reply that is refused."""
    made = create_message_error_unavailable_res_message(instruction.metadata, "node_unavail")
    error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, _REASON)
    message = make_message(metadata=made.metadata, error=error)
    message.metadata.__dict__["_message_id"] = message.object_id
    return message
