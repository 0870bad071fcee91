"""Sending a round's orders and taking the answers in, each once, in a fixed order.

Answers are pulled in the order of the sites' names. Sums of floats then do not depend on who was
faster, and at most one answer is in memory at a time: the others wait with the transport.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from wardround.common.update import Refusal, unpack_refusal

IDLE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Node:
    """A connected site."""

    node_id: int
    site: str
    examinations: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from a node: content, or the reason why there is none."""

    node: Node
    content: RecordDict | None
    refusal: Refusal | None


def ask(
    grid: Grid,
    nodes: Sequence[Node],
    message_type: str,
    content: Callable[[Node], RecordDict],
    group: str,
    deadline_seconds: float | None = None,
) -> Iterator[Answer]:
    """Send one message to each node and yield an answer for each, in the nodes' order.

    Args:
        content: Makes the message for a node; nodes may share arrays, never records.
        group: A name for these messages, e.g. the round.
        deadline_seconds: After this long a node that has not answered is given up.
    """
    messages = [
        grid.create_message(content(node), message_type, node.node_id, group) for node in nodes
    ]
    message_ids = list(grid.push_messages(messages))
    del messages
    started = time.monotonic()
    for node, message_id in zip(nodes, message_ids, strict=True):
        left = None if deadline_seconds is None else started + deadline_seconds - time.monotonic()
        reply = _wait(grid, message_id, left) if message_id else None
        yield _answer(node, reply)


def _wait(grid: Grid, message_id: str, seconds: float | None) -> Message | None:
    """Pull one reply; asks at least once, also when no time is left."""
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        for reply in grid.pull_messages([message_id]):
            return reply
        if until is not None and time.monotonic() >= until:
            return None
        # Grids of ours block in pull_messages; only a remote one comes here.
        time.sleep(IDLE_SECONDS)


def _answer(node: Node, reply: Message | None) -> Answer:
    if reply is None:
        return Answer(node, None, Refusal(node.site, "late", "no answer before the deadline"))
    if reply.has_error():
        return Answer(node, None, Refusal(node.site, "internal", reply.error.reason or ""))
    refusal = unpack_refusal(reply.content)
    return Answer(node, None if refusal else reply.content, refusal)
