"""Waiting for a study's sites: who is connected, who has approved it, who cannot take part."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from wardround.common.errors import RunError
from wardround.common.messages.replies import SiteInfo
from wardround.common.study.study import Study
from wardround.server.sites.exchange import Node
from wardround.server.sites.readiness import ABSENT, PENDING, ReadinessPoll
from wardround.server.sites.site_info import OTHER_NETWORK, check_bases, outvoted

# Often in the first half minute, in which most sites connect.
_LOOK_SECONDS, _LATER_SECONDS, _EARLY_SECONDS = 0.2, 1.0, 30.0


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a study waits before its first round, and for whom.

    Attributes:
        wanted: The sites it is for; empty takes every member.
        expected: The sites that it had before it was interrupted: it waits for these.
        approval_timeout_seconds: For the quorum.
        gathering_seconds: For sites beyond the quorum that are not connected, or have not approved
            the study.
        answer_seconds: For sites beyond the quorum that have not answered yet: they read their
            data.
    """

    wanted: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    approval_timeout_seconds: float = 86_400.0
    gathering_seconds: float = 10.0
    answer_seconds: float = 600.0

    def admits(self, site: str) -> bool:
        """Return whether a site may take part."""
        return not self.wanted or site in self.wanted


@dataclass(frozen=True, slots=True)
class Turn:
    """Whether a study that has its sites may begin: not while enough others are running.

    Attributes:
        words: What it is said to wait for, until it may.
    """

    may_begin: Callable[[], bool] = lambda: True
    words: str = ""


@dataclass(slots=True)
class SiteWait:
    """One study waiting for its sites."""

    poll: ReadinessPoll
    members: Callable[[], Collection[str]]
    study: Study
    terms: Terms
    tell: Callable[[str], None]
    turn: Turn = field(default_factory=Turn)
    _began: float = field(default_factory=time.monotonic)

    def gather(self) -> tuple[tuple[Node, ...], tuple[SiteInfo, ...]]:
        """Wait until the study can begin.

        Returns:
            The nodes in the order of their names, and what each said.

        Raises:
            RunError: Too few sites can take part, or too few came in time.
        """
        while True:
            connected = self.poll.connected()
            self.poll.ask([site for site in connected if self.terms.admits(site)], connected)
            self.poll.note()
            ready = [*self.poll.ready(connected)]
            missing = self._missing(connected, ready)
            if self._may_begin(ready, missing):
                if self._refuse_outvoted(connected):
                    continue
                if self.turn.may_begin():
                    return self._take(connected)
                self.tell(self.turn.words)
            else:
                self._give_up_if_late(ready, missing)
                self.tell(self._words(ready, missing))
            early = time.monotonic() - self._began < _EARLY_SECONDS
            time.sleep(_LOOK_SECONDS if early else _LATER_SECONDS)

    def _missing(self, connected: Mapping[str, int], ready: Collection[str]) -> dict[str, str]:
        """Return the sites that may still come, and why each is not there."""
        all_there = tuple(sorted({*self.members(), *connected}))
        expected = self.terms.expected or self.terms.wanted or all_there
        missing = {}
        for site in expected:
            if site in ready:
                continue
            if site not in connected:
                missing[site] = ABSENT
            elif not self.poll.is_out(site):
                missing[site] = self.poll.problem_of(site)
        return missing

    def _may_begin(self, ready: list[str], missing: dict[str, str]) -> bool:
        if len(ready) < self.study.federation.minimum_sites:
            return False
        waited, terms = time.monotonic() - self._began, self.terms
        answering = any(reason not in (ABSENT, PENDING) for reason in missing.values())
        patience = max(terms.gathering_seconds, terms.answer_seconds * answering)
        return not missing or waited >= min(patience, terms.approval_timeout_seconds)

    def _give_up_if_late(self, ready: list[str], missing: dict[str, str]) -> None:
        needed = self.study.federation.minimum_sites
        waited = time.monotonic() - self._began
        hopeless = bool(self.poll.refused()) and len(ready) + len(missing) < needed
        if not hopeless and waited < self.terms.approval_timeout_seconds:
            return
        msg = (
            f"the study needs {needed} sites and {len(ready)} can take part "
            f"({self._reasons(missing)}). Put that right and resume the run, or submit the study "
            "again with fewer federation.minimum_sites."
        )
        raise RunError(msg)

    def _words(self, ready: list[str], missing: dict[str, str]) -> str:
        wanted, needed = len(ready) + len(missing), self.study.federation.minimum_sites
        stand = f"{len(ready)} of {wanted} are ready, and {needed} needed"
        return f"waiting for sites: {stand} ({self._reasons(missing)})"

    def _reasons(self, missing: dict[str, str]) -> str:
        reasons = {**missing, **self.poll.refused()}
        if not reasons:
            return "no other site has joined"
        return "; ".join(f"{site} {reason}" for site, reason in sorted(reasons.items()))

    def _refuse_outvoted(self, connected: Mapping[str, int]) -> bool:
        """Leave out whose frozen network is another than most others'; return whether one is.

        A single site could otherwise keep a study from its beginning by naming any number.
        """
        found = self.poll.ready(connected).values()
        odd = outvoted([seen.site_info for seen in found if seen.site_info is not None])
        for site in odd:
            self.poll.refuse(site, f"cannot take part: {OTHER_NETWORK}")
        return bool(odd)

    def _take(self, connected: Mapping[str, int]) -> tuple[tuple[Node, ...], tuple[SiteInfo, ...]]:
        found = [*self.poll.ready(connected).values()]
        site_infos = [seen.site_info for seen in found if seen.site_info is not None]
        check_bases(site_infos)
        return tuple(seen.node for seen in found), tuple(site_infos)
