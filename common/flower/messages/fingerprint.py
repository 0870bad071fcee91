"""How large a message's content is, and its hash: each array is read once, and none is copied."""

import hashlib
import json
from dataclasses import dataclass

from flwr.app import ArrayRecord, RecordDict


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
