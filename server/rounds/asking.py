"""What is asked of the sites in a round, and how each reply is taken in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

from flwr.app import RecordDict
from flwr.serverapp import Grid

from wardround.common.errors import RunError, WardroundError
from wardround.common.flower.messages.content import array_bytes
from wardround.common.messages.instructions import TRAIN, Instruction, addressed, pack_instruction
from wardround.common.messages.replies import SiteUpdate, unpack_update
from wardround.common.metrics.sums import merge
from wardround.common.parameters.schema import Parameters
from wardround.common.runtime.fields import plain
from wardround.common.study.study import Study
from wardround.server.checkpoints.store import Progress
from wardround.server.rounds.evaluation import Measured, measure_model
from wardround.server.rounds.updates import RoundResults, UpdateChecks
from wardround.server.sites.exchange import Addressed, Exchange, Node, Post, Reply
from wardround.server.sites.intake import RefusedReplyError, taking_in
from wardround.server.sites.participation import Participation
from wardround.server.strategies.strategy import Strategy

if TYPE_CHECKING:
    from wardround.common.security.lineage import SignedRound
    from wardround.server.rounds.lineage import RoundLineage
    from wardround.server.rounds.unmasking import MaskedRounds


@dataclass(frozen=True, slots=True)
class Asking:
    """Asks the sites of a run to train or to evaluate, and hands their updates to the strategy.

    Attributes:
        lineage: Signs each round; a simulation has none.
        masks: Of a study whose sites mask their updates.
    """

    grid: Grid
    study: Study
    participation: Participation
    exchange: Exchange
    strategy: Strategy
    lineage: "RoundLineage | None"
    masks: "MaskedRounds | None"

    def train(
        self, results: RoundResults, cohort: Sequence[Node], before: Progress, alone: bool
    ) -> None:
        """Have some sites train the round's model, and take their replies in.

        Args:
            alone: Whether this is the round's only wave, which starts from the commit.
        """
        number, admitted = results.number, self.strategy.model()
        update_checks = UpdateChecks(self.study, before.run, number, admitted, before.usual_norm)
        if self.lineage is not None:
            self.lineage.send(admitted)

        def instruction(attempt: int = 0) -> RecordDict:
            auxiliary, chosen = self.strategy.auxiliary(), self.study.evaluation.keep == "best"
            kept = before.best_round if chosen else -1
            content = pack_instruction(
                Instruction(
                    before.digest,
                    before.run,
                    number,
                    {},
                    attempt,
                    auxiliary=auxiliary,
                    kept_round=kept,
                    validate=alone,
                ),
                self.strategy.model(),
            )
            results.bytes_down = array_bytes(content)
            return content

        deadline = self.participation.deadlines.deadline_seconds
        told = self.told_apart(before)
        if self.masks is not None:
            post = Post(self.exchange, deadline, instruction, told, self._miss_in(number))
            self._sum_up(self.masks, results, cohort, before, post)
            return
        for reply in self.exchange.ask(
            cohort, TRAIN, instruction, f"round {number}", deadline, told
        ):
            if reply.is_missing:
                self.participation.miss(reply.node.site, number, reply.is_stuck)
            try:
                self._accumulate(results, reply, update_checks)
            except RefusedReplyError as error:
                results.refuse(reply.node.site, str(error))
            del reply  # or it is still there while the next one arrives

    def told_apart(self, progress: Progress) -> Addressed:
        """Return what adds to an instruction how its site stands with the run and the server."""

        def told(content: RecordDict, node: Node) -> RecordDict:
            site_progress = progress.site_progress(node.site)
            ledger = self.participation.ledgers.known(node.site).or_later(site_progress.ledger)
            return addressed(content, replace(site_progress, ledger=ledger))

        return told

    def _sum_up(
        self,
        masks: "MaskedRounds",
        results: RoundResults,
        cohort: Sequence[Node],
        before: Progress,
        post: Post,
    ) -> None:
        """Have some sites train and mask the round's model, and take their sum in."""
        sent, beside = self.strategy.model(), self.strategy.auxiliary()
        found = masks.sum_up(cohort, before, sent, beside, post, results)
        if not found:
            return
        for one in found:
            self.strategy.accumulate(one.update)
        told = [one.counted.metrics for one in found if one.counted.metrics is not None]
        results.masked = reduce(merge, told) if told else None
        if self.lineage is not None:
            for _ in results.sites:  # a site signs its masked vector, and no update
                self.lineage.count(None)

    def _miss_in(self, number: int) -> Callable[[Reply], None]:
        """Return what notes that a site did not answer in a round."""
        return lambda reply: self.participation.miss(reply.node.site, number, reply.is_stuck)

    def measure(self, nodes: Sequence[Node], progress: Progress, model: Parameters) -> Measured:
        """Have sites evaluate the model of a commit."""
        number = progress.round
        instruction = Instruction(progress.digest, progress.run, number, model)
        told, deadlines = self.told_apart(progress), self.participation.deadlines
        if self.masks is not None:
            post = Post(
                self.exchange,
                deadlines.deadline_seconds,
                lambda attempt: pack_instruction(replace(instruction, attempt=attempt)),
                told,
                self._miss_in(number),
            )
            return self.masks.measure(nodes, progress, model, post)
        measured = measure_model(self.grid, self.study, nodes, instruction, told, deadlines)
        for site, is_stuck in measured.missing.items():
            self.participation.miss(site, number, is_stuck)
        return measured

    def _accumulate(self, results: RoundResults, reply: Reply, update_checks: UpdateChecks) -> None:
        site = reply.node.site
        with taking_in(site):
            if reply.content is None:
                raise RunError(reply.reason)
            signed = self.signed(site, reply.content)
            update = unpack_update(reply.content, self.study)
            self.note(results, site, update)
            model, norm = update_checks.admit(update)
        self.combine(site, replace(update, parameters=model), signed)
        results.count(site, update, norm, results.bytes_down)
        if update.metrics is not None:
            results.sums[site] = update.metrics

    def signed(self, site: str, content: RecordDict) -> "SignedRound | None":
        """Return what a site signed of its update, while its arrays are still in the message."""
        return None if self.lineage is None else self.lineage.take(site, content)

    def combine(self, site: str, update: SiteUpdate, signed: "SignedRound | None") -> None:
        """Hand an update that passed its checks to the strategy.

        Raises:
            RefusedReplyError: It is not what the strategy asked for; nothing was taken in.
        """
        try:
            self.strategy.accumulate(update)
        except WardroundError as error:
            raise RefusedReplyError(plain(error)) from None
        except Exception as error:
            # A defect of ours, perhaps with half of the update in the sum: not to be passed over.
            error.add_note(f"while the update of site {site} was combined")
            raise
        if self.lineage is not None:
            self.lineage.count(signed)

    def note(self, results: RoundResults, site: str, update: SiteUpdate) -> None:
        """Remember how a site's ledger stands, before its update is looked at.

        Raises:
            RunError: It is another ledger than the one that is remembered.
        """
        ledgers = self.participation.ledgers
        if update.ledger.contradicts(ledgers.known(site)):
            msg = (
                f"entry {update.ledger.entries} of its privacy ledger is not the one that this "
                "server has seen: the ledger was written anew. The hospital puts its own back. "
                "Not counted."
            )
            raise RunError(msg)
        ledgers.note(site, update.ledger)
        results.note(site, update)
