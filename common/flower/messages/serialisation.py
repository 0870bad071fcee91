"""The content of a message as bytes on a disk, and back.

Flower offers no public way to write a RecordDict whole. Written against Flower 1.41;
``tests/unit/common/flower/test_fence.py`` holds the contract.
"""

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as _Message


def to_bytes(content: RecordDict) -> bytes:
    """Return a content as bytes; equal records in equal order give equal bytes."""
    written: bytes = recorddict_to_proto(content).SerializeToString(deterministic=True)
    return written


def from_bytes(data: bytes) -> RecordDict:
    """Return the content that :func:`to_bytes` wrote; no code in the bytes is run."""
    return recorddict_from_proto(_Message.FromString(data))
