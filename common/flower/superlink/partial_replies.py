"""Answers that were given up half-way: what of them has come serves the next try.

Written against Flower 1.41; ``tests/unit/common/flower/superlink/test_partial_replies.py`` holds
the contract.
"""

from flwr.supercore.object_store import ObjectStore


class PartialReplies:
    """Half an answer a site and run, so that a site holds no more of the disk than one reply.

    Args:
        store: Where the objects lie; what two answers share stays as long as one of them.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._kept: dict[tuple[int, int], str] = {}

    def keep(self, run_id: int, node_id: int, reply_id: str) -> None:
        """Keep what has come of a reply, instead of one before it."""
        self.replace(run_id, node_id, reply_id)
        self._kept[run_id, node_id] = reply_id

    def replace(self, run_id: int, node_id: int, reply_id: str) -> None:
        """Remove what the site's next reply, which is announced, does not share."""
        before = self._kept.pop((run_id, node_id), reply_id)
        if before != reply_id:
            self._store.delete(before)

    def forget(self, run_id: int) -> None:
        """Forget a run, whose objects are removed."""
        self._kept = {key: one for key, one in self._kept.items() if key[0] != run_id}
