"""Asking the sites: how the stages go there, and whether a model comes back as an update would."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flwr.app import RecordDict
from flwr.serverapp import Grid

import wardround
from wardround.common.errors import RunError
from wardround.common.flower.messages.content import array_bytes
from wardround.common.messages.canary import (
    CANARY,
    CARRY,
    CLOSED,
    FINDINGS,
    OK,
    SITE_STAGES,
    UNTRIED,
    SiteCanary,
    canary_question,
    times_of,
    unpack_canary,
)
from wardround.common.messages.instructions import Instruction, new_run, pack_instruction
from wardround.common.messages.refusals import REFUSAL_WORDS, in_words
from wardround.common.messages.replies import SiteUpdate, understand_each_other, unpack_update
from wardround.common.parameters.schema import Parameters
from wardround.common.study.study import Study
from wardround.server.checkpoints.canary import FAILS, NOTE, CanaryRow
from wardround.server.checkpoints.canary import OK as WENT
from wardround.server.checkpoints.canary import UNTRIED as NOT_TRIED
from wardround.server.rounds.updates import UpdateChecks
from wardround.server.sites.deadlines import Deadlines
from wardround.server.sites.exchange import LATE, Exchange, Node, Reply
from wardround.server.sites.intake import RefusedReplyError, taking_in
from wardround.server.sites.readiness import ABSENT

CONNECTED, VERSION, APPROVAL, TIME, TRANSFER = (
    "connected",
    "version",
    "approval",
    "time",
    "transfer",
)
# Stages by site, in the order of a round.
STAGES = (CONNECTED, VERSION, APPROVAL, *SITE_STAGES, TIME, TRANSFER)
_ABSENCE_SECONDS = 60.0
_REMEDIES = {
    "approval": "the hospital runs 'wardround site approve' with the study's digest",
    "rejected": "ask the hospital why, and change the study",
    "policy": "the hospital runs 'wardround site explain': one of the two is to change",
    "budget": "give the study more noise or fewer rounds, or the hospital raises its caps",
    "canaries": "the hospital raises largest_canaries_of_a_study",
}
_NOT_TOLD = "not told: the study protects its patients, the hospital's own log has it"
_EARLIER = "an earlier stage failed"


@dataclass(slots=True)
class SiteFindings:
    """What is known of one site.

    Attributes:
        rows: By stage; a stage that is missing was not tried.
        seconds: Of a round there, at most; None if it does not say so.
        update: What it sent back; None if that did not come.
        bytes_of_a_site: Of a round, received and sent.
    """

    site: str
    rows: dict[str, CanaryRow] = field(default_factory=dict)
    seconds: float | None = None
    update: SiteUpdate | None = None
    bytes_of_a_site: int = 0

    def put(self, stage: str, state: str = WENT, fact: str = "", remedy: str = "") -> None:
        """Note how a stage went."""
        self.rows[stage] = CanaryRow(self.site, stage, state, fact, remedy)

    @property
    def fails(self) -> bool:
        """Whether the site would not get through a round."""
        return any(row.state == FAILS for row in self.rows.values())

    def all_rows(self) -> tuple[CanaryRow, ...]:
        """Return a row a stage, in order."""
        untried = (CanaryRow(self.site, stage, NOT_TRIED, _EARLIER) for stage in STAGES)
        return tuple(self.rows.get(row.stage, row) for row in untried)


def absent_site(site: str) -> SiteFindings:
    """Return what is known of a site that is not connected."""
    found = SiteFindings(site)
    remedy = "the hospital starts it ('wardround site start') and looks at 'wardround site status'"
    found.put(CONNECTED, FAILS, f"{site} {ABSENT}", remedy)
    return found


@dataclass(frozen=True, slots=True)
class Asking:
    """One canary round's questions.

    Attributes:
        model: The study's first, as sites are sent it.
        run: Of this canary round; no other message names it.
    """

    grid: Grid
    study: Study
    deadlines: Deadlines
    model: Parameters
    run: str = field(default_factory=new_run)

    def stages(self, nodes: Sequence[Node]) -> dict[str, SiteFindings]:
        """Return how the stages go at each connected site."""
        found = {}
        for reply in self._ask(nodes, CANARY, canary_question(self.study.digest)):
            one = found[reply.node.site] = SiteFindings(reply.node.site)
            one.put(CONNECTED)
            if reply.content is None:
                _note_refusal(one, reply)
            else:
                self._note_stages(one, reply.content)
        return found

    def _ask(self, nodes: Sequence[Node], kind: str, content: RecordDict) -> Iterator[Reply]:
        exchange = Exchange(self.grid, min(self.deadlines.absence_seconds, _ABSENCE_SECONDS))
        deadline = self.deadlines.deadline_seconds
        yield from exchange.ask(tuple(nodes), kind, lambda: content, "canary", deadline)

    def _note_stages(self, one: SiteFindings, content: RecordDict) -> None:
        try:
            with taking_in(one.site):
                said = unpack_canary(content)
                if (said.site, said.digest) != (one.site, self.study.digest):
                    msg = "its answer is of another site or study."
                    raise RunError(msg)
        except RefusedReplyError as error:
            one.put(VERSION, FAILS, str(error), "install the same version at server and site")
            return
        _note_version(one, said)
        one.put(APPROVAL)
        for stage in SITE_STAGES:
            _note_word(one, stage, said.stages[stage])
        self._note_time(one, said.span)

    def _note_time(self, one: SiteFindings, span: str) -> None:
        """Hold a round's time there against how long a round waits."""
        times, deadline = times_of(span), self.deadlines.deadline_seconds
        if times is None:
            one.put(TIME, NOT_TRIED, "how long a round takes there is not told")
            return
        least, most = times
        one.seconds = most
        if deadline is None or most <= deadline:
            one.put(TIME)
            return
        fact = (
            f"a round takes {least:.0f} to {most:.0f} s there, and is waited for {deadline:.0f} s"
        )
        remedy = "raise federation.deadline_seconds, or lower training.local_steps"
        one.put(TIME, FAILS if least >= deadline else NOTE, fact, remedy)

    def carry(self, nodes: Sequence[Node], found: Mapping[str, SiteFindings]) -> None:
        """Send each site the model, and take it back as an update is taken in."""
        instruction = Instruction(self.study.digest, self.run, 1, self.model, counted_round=0)
        content = pack_instruction(instruction)
        down = array_bytes(content)
        checks = UpdateChecks(self.study, self.run, 1, self.model, float("nan"))
        for reply in self._ask(nodes, CARRY, content):
            one = found[reply.node.site]
            try:
                with taking_in(one.site):
                    if reply.content is None:
                        raise RunError(reply.reason)
                    update = unpack_update(reply.content, self.study)
                    model, _ = checks.admit(update)
            except RefusedReplyError as error:
                remedy = "look at the site's line, its proxy and largest_message_megabytes"
                one.put(TRANSFER, FAILS, f"the model did not come back: {error}", remedy)
                continue
            one.update = replace(update, parameters=model)
            one.bytes_of_a_site = down + update.bytes_up
            one.put(TRANSFER)


def _note_version(one: SiteFindings, said: SiteCanary) -> None:
    if understand_each_other(wardround.__version__, said.wardround):
        one.put(VERSION)
        return
    fact = f"it runs wardround {said.wardround}, the server {wardround.__version__}"
    one.put(VERSION, FAILS, fact, "install the same release: only the last number may differ")


def _note_word(one: SiteFindings, stage: str, word: str) -> None:
    if word == OK:
        one.put(stage)
    elif word == CLOSED:
        one.put(stage, NOT_TRIED, _NOT_TOLD)
    elif word != UNTRIED:
        finding = FINDINGS[word]
        one.put(stage, FAILS if finding.fails else NOTE, finding.fact, finding.remedy)


def _note_refusal(one: SiteFindings, reply: Reply) -> None:
    """Note at which stage a site was lost that answered with a refusal, or not at all."""
    refusal = reply.refusal
    code = refusal.code if refusal is not None else "internal"
    if reply.is_missing:
        stage = TIME if code == LATE else CONNECTED
        remedy = "it is at work on another study, stuck, or slower than the deadline allows"
        one.put(stage, FAILS, reply.reason, remedy)
    elif code == "input":  # nobody there answers this kind of message
        fact = "it does not know this question: it runs another release of wardround"
        one.put(VERSION, FAILS, fact, f"install {wardround.__version__} there, or there and here")
    elif code in _REMEDIES:
        one.put(VERSION)
        said = REFUSAL_WORDS[code]
        one.put("budget" if code == "budget" else APPROVAL, FAILS, said, _REMEDIES[code])
    else:
        one.put(APPROVAL, FAILS, in_words(code), "the hospital's log says more")
