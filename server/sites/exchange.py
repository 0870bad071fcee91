"""Sending orders and taking the replies in, each once, in a fixed order.

Answers are pulled in the order of the sites' names. Sums of floats then do not depend on who was
faster, and at most one reply is in memory at a time: the others wait with the transport.
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
from wardround.common.runtime.fields import plain

IDLE_SECONDS = 0.05  # between looks at sites that have not replied
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
class Reply:
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
class LateReply:
    """A reply that came after its deadline, and is not counted.

    Attributes:
        seconds: How long after its instruction it was found to be there.
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
class _Instruction:
    """What nodes are sent."""

    message_type: str
    group: str
    content: Callable[[], RecordDict]
    addressed: Addressed


def to_all(content: RecordDict, node: Node) -> RecordDict:
    """Return what all nodes are sent."""
    return content


class Exchange:
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
    ) -> Iterator[Reply]:
        """Send one message to each node and yield a reply for each, in the nodes' order.

        A site that went away and came back is sent the message again.

        Args:
            content: Makes what all nodes are sent. It is called again for a site that came back:
                to keep it until then would be a model more in memory.
            group: A name for these messages, e.g. the round.
            deadline_seconds: After this long a node that has not answered is given up.
            addressed: Adds to the content what one node alone is told.
        """
        instruction = _Instruction(message_type, group, content, addressed)
        sent = self._send(nodes, instruction)
        until = None if deadline_seconds is None else time.monotonic() + deadline_seconds
        for request in sent:
            reply = self._await(request, instruction, until)
            self._tell_wait(request, "")
            yield reply

    def late_replies(self) -> list[LateReply]:
        """Return every reply that has come since its deadline; none is counted."""
        late, still = [], []
        for request in self._overdue:
            reply = self._pull(request)
            if reply is None:
                still.append(request)
            elif not reply.has_error():  # else its site has lost it, or was never reached
                reason = f"its answer to {request.group} came too late"
                seconds = time.monotonic() - request.sent_at
                late.append(LateReply(request.node.site, reason, seconds))
        self._overdue = still
        return late

    def _send(self, nodes: Sequence[Node], instruction: _Instruction) -> list[_Sent]:
        content = instruction.content()
        messages = [
            self._grid.create_message(
                instruction.addressed(content, node),
                instruction.message_type,
                node.node_id,
                instruction.group,
            )
            for node in nodes
        ]
        ids, now = list(self._grid.push_messages(messages)), time.monotonic()
        return [
            _Sent(node, instruction.group, i or "", now) for node, i in zip(nodes, ids, strict=True)
        ]

    def _await(self, request: _Sent, instruction: _Instruction, until: float | None) -> Reply:
        away_since: float | None = None
        while True:
            reply = self._wait(request, until) if request.message_id else None
            if reply is None:
                self._overdue.append(request)
                code = LATE if away_since is None else RESTARTED
                return _refused(request.node, code, NO_ANSWER)
            if not (reply.has_error() and is_transient(reply.error.code)):
                return _reply(request.node, reply)
            if away_since is None:
                away_since = time.monotonic()
                self._tell_wait(request, NOT_CONNECTED)
            limit = away_since + self._absence_seconds
            if not self._comes_back(request.node, limit if until is None else min(limit, until)):
                return _refused(request.node, AWAY, NOT_CONNECTED)
            (request,) = self._send([request.node], instruction)

    def _wait(self, request: _Sent, until: float | None) -> Message | None:
        """Pull one reply; asks at least once, also when no time is left."""
        notable = math.inf if until is None else (request.sent_at + until) / 2
        while True:
            reply = self._pull(request)
            if reply is not None or (until is not None and time.monotonic() >= until):
                return reply
            if time.monotonic() >= notable:
                notable, left = math.inf, (until or 0.0) - time.monotonic()
                self._tell_wait(request, f"no answer yet, for {left:.0f} s more at the most")
            # Grids of ours block in pull_messages; only a remote one comes here at once.
            time.sleep(IDLE_SECONDS)

    def _tell_wait(self, request: _Sent, why: str) -> None:
        site = request.node.site
        if self._tell is not None and (why or self._has_told):
            self._has_told = bool(why)
            self._tell(site, f"{request.group} waits for {site}: {why}" if why else "")

    def _pull(self, request: _Sent) -> Message | None:
        return next(iter(self._grid.pull_messages([request.message_id])), None)

    def _comes_back(self, node: Node, until: float) -> bool:
        while node.node_id not in set(self._grid.get_node_ids()):
            if time.monotonic() >= until:
                return False
            time.sleep(IDLE_SECONDS)
        return True


@dataclass(frozen=True, slots=True)
class Post:
    """How a round of several stages asks its sites.

    Attributes:
        instruction: Makes the message that asks to train, for an attempt at the round.
        addressed: Adds to it what one site alone is told.
        missed: Is told of a site that did not answer.
    """

    exchange: Exchange
    deadline_seconds: float | None
    instruction: Callable[[int], RecordDict]
    addressed: Addressed
    missed: Callable[[Reply], None]


def _refused(node: Node, code: str, reason: str) -> Reply:
    return Reply(node, None, Refusal(node.site, code, reason))


def _reply(node: Node, reply: Message) -> Reply:
    if reply.has_error():
        return _refused(node, "internal", in_words(plain(reply.error.reason)))
    refusal = unpack_refusal(reply.content)
    return Reply(node, None if refusal else reply.content, refusal)
