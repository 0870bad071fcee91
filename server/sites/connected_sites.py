"""The sites of a run at a server: from round to round they come, go, and come back."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from wardround.common.errors import RunError
from wardround.common.messages.replies import SiteInfo
from wardround.server.sites.deadlines import Deadlines
from wardround.server.sites.exchange import Node
from wardround.server.sites.participation import LedgerMemory, RunLedgers
from wardround.server.sites.readiness import ABSENT, ReadinessPoll
from wardround.server.sites.site_info import check_bases

_TOO_LATE = "was not there when the run began, and the study's strategy is for the sites of then"
JOINED, BACK, MISSED = "site joined", "site back", "site missed"  # events of a run's log
LEFT_OUT = "site left out"
AWAITED = "site awaited"
_ANSWER_SECONDS, _LOOK_SECONDS = 30.0, 0.05  # for who was asked just now: a worker has to start


@dataclass(frozen=True, slots=True)
class Admittance:
    """Who may take part.

    Attributes:
        named: The sites that the run is for; empty takes every member.
        members: Gives who may connect.
        is_open: Whether a site may come that was not there before the first round.
    """

    named: tuple[str, ...]
    members: Callable[[], Collection[str]]
    is_open: bool

    def admits(self, site: str) -> bool:
        """Return whether a run is for a site."""
        return not self.named or site in self.named


@dataclass(frozen=True, slots=True)
class SiteChange:
    """Something that happened to a site of a run.

    Attributes:
        sites: Who takes part after it.
        present: Whom the run waits for, should it be interrupted.
    """

    event: str
    site: str
    reason: str
    sites: tuple[str, ...]
    present: tuple[str, ...]

    @property
    def is_passing(self) -> bool:
        """Whether it only says how the run stands, until it stands otherwise."""
        return self.event == AWAITED


class ConnectedSites:
    """Sites that were there before the first round, and those that came since and can take part.

    A site that is missed in a round is left out until it has said again that it can take part. A
    round never waits for the others, so that one that is stuck or gone costs a single deadline.
    """

    def __init__(
        self,
        poll: ReadinessPoll,
        admittance: Admittance,
        deadlines: Deadlines,
        gathered: tuple[Sequence[Node], Sequence[SiteInfo]],
        listener: Callable[[SiteChange], None],
        ledgers: LedgerMemory | None = None,
    ) -> None:
        """Begin with the sites that were gathered, and what they said."""
        nodes, site_infos = gathered
        self._poll, self._admittance, self._listener = poll, admittance, listener
        self.deadlines, self.ledgers = deadlines, ledgers or RunLedgers()
        self._inside = {node.site: node for node in nodes}
        self._first = frozenset(self._inside)
        self._site_infos = tuple(site_infos)
        self._missed: dict[str, tuple[Node, int]] = {}
        self._stuck: set[str] = set()
        self._told: dict[str, str] = poll.refused()
        self._connected: Mapping[str, int] = {}

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that take part now."""
        return tuple(sorted(self._inside))

    def of_round(self, number: int) -> tuple[Node, ...]:
        """Return the sites of a round; whoever has come, or is back, is among them."""
        outside = self._look()
        asked = self._poll.ask(outside, self._connected)
        prompt = [site for site in asked if site not in self._stuck]
        until = time.monotonic() + _ANSWER_SECONDS
        self._poll.note()
        while self._poll.is_awaited(prompt) and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
            self._poll.note()
        for site, seen in self._poll.ready(self._connected).items():
            if site in outside and seen.site_info is not None:
                self._take(seen.node, seen.site_info, number)
        self._notify_refusals(outside)
        return tuple(self._inside[site] for site in self.sites)

    def absent(self) -> Mapping[str, str]:
        """Return the sites that the run is for and that are not in this round, and why."""
        named = self._admittance.named or {*self._admittance.members(), *self._missed}
        return {site: self._reason(site) for site in sorted(named) if site not in self._inside}

    def miss(self, site: str, number: int, is_stuck: bool) -> None:
        """Leave a site out until it says again that it can take part."""
        node = self._inside.pop(site, None)
        if node is None:
            return
        self._missed[site] = (node, number)
        if is_stuck:
            self._stuck.add(site)  # or slow: it will answer nothing before it has done its work
        self._poll.forget(site)
        self._tell(MISSED, site, f"did not answer in round {number}")

    def note(self, site: str) -> None:
        """Take a site back whose reply came after all."""
        if site in self._missed:
            self._inside[site], _ = self._missed.pop(site)
            self._stuck.discard(site)
            self._tell(BACK, site, "its late answer came")

    def wait(self, site: str, words: str) -> None:
        """Tell it."""
        self._tell(AWAITED, site, words)

    def _tell(self, event: str, site: str, reason: str) -> None:
        # A strategy that reckons with all sites wants all of them back.
        present = self.sites if self._admittance.is_open else tuple(sorted(self._first))
        self._listener(SiteChange(event, site, reason, self.sites, present))

    def _look(self) -> list[str]:
        """Return the sites outside that are connected and may come in."""
        self._connected = self._poll.connected()
        return [
            site
            for site in sorted(self._connected)
            if site not in self._inside and self._admittance.admits(site) and self._may_come(site)
        ]

    def _may_come(self, site: str) -> bool:
        return self._admittance.is_open or site in self._first

    def _take(self, node: Node, site_info: SiteInfo, number: int) -> None:
        try:
            check_bases([*self._site_infos[:1], site_info])
        except RunError as error:
            self._poll.refuse(node.site, f"cannot take part: {error}")
            return
        was_here = self._missed.pop(node.site, None) is not None or node.site in self._first
        self._inside[node.site] = node
        self._stuck.discard(node.site)
        self._told.pop(node.site, None)
        self._tell(BACK if was_here else JOINED, node.site, f"from round {number} on")

    def _notify_refusals(self, outside: Collection[str]) -> None:
        for site, problem in self._poll.refused().items():
            if site in outside and self._told.get(site) != problem:
                self._told[site] = problem
                self._tell(LEFT_OUT, site, problem)

    def _reason(self, site: str) -> str:
        if site not in self._connected:
            return ABSENT
        if not self._may_come(site):
            return _TOO_LATE
        if site in self._missed and self._poll.is_awaited([site]):
            return f"has not answered since round {self._missed[site][1]}"
        return self._poll.problem_of(site)
