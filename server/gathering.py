"""Waiting for a study's sites: who is connected, who has approved it, who cannot take part."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from wardround.common.errors import RunError, WardroundError
from wardround.common.orders import INTRODUCE
from wardround.common.study import Study
from wardround.common.update import Introduction, unpack_introduction, unpack_refusal
from wardround.server.collection import Node
from wardround.server.introduction import check_bases, check_introduction, question

_ABSENT = "is not connected"
_PENDING = "policy"  # the refusal that time may change
_PROBLEMS = {
    _PENDING: "has not approved the study",
    "budget": "has no privacy budget left for the study",
    "data": "cannot use its data for the study; its own log says why",
    "device": "cannot use its device; its own log says why",
}
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 15.0
_LOOK_SECONDS, _LATER_SECONDS, _EARLY_SECONDS = 0.2, 1.0, 30.0


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a study waits before its first round.

    Attributes:
        wanted: The sites it is for; empty takes every member.
        approval_timeout_seconds: For the quorum, and for connected sites to approve the study.
        gathering_seconds: For sites that are not connected, beyond the quorum.
    """

    wanted: tuple[str, ...] = ()
    approval_timeout_seconds: float = 86_400.0
    gathering_seconds: float = 10.0


@dataclass(slots=True)
class _Seen:
    """What is known of a site so far.

    Attributes:
        asked: The message that it has not answered yet.
        is_final: Whether it was found that it cannot take part.
    """

    node: Node
    introduction: Introduction | None = None
    asked: str = ""
    problem: str = "has not answered yet"
    is_final: bool = False
    ask_at: float = 0.0
    pause: float = _FIRST_PAUSE_SECONDS


@dataclass(slots=True)
class Gathering:
    """One study waiting for its sites."""

    grid: Grid
    names: Callable[[], dict[int, str]]
    members: Callable[[], Collection[str]]
    study: Study
    terms: Terms
    tell: Callable[[str], None]
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    def gather(self) -> tuple[tuple[Node, ...], tuple[Introduction, ...]]:
        """Wait until the study can begin.

        Returns:
            The nodes in the order of their names, and what each said.

        Raises:
            RunError: Too few sites can take part, or too few came in time.
        """
        while True:
            connected = {site: node for node, site in self.names().items()}
            self._ask([site for site in connected if self._is_candidate(site)], connected)
            self._hear()
            ready = sorted(site for site in connected if self._is_ready(site, connected[site]))
            missing = self._missing(connected)
            if self._may_begin(ready, missing):
                return self._take(ready)
            self._give_up_if_late(ready, missing)
            self.tell(self._words(ready, missing))
            early = time.monotonic() - self._began < _EARLY_SECONDS
            time.sleep(_LOOK_SECONDS if early else _LATER_SECONDS)

    def left_out(self) -> dict[str, str]:
        """Return the sites that were asked and cannot take part, and why."""
        return {site: seen.problem for site, seen in sorted(self._seen.items()) if seen.is_final}

    def _is_candidate(self, site: str) -> bool:
        return not self.terms.wanted or site in self.terms.wanted

    def _is_ready(self, site: str, node_id: int) -> bool:
        seen = self._seen.get(site)
        return seen is not None and seen.introduction is not None and seen.node.node_id == node_id

    def _ask(self, sites: list[str], connected: dict[str, int]) -> None:
        """Ask who has not been asked, or refused a while ago."""
        now = time.monotonic()
        for site in sites:
            seen = self._seen.get(site)
            if seen is None or seen.node.node_id != connected[site]:
                seen = self._seen[site] = _Seen(Node(connected[site], site, 0))
            if seen.introduction or seen.asked or seen.is_final or now < seen.ask_at:
                continue
            content, node_id = question(self.study), seen.node.node_id
            message = self.grid.create_message(content, INTRODUCE, node_id, "introduction")
            seen.asked = next(iter(self.grid.push_messages([message])), "") or ""
            seen.ask_at, seen.pause = now + seen.pause, min(2 * seen.pause, _LONGEST_PAUSE_SECONDS)

    def _hear(self) -> None:
        """Take in what has been answered since."""
        for seen in self._seen.values():
            if not seen.asked:
                continue
            for reply in self.grid.pull_messages([seen.asked]):
                seen.asked = ""
                if not reply.has_error():  # else it has gone, and is asked again when it is back
                    self._note(seen, reply)

    def _note(self, seen: _Seen, reply: Message) -> None:
        refusal = unpack_refusal(reply.content)
        if refusal is not None:
            seen.problem = _PROBLEMS.get(refusal.code, f"refuses ({refusal.code})")
            seen.is_final = refusal.code != _PENDING
            return
        try:
            seen.introduction = self._checked(reply, seen.node.site)
            seen.node = Node(seen.node.node_id, seen.node.site, seen.introduction.examinations)
        except WardroundError as error:
            seen.problem, seen.is_final = f"cannot take part: {error}", True

    def _checked(self, reply: Message, site: str) -> Introduction:
        introduction = unpack_introduction(reply.content)
        check_introduction(introduction, self.study)
        if introduction.site != site:
            msg = (
                f"it calls itself {introduction.site!r}, and its certificate {site!r}: "
                "set name in its site.toml to that."
            )
            raise RunError(msg)
        return introduction

    def _missing(self, connected: dict[str, int]) -> dict[str, str]:
        """Return the sites that may still come, and why each is not there."""
        expected = self.terms.wanted or tuple(sorted({*self.members(), *connected}))
        missing = {}
        for site in expected:
            seen = self._seen.get(site)
            if site in connected and self._is_ready(site, connected[site]):
                continue
            if site not in connected:
                missing[site] = _ABSENT
            elif seen is not None and not seen.is_final:
                missing[site] = seen.problem
        return missing

    def _may_begin(self, ready: list[str], missing: dict[str, str]) -> bool:
        if len(ready) < self.study.federation.minimum_sites:
            return False
        waited = time.monotonic() - self._began
        if not missing or waited >= self.terms.approval_timeout_seconds:
            return True
        absent = all(reason == _ABSENT for reason in missing.values())
        return absent and waited >= self.terms.gathering_seconds

    def _give_up_if_late(self, ready: list[str], missing: dict[str, str]) -> None:
        needed = self.study.federation.minimum_sites
        waited = time.monotonic() - self._began
        refused = any(seen.is_final for seen in self._seen.values())
        hopeless = refused and len(ready) + len(missing) < needed
        if not hopeless and waited < self.terms.approval_timeout_seconds:
            return
        msg = (
            f"the study needs {needed} sites and {len(ready)} can take part "
            f"({self._reasons(missing)}). Mend that, or lower federation.minimum_sites, "
            "and resume the run."
        )
        raise RunError(msg)

    def _words(self, ready: list[str], missing: dict[str, str]) -> str:
        wanted = len(ready) + len(missing)
        return f"waiting for sites: {len(ready)} of {wanted} are ready ({self._reasons(missing)})"

    def _reasons(self, missing: dict[str, str]) -> str:
        reasons = {**missing, **self.left_out()}
        if not reasons:
            return "no other site has joined"
        return "; ".join(f"{site} {reason}" for site, reason in sorted(reasons.items()))

    def _take(self, ready: list[str]) -> tuple[tuple[Node, ...], tuple[Introduction, ...]]:
        found = [self._seen[site] for site in ready]
        introductions = [seen.introduction for seen in found if seen.introduction is not None]
        check_bases(introductions)
        return tuple(seen.node for seen in found), tuple(introductions)
