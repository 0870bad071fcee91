"""Sending orders and taking the answers in, each once, in a fixed order.

Answers are pulled in the order of the sites' names. Sums of floats then do not depend on who was
faster, and at most one answer is in memory at a time: the others wait with the transport.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from wardround.common.flower.errors import is_transient
from wardround.common.refusal_words import in_words
from wardround.common.update import Refusal, unpack_refusal

IDLE_SECONDS = 0.05
PATIENCE_SECONDS = 600.0  # how long a site may stay away where the study sets no deadline


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

    @property
    def reason(self) -> str:
        """Why there is no content."""
        refusal = self.refusal
        return (refusal.reason or in_words(refusal.code)) if refusal else "no content"


@dataclass(frozen=True, slots=True)
class _Sent:
    """A message that is under way."""

    node: Node
    group: str
    message_id: str


Addressed = Callable[[RecordDict, Node], RecordDict]


@dataclass(frozen=True, slots=True)
class _Order:
    """What nodes are sent."""

    message_type: str
    group: str
    content: Callable[[], RecordDict]
    addressed: Addressed


def to_all(content: RecordDict, node: Node) -> RecordDict:
    """Return what all nodes are sent."""
    return content


class Mailbox:
    """The server's post: it remembers what was asked and never answered in time."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._overdue: list[_Sent] = []

    def ask(
        self,
        nodes: Sequence[Node],
        message_type: str,
        content: Callable[[], RecordDict],
        group: str,
        deadline_seconds: float | None = None,
        addressed: Addressed = to_all,
    ) -> Iterator[Answer]:
        """Send one message to each node and yield an answer for each, in the nodes' order.

        A site that went away and came back is sent the message again.

        Args:
            content: Makes what all nodes are sent. It is called again for a site that came back:
                to keep it until then would be a model more in memory.
            group: A name for these messages, e.g. the round.
            deadline_seconds: After this long a node that has not answered is given up.
            addressed: Adds to the content what one node alone is told.
        """
        order = _Order(message_type, group, content, addressed)
        sent = self._send(nodes, order)
        until = None if deadline_seconds is None else time.monotonic() + deadline_seconds
        for letter in sent:
            yield self._await(letter, order, until)

    def late_answers(self) -> list[Refusal]:
        """Return a refusal for every answer that has come since its deadline; none is counted."""
        late = [letter for letter in self._overdue if self._pull(letter) is not None]
        self._overdue = [letter for letter in self._overdue if letter not in late]
        return [
            Refusal(letter.node.site, "late", f"its answer to {letter.group} came too late")
            for letter in late
        ]

    def _send(self, nodes: Sequence[Node], order: _Order) -> list[_Sent]:
        content = order.content()
        messages = [
            self._grid.create_message(
                order.addressed(content, node), order.message_type, node.node_id, order.group
            )
            for node in nodes
        ]
        ids = list(self._grid.push_messages(messages))
        return [_Sent(node, order.group, i or "") for node, i in zip(nodes, ids, strict=True)]

    def _await(self, letter: _Sent, order: _Order, until: float | None) -> Answer:
        away_since: float | None = None
        while True:
            reply = self._wait(letter, until) if letter.message_id else None
            if reply is None:
                self._overdue.append(letter)
                return _refused(letter.node, "late", "no answer before the deadline")
            if not (reply.has_error() and is_transient(reply.error.code)):
                return _answer(letter.node, reply)
            away_since = away_since or time.monotonic()
            if not self._comes_back(letter.node, until or away_since + PATIENCE_SECONDS):
                return _refused(letter.node, "away", "the site is not connected")
            (letter,) = self._send([letter.node], order)

    def _wait(self, letter: _Sent, until: float | None) -> Message | None:
        """Pull one reply; asks at least once, also when no time is left."""
        while True:
            reply = self._pull(letter)
            if reply is not None or (until is not None and time.monotonic() >= until):
                return reply
            # Grids of ours block in pull_messages; only a remote one comes here at once.
            time.sleep(IDLE_SECONDS)

    def _pull(self, letter: _Sent) -> Message | None:
        return next(iter(self._grid.pull_messages([letter.message_id])), None)

    def _comes_back(self, node: Node, until: float) -> bool:
        while node.node_id not in set(self._grid.get_node_ids()):
            if time.monotonic() >= until:
                return False
            time.sleep(IDLE_SECONDS)
        return True


def _refused(node: Node, code: str, reason: str) -> Answer:
    return Answer(node, None, Refusal(node.site, code, reason))


def _answer(node: Node, reply: Message) -> Answer:
    if reply.has_error():
        return _refused(node, "internal", reply.error.reason or "")
    refusal = unpack_refusal(reply.content)
    return Answer(node, None if refusal else reply.content, refusal)
