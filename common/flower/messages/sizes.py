"""How large a message is once it is in memory, found without making it.

Written against Flower 1.41;
``tests/unit/common/flower/supernode/test_message_files.py`` holds the contract.
"""

import json
from typing import Protocol

from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content

_CHUNK_HEAD = b"ArrayChunk "
_MOST_NAMING_BYTES = 16 * 2**20  # of an object that only names others, or holds a few numbers


class Parts(Protocol):
    """The objects of a message as they travel; one that is not there is a LookupError."""

    def length(self, object_id: str) -> int:
        """Return the bytes of an object."""

    def begins_with(self, object_id: str, prefix: bytes) -> bool:
        """Whether an object begins with these bytes; it is not read for that."""

    def content(self, object_id: str) -> bytes:
        """Return an object."""


class Sizes:
    """How large each object is once it is in memory.

    An array may name one piece a million times, and a record one array: what travels is small.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._known: dict[str, int] = {}

    def of(self, object_id: str) -> int:
        """Return the bytes of an object and of all that it names.

        Raises:
            LookupError, ValueError, TypeError, AttributeError, RecursionError: They make no
                message.
        """
        if object_id not in self._known:
            self._known[object_id] = 0  # an object that names itself; Flower then refuses it
            self._known[object_id] = self._measure(object_id)
        return self._known[object_id]

    def _measure(self, object_id: str) -> int:
        own = self._parts.length(object_id)
        if self._parts.begins_with(object_id, _CHUNK_HEAD):
            return own
        if own > _MOST_NAMING_BYTES:
            msg = "a list of objects is too long"
            raise ValueError(msg)
        content = self._parts.content(object_id)
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
