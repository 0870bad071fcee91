"""Who may connect to a link, and under which number."""

import hashlib
from typing import Protocol

_RESERVED_IDS = 2  # 0 and 1 are Flower's own


class MemberLookup(Protocol):
    """Who may connect."""

    def site_of(self, node_key: bytes) -> str | None:
        """Return the site that a node key (PEM) belongs to, None if it is nobody's."""


def node_id_of(node_key: bytes) -> int:
    """Return a node's number: it follows from the key, so that it outlives a restart."""
    number = int.from_bytes(hashlib.sha256(b"wardround node id\n" + node_key).digest()[:8])
    return number if number >= _RESERVED_IDS else number + _RESERVED_IDS
