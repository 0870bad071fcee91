"""The content of a message: its records by kind, its bytes, and its fingerprint.

Flower's own views (``content.array_records``) hold the content while the content holds them, so
that it stays in memory until Python next looks for such circles: a server would pile up the replies
of many sites. Nothing here outlives the content.

Flower offers no public way to write a RecordDict whole. That part is written against Flower 1.41;
``tests/unit/common/flower/test_fence.py`` holds the contract.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as _Message

from wardround.common.errors import PolicyError


def arrays_of(content: RecordDict) -> dict[str, ArrayRecord]:
    """Return the records of arrays."""
    return {n: record for n, record in content.items() if isinstance(record, ArrayRecord)}


def configs_of(content: RecordDict) -> dict[str, ConfigRecord]:
    """Return the records of settings."""
    return {n: record for n, record in content.items() if isinstance(record, ConfigRecord)}


def metrics_of(content: RecordDict) -> dict[str, MetricRecord]:
    """Return the records of numbers."""
    return {n: record for n, record in content.items() if isinstance(record, MetricRecord)}


def array_bytes(content: RecordDict) -> int:
    """Return the size of all arrays as they travel."""
    return sum(record.count_bytes() for record in arrays_of(content).values())


def to_bytes(content: RecordDict) -> bytes:
    """Return a content as bytes; equal records in equal order give equal bytes."""
    written: bytes = recorddict_to_proto(content).SerializeToString(deterministic=True)
    return written


def from_bytes(data: bytes) -> RecordDict:
    """Return the content that :func:`to_bytes` wrote; no code in the bytes is run."""
    return recorddict_from_proto(_Message.FromString(data))


def kept_content(path: Path) -> RecordDict:
    """Return an answer that a site has kept to give it once more.

    Raises:
        PolicyError: The file is damaged: there is no second answer to make in its place.
        OSError: It cannot be read.
    """
    data = path.read_bytes()
    try:
        return from_bytes(data)
    except Exception:  # what a parser says of any bytes is not ours to list
        msg = (
            "an answer that this site has kept is damaged on its disk, and another one would tell "
            f"more: nothing leaves. Put {path.parent.name}/ back from a copy of the site folder."
        )
        raise PolicyError(msg) from None


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What an audit log keeps of a message.

    Attributes:
        bytes: Size of its arrays, and of its other records as JSON; the wire adds a little.
        sha256: Over the same, 64 hexadecimal digits.
    """

    bytes: int
    sha256: str


def fingerprint_of(content: RecordDict) -> Fingerprint:
    """Return the fingerprint of a content; the order of records and keys does not matter."""
    total, size = hashlib.sha256(), 0
    for name in sorted(content):
        record = content[name]
        if not isinstance(record, ArrayRecord):
            text = _json([name, type(record).__name__, dict(sorted(record.items()))])
            total.update(text)
            size += len(text)
            continue
        total.update(_json([name, "ArrayRecord", len(record)]))
        for key in sorted(record):
            array = record[key]
            total.update(_json([key, array.dtype, array.shape, array.stype, len(array.data)]))
            total.update(array.data)
            size += len(array.data)
    return Fingerprint(size, total.hexdigest())


def _json(value: object) -> bytes:
    # A NaN, which strict JSON lacks, is written as Python does; bytes as their own text.
    return json.dumps(value, default=repr).encode() + b"\n"
