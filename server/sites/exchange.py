"""Sending orders and taking the answers in, each once, in a fixed order.

Answers are pulled in the order of the sites' names. Sums of floats then do not depend on who was
faster, and at most one answer is in memory at a time: the others wait with the transport.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from wardround.common.flower.error_codes import is_transient
from wardround.common.messages.refusals import in_words
from wardround.common.messages.replies import Refusal, unpack_refusal

IDLE_SECONDS = 0.05
ABSENCE_SECONDS = 600.0  # how long a site may stay away where neither study nor server says
LATE, AWAY, RESTARTED = "late", "away", "restarted"  # codes of those who did not answer
NO_ANSWER, NOT_CONNECTED = "no answer before the deadline", "the site is not connected"


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

    @property
    def is_missing(self) -> bool:
        """Whether the site said nothing at all: it is stuck, too slow, or gone."""
        return self.refusal is not None and self.refusal.code in (LATE, AWAY, RESTARTED)

    @property
    def is_stuck(self) -> bool:
        """Whether it said nothing though it was there all the time."""
        return self.refusal is not None and self.refusal.code == LATE


@dataclass(frozen=True, slots=True)
class LateAnswer:
    """An answer that came after its deadline, and is not counted.

    Attributes:
        seconds: How long after its order it was found to be there.
    """

    site: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Sent:
    """A message that is under way."""

    node: Node
    group: str
    message_id: str
    sent_at: float


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

    def __init__(
        self,
        grid: Grid,
        absence_seconds: float = ABSENCE_SECONDS,
        tell: Callable[[str, str], None] | None = None,
    ) -> None:
        """Open it.

        Args:
            absence_seconds: How long a site that is not connected is waited for.
            tell: Is told of a site that keeps the others waiting, and in words why; without words
                when that is over.
        """
        self._grid, self._absence_seconds = grid, absence_seconds
        self._tell, self._has_told = tell, False
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
            answer = self._await(letter, order, until)
            self._tell_wait(letter, "")
            yield answer

    def late_answers(self) -> list[LateAnswer]:
        """Return every answer that has come since its deadline; none is counted."""
        late, still = [], []
        for letter in self._overdue:
            reply = self._pull(letter)
            if reply is None:
                still.append(letter)
            elif not reply.has_error():  # else its site has lost the order, or was never reached
                reason = f"its answer to {letter.group} came too late"
                seconds = time.monotonic() - letter.sent_at
                late.append(LateAnswer(letter.node.site, reason, seconds))
        self._overdue = still
        return late

    def _send(self, nodes: Sequence[Node], order: _Order) -> list[_Sent]:
        content = order.content()
        messages = [
            self._grid.create_message(
                order.addressed(content, node), order.message_type, node.node_id, order.group
            )
            for node in nodes
        ]
        ids, now = list(self._grid.push_messages(messages)), time.monotonic()
        return [_Sent(node, order.group, i or "", now) for node, i in zip(nodes, ids, strict=True)]

    def _await(self, letter: _Sent, order: _Order, until: float | None) -> Answer:
        away_since: float | None = None
        while True:
            reply = self._wait(letter, until) if letter.message_id else None
            if reply is None:
                self._overdue.append(letter)
                code = LATE if away_since is None else RESTARTED
                return _refused(letter.node, code, NO_ANSWER)
            if not (reply.has_error() and is_transient(reply.error.code)):
                return _answer(letter.node, reply)
            if away_since is None:
                away_since = time.monotonic()
                self._tell_wait(letter, NOT_CONNECTED)
            limit = away_since + self._absence_seconds
            if not self._comes_back(letter.node, limit if until is None else min(limit, until)):
                return _refused(letter.node, AWAY, NOT_CONNECTED)
            (letter,) = self._send([letter.node], order)

    def _wait(self, letter: _Sent, until: float | None) -> Message | None:
        """Pull one reply; asks at least once, also when no time is left."""
        notable = math.inf if until is None else (letter.sent_at + until) / 2
        while True:
            reply = self._pull(letter)
            if reply is not None or (until is not None and time.monotonic() >= until):
                return reply
            if time.monotonic() >= notable:
                notable, left = math.inf, (until or 0.0) - time.monotonic()
                self._tell_wait(letter, f"no answer yet, for {left:.0f} s more at the most")
            # Grids of ours block in pull_messages; only a remote one comes here at once.
            time.sleep(IDLE_SECONDS)

    def _tell_wait(self, letter: _Sent, why: str) -> None:
        site = letter.node.site
        if self._tell is not None and (why or self._has_told):
            self._has_told = bool(why)
            self._tell(site, f"{letter.group} waits for {site}: {why}" if why else "")

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
