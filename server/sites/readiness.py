"""Asking connected sites whether they can take part in a study, without waiting for any."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from wardround.common.errors import ModelError, RunError
from wardround.common.flower.error_codes import is_transient
from wardround.common.messages.instructions import DESCRIBE
from wardround.common.messages.refusals import LACKS_WEIGHTS, REFUSAL_WORDS, in_words
from wardround.common.messages.replies import SiteInfo, unpack_refusal, unpack_site_info
from wardround.common.study.study import Study
from wardround.server.sites.exchange import Node
from wardround.server.sites.intake import RefusedReplyError, taking_in
from wardround.server.sites.site_info import check_site_info, question

ABSENT = "is not connected"
PENDING = "has not approved the study"  # the refusal that time may change
_SENT_WEIGHTS = "is sent the weights that the study starts from"
_NO_WEIGHTS = (
    "lacks the weights that the study starts from, and so does this server: run 'wardround model "
    "pretrain' here with the model folder"
)
_PROBLEMS = {
    "approval": PENDING,
    "rejected": "has rejected the study",
    "policy": "has a policy that does not allow the study",
    "packages": "does not allow, or does not have, a package of the study with the study's hash",
    "budget": "has no privacy budget left for the study",
    "ledger": "cannot vouch for the privacy it has spent; its own log says why",
    "data": "cannot use its data for the study; its own log says why",
    "weights": "cannot keep the weights that the study starts from; its own log says why",
    "disk": "cannot write, its disk is full",
    "device": "cannot use its device; its own log says why",
    "failed": "cannot take part; its own log says why",
}
# Doubled after each no: a person approves within minutes or days.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 15.0
_MENDING_SECONDS = 300.0  # after which a site that could not take part is asked again


@dataclass(slots=True)
class Seen:
    """What is known of a site so far.

    Attributes:
        asked: The message that it has not answered yet.
        is_final: Whether it was found that it cannot take part, unless it is mended.
        lacks_weights: Whether it said so, and is sent them with the next question.
    """

    node: Node
    site_info: SiteInfo | None = None
    asked: str = ""
    problem: str = "has not answered yet"
    is_final: bool = False
    lacks_weights: bool = False
    ask_at: float = 0.0
    pause: float = field(default_factory=lambda: _FIRST_PAUSE_SECONDS)


class ReadinessPoll:
    """What the sites of a study have said of themselves so far; one thread uses it."""

    def __init__(self, grid: Grid, names: Callable[[], dict[int, str]], study: Study) -> None:
        """Begin with nothing asked.

        Args:
            names: Gives the connected sites by node.
        """
        self._grid, self._names, self._study = grid, names, study
        self._seen: dict[str, Seen] = {}

    def connected(self) -> dict[str, int]:
        """Return the nodes of the sites that are connected now."""
        return {site: node for node, site in self._names().items()}

    def ask(self, sites: Collection[str], connected: Mapping[str, int]) -> list[str]:
        """Ask who has not been asked, or refused a while ago; return who was."""
        now, asked = time.monotonic(), list[str]()
        for site in sites:
            seen = self._seen.get(site)
            if seen is None or seen.node.node_id != connected[site]:
                seen = self._seen[site] = Seen(Node(connected[site], site, 0))
            if seen.site_info or seen.asked or now < seen.ask_at:
                continue
            content, node_id = self._question(seen), seen.node.node_id
            if content is None:
                continue
            message = self._grid.create_message(content, DESCRIBE, node_id, "site-info")
            seen.asked = next(iter(self._grid.push_messages([message])), "") or ""
            seen.ask_at, seen.pause = now + seen.pause, min(2 * seen.pause, _LONGEST_PAUSE_SECONDS)
            asked.append(site)
        return asked

    def _question(self, seen: Seen) -> RecordDict | None:
        """Return what a site is asked; None where it lacks what this server lacks too."""
        try:
            return question(self._study, seen.lacks_weights)
        except ModelError:
            _close(seen, _NO_WEIGHTS)
            return None

    def note(self) -> None:
        """Take in what has been answered since."""
        for seen in self._seen.values():
            if not seen.asked:
                continue
            for reply in self._grid.pull_messages([seen.asked]):
                seen.asked = ""
                if not reply.has_error():
                    self._note(seen, reply)
                elif not is_transient(reply.error.code):  # else it has gone, until it is back
                    # Its disk is full, say, so that it could not even refuse: it is asked again.
                    seen.problem = _failure(str(reply.error.reason))

    def ready(self, connected: Mapping[str, int]) -> dict[str, Seen]:
        """Return the sites that can take part, by name."""
        return {
            site: self._seen[site]
            for site in sorted(connected)
            if site in self._seen and self._is_ready(self._seen[site], connected[site])
        }

    def versions(self) -> dict[str, str]:
        """Return which version of wardround each site runs that is ready."""
        return {
            site: seen.site_info.wardround
            for site, seen in sorted(self._seen.items())
            if seen.site_info is not None
        }

    def monitoring(self) -> dict[str, str]:
        """Return the word on its last period of each site that said one."""
        infos = {site: seen.site_info for site, seen in sorted(self._seen.items())}
        return {site: one.monitoring for site, one in infos.items() if one and one.monitoring}

    def is_awaited(self, sites: Collection[str]) -> bool:
        """Return whether one of these sites has a question that it has not answered."""
        return any(self._seen[site].asked for site in sites if site in self._seen)

    def problem_of(self, site: str) -> str:
        """Return why a site that is connected does not take part."""
        seen = self._seen.get(site)
        return "has not been asked yet" if seen is None else seen.problem

    def is_out(self, site: str) -> bool:
        """Return whether it was found that a site cannot take part."""
        seen = self._seen.get(site)
        return seen is not None and seen.is_final

    def refused(self) -> dict[str, str]:
        """Return the sites that were asked and cannot take part, and why."""
        return {site: seen.problem for site, seen in sorted(self._seen.items()) if seen.is_final}

    def refuse(self, site: str, problem: str) -> None:
        """Note that a site that was asked cannot take part."""
        _close(self._seen[site], problem)

    def forget(self, site: str) -> None:
        """Have a site asked again; what it said holds no more."""
        self._seen.pop(site, None)

    def _is_ready(self, seen: Seen, node_id: int) -> bool:
        return seen.site_info is not None and seen.node.node_id == node_id

    def _note(self, seen: Seen, reply: Message) -> None:
        refusal = unpack_refusal(reply.content)
        if refusal is not None and refusal.code == LACKS_WEIGHTS and not seen.lacks_weights:
            seen.lacks_weights, seen.problem, seen.ask_at = True, _SENT_WEIGHTS, 0.0
            return
        if refusal is not None:
            problem = _PROBLEMS.get(refusal.code, f"refuses ({refusal.code})")
            if problem == PENDING:
                seen.problem, seen.is_final = problem, False
            else:
                _close(seen, problem)
            return
        try:
            with taking_in(seen.node.site):
                seen.site_info = self._checked(reply, seen.node.site)
        except RefusedReplyError as error:
            _close(seen, f"cannot take part: {error}")
            return
        seen.node = Node(seen.node.node_id, seen.node.site, seen.site_info.examinations)
        seen.is_final = False

    def _checked(self, reply: Message, site: str) -> SiteInfo:
        site_info = unpack_site_info(reply.content)
        check_site_info(site_info, self._study)
        if site_info.site != site:
            msg = (
                f"it calls itself {site_info.site!r}, and its certificate {site!r}: "
                "set name in its site.toml to that."
            )
            raise RunError(msg)
        return site_info


def _failure(word: str) -> str:
    """Return what became of a question that a site could not answer, in one of the known words."""
    return f"cannot take part ({in_words(word if word in REFUSAL_WORDS else 'internal')})"


def _close(seen: Seen, problem: str) -> None:
    """Note that a site cannot take part."""
    seen.site_info, seen.problem, seen.is_final = None, problem, True
    seen.ask_at = time.monotonic() + _MENDING_SECONDS
