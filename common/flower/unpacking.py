"""The message in a parcel, once its size is known; nothing is allocated before.

Written against Flower 1.41; ``tests/unit/test_flower_supernode.py`` holds the contract.
"""

import json
from pathlib import Path

from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content

from wardround.common.errors import ModelError
from wardround.common.flower.assembly import UNREADABLE, assemble
from wardround.common.flower.parcels import Parcel

_CHUNK_HEAD = b"ArrayChunk "
_MOST_NAMING_BYTES = 16 * 2**20  # of an object that only names others, or holds a few numbers


def read_message(path: Path, limit: int) -> Message:
    """Return the message in a file.

    Args:
        limit: The most bytes that its content may have in memory; nothing is allocated beyond it.

    Raises:
        ModelError: It is larger, or its objects do not make a message.
    """
    with Parcel(path) as parcel:
        root = parcel.envelope.tree.object_id
        try:
            size = _Sizes(parcel).of(root)
            if size > limit:
                msg = f"the message holds {size / 1e6:.3g} MB, and {limit / 1e6:g} MB are allowed."
                raise ModelError(msg)
            found = assemble(root, parcel.content)
        except UNREADABLE as error:
            msg = f"the message cannot be read ({type(error).__name__}): update wardround."
            raise ModelError(msg) from None
    if not isinstance(found, Message):
        msg = "what was sent is no message: update wardround."
        raise ModelError(msg)
    found.metadata.__dict__["_message_id"] = root  # a message does not travel with its own id
    return found


class _Sizes:
    """How large each object is once it is in memory.

    An array may name one piece a million times, and a record one array: what travels is small.
    """

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel
        self._known: dict[str, int] = {}

    def of(self, object_id: str) -> int:
        """Return the bytes of an object and of all that it names."""
        if object_id not in self._known:
            self._known[object_id] = 0  # an object that names itself; Flower then refuses it
            self._known[object_id] = self._measure(object_id)
        return self._known[object_id]

    def _measure(self, object_id: str) -> int:
        own = self._parcel.length(object_id)
        if self._parcel.begins_with(object_id, _CHUNK_HEAD):
            return own
        if own > _MOST_NAMING_BYTES:
            msg = "a list of objects is too long"
            raise ValueError(msg)
        content = self._parcel.content(object_id)
        kind, children, length = get_object_head_values_from_object_content(content)
        body = content[len(content) - length :]
        return own + sum(self.of(child) for child in _named(kind, children, body))


def _named(kind: str, children: list[str], body: bytes) -> list[str]:
    """Return what an object names, as often as it does."""
    if kind == "Array":
        return [children[index] for index in json.loads(body)["arraychunk_ids"]]
    if kind in ("ArrayRecord", "RecordDict"):
        return [str(child) for child in json.loads(body).values()]
    return children
