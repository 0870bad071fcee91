"""No answer is handed to a study that would take far more of its memory than the order did.

Written against Flower 1.41;
``tests/unit/common/flower/superlink/test_size_limits.py`` holds the contract.
"""

from flwr.app import Error, Message
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.server.superlink.linkstate.utils import create_message_error_unavailable_res_message

from wardround.common.flower.messages.inflation import UNREADABLE
from wardround.common.flower.messages.sizes import Sizes
from wardround.common.flower.superlink.object_store import ObjectSpool

_SPARE_BYTES, _BYTES_A_BYTE = 16 * 2**20, 4  # how large an answer may be, for those of its order
_REASON = "its answer is far larger than its order, or cannot be read: it is not taken in"


class SizeRule:
    """Measures what has come, without making a message of it.

    Args:
        spool: Keeps the parts of messages.
    """

    def __init__(self, spool: ObjectSpool) -> None:
        self._spool = spool
        self._orders: dict[str, int] = {}  # how large each is once it is in memory
        self._refused: dict[str, str] = {}  # answers, by their orders

    def note_order(self, order_id: str) -> None:
        """Note how large an order is, while all of it is there."""
        if order_id not in self._orders:
            self._orders[order_id] = self._size_of(order_id) or 0

    def refuses(self, order_id: str, answer_id: str) -> bool:
        """Whether an answer, all of which is there, is too large; or makes no message at all."""
        size = self._size_of(answer_id)
        most = _SPARE_BYTES + _BYTES_A_BYTE * self._orders.get(order_id, 0)
        if size is not None and size <= most:
            return False
        self._refused[order_id] = answer_id
        return True

    def forget(self, order_id: str) -> None:
        """Remove what is kept of an order, with an answer that nobody will fetch."""
        self._orders.pop(order_id, None)
        answer_id = self._refused.pop(order_id, None)
        if answer_id is not None:
            self._spool.delete(answer_id)

    def _size_of(self, message_id: str) -> int | None:
        try:
            return Sizes(self._spool).of(message_id)
        except UNREADABLE:
            return None


def refused_answer(order: Message) -> Message:
    """Return what a study is handed in the place of an answer that is refused."""
    made = create_message_error_unavailable_res_message(order.metadata, "node_unavail")
    error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, _REASON)
    message = make_message(metadata=made.metadata, error=error)
    message.metadata.__dict__["_message_id"] = message.object_id
    return message
