"""A message made of its objects: the pieces of an array are let go as soon as it is whole.

Flower's own inflation keeps every piece until the message is done, and copies an array twice.

Written against Flower 1.41;
``tests/unit/common/flower/supernode/test_message_files.py`` holds the contract.
"""

import json
from collections.abc import Callable, Sequence

from flwr.app import Array
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_object_body,
    get_object_head_values_from_object_content,
)
from flwr.supercore.inflatable.inflatable_utils import inflatable_class_registry

# What objects that make no message raise, here or in Flower's own code.
UNREADABLE = (LookupError, ValueError, TypeError, AttributeError, RecursionError)
_CHUNK_HEAD = b"ArrayChunk "


def assemble(root: str, content_of: Callable[[str], bytes]) -> InflatableObject:
    """Return an object made of its parts, those of its parts first.

    Args:
        content_of: Returns an object as it travels; what names others is asked for before them.

    Raises:
        LookupError, ValueError, TypeError, AttributeError, RecursionError: They make no object.
    """
    return _Assembly(content_of).make(root)


class _Assembly:
    def __init__(self, content_of: Callable[[str], bytes]) -> None:
        self._content_of = content_of
        self._made: dict[str, InflatableObject] = {}

    def make(self, object_id: str) -> InflatableObject:
        if object_id not in self._made:
            self._made[object_id] = self._inflate(self._content_of(object_id))
        return self._made[object_id]

    def _inflate(self, content: bytes) -> InflatableObject:
        kind, children, _ = get_object_head_values_from_object_content(content)
        if kind == "Array":
            return self._make_array(content, children)
        inflated = inflatable_class_registry[kind].inflate
        return inflated(content, {child: self.make(child) for child in children})

    def _make_array(self, content: bytes, children: Sequence[str]) -> Array:
        described = json.loads(get_object_body(content, Array))
        pieces = {child: _values_in(self._content_of(child)) for child in children}
        data = b"".join([pieces[children[index]] for index in described["arraychunk_ids"]])
        return Array(described["dtype"], tuple(described["shape"]), described["stype"], data)


def _values_in(chunk: bytes) -> memoryview:
    if not chunk.startswith(_CHUNK_HEAD):
        msg = "a piece of an array is something else"
        raise ValueError(msg)
    return memoryview(chunk)[chunk.index(HEAD_BODY_DIVIDER) + len(HEAD_BODY_DIVIDER) :]
