"""The round loop: send, collect, decide, aggregate, commit."""

import math
import statistics
import time
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
from wardround.common.metrics.sums import merge, summarise
from wardround.common.parameters.schema import Parameters
from wardround.common.runtime.fields import plain
from wardround.common.study.plans.patient_privacy import is_measured
from wardround.common.study.plans.what_leaves import kept_model, what_leaves
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import (
    Measurement,
    RefusalRecord,
    RoundRecord,
    append_record,
    heard_in,
    read_records,
    truncate,
)
from wardround.server.checkpoints.store import CheckpointStore, Commit, Progress
from wardround.server.rounds.evaluation import (
    ALL_SITES,
    Measured,
    as_measurements,
    is_better,
    measure_model,
    noise_error,
    overall,
    unsaid,
)
from wardround.server.rounds.updates import RoundResults, UpdateChecks
from wardround.server.sites.exchange import Addressed, Exchange, Node, Post, Reply
from wardround.server.sites.intake import RefusedReplyError, taking_in
from wardround.server.sites.participation import Participation, select_sites
from wardround.server.strategies.strategy import Strategy

if TYPE_CHECKING:
    from wardround.common.security.lineage import SignedRound
    from wardround.server.rounds.lineage import RoundLineage
    from wardround.server.rounds.mean_model import MeanModel
    from wardround.server.rounds.unmasking import MaskedRounds


@dataclass(frozen=True, slots=True)
class RoundFinished:
    """Told to the listener after each commit.

    Attributes:
        value: The study's metric, of the model that the round started from.
    """

    record: RoundRecord
    rounds: int
    metric: str
    value: float


Listener = Callable[[RoundFinished], None]
MOST_LOST_IN_ROW = 3  # rounds without a sum, after which a run does not go on by itself


def _mean_model(study: Study) -> "MeanModel | None":
    if study.federation.ema is None:
        return None
    from wardround.server.rounds.mean_model import MeanModel

    return MeanModel(study.federation.ema)


class RoundLoop:
    """Runs one study over a grid of sites, from its last commit to its end.

    Every round starts from the commit on disk, as it would after a crash. The loop itself holds no
    model, so that memory is what the strategy needs: for a mean, its sum and one site's reply.
    """

    def __init__(
        self,
        grid: Grid,
        study: Study,
        participation: Participation,
        store: CheckpointStore,
        strategy: Strategy,
        listener: Listener | None = None,
    ) -> None:
        self._grid = grid
        self._study = study
        self._participation = participation
        self._nodes: tuple[Node, ...] = ()
        self._quorum = 0
        self._deadlines = participation.deadlines
        self._store = store
        self._listener = listener
        self._strategy = strategy
        self._exchange = Exchange(grid, self._deadlines.absence_seconds, participation.wait)
        self._lineage: RoundLineage | None = None
        self._mean = _mean_model(study)
        self._masks: MaskedRounds | None = None
        self._heard: set[str] = set()  # the sites that are in a round's record
        self._lost_in_row = 0

    def run(
        self, lineage: "RoundLineage | None" = None, masks: "MaskedRounds | None" = None
    ) -> Commit:
        """Train until the last round, or until the metric stops improving.

        Args:
            lineage: Signs each round; a simulation has none.
            masks: Of a study whose sites mask their updates.

        Returns:
            The kept model: the best on the validation patients, or the last if there are none.

        Raises:
            RunError: A round had fewer answers than ``federation.minimum_sites``, or the store
                holds no commit of this study, at least that of round 0.
        """
        self._lineage, self._masks = lineage, masks
        progress = self._begin()
        while progress.round < self._study.federation.rounds and not progress.stopped:
            progress = self._round(progress)
        return self._close(progress)

    def _begin(self) -> Progress:
        commit = self._store.latest()
        if commit is None:
            msg = f"{self._store.folder} holds no whole commit: start a new run."
            raise RunError(msg)
        if commit.progress.digest != self._study.digest:
            msg = "the checkpoints belong to another study: choose another folder."
            raise RunError(msg)
        truncate(self._store.history_path, commit.progress.history_bytes)
        records = read_records(self._store.history_path)
        self._deadlines.learn(records)
        self._heard = {site for record in records for site in heard_in(record)}
        self._nodes = self._participation.of_round(commit.progress.round + 1)
        self._quorum = min(self._study.federation.minimum_sites, len(self._nodes))
        remembered = commit.strategy
        if self._mean is not None:
            remembered = self._mean.restore(remembered)
        self._strategy.restore(remembered)
        if self._lineage is not None:
            self._lineage.begin(commit.progress, commit.parameters)
        return commit.progress

    def _round(self, before: Progress) -> Progress:
        started = time.perf_counter()
        number = before.round + 1
        results = RoundResults(number)
        self._assemble(results)
        self._strategy.begin(number, self._store.model(before.round))
        cohorts = self._strategy.cohorts(select_sites(self._nodes, self._study, number))
        # A site evaluates what it is sent. Only in a single wave is that the round's own model.
        # What has noise is asked for apart, for it is accounted apart.
        # A mean over the rounds' models is no model that a site is sent to train.
        leaves, alone = what_leaves(self._study), len(cohorts) == 1 and self._mean is None
        apart = Measured()
        if leaves.round_metrics and (leaves.noised_metrics or not alone):
            apart = self._measure(before)
        for cohort in cohorts:
            there = [node for node in cohort if node.site not in apart.missing]
            self._train(results, there, before, alone)
        self._require_round(results)
        record = RoundRecord(
            round=number,
            measured_round=number - 1,
            seconds=time.perf_counter() - started,
            sites=tuple(results.sites),
            refusals=(*apart.refusals, *results.refusals, *self._unsaid(results, alone)),
            measurements=apart.values or self._measurements(results),
        )
        norms = [norm for norm in results.norms if not math.isnan(norm)]
        usual = statistics.median(norms) if norms else math.nan
        usual = usual or before.usual_norm  # no site moved at a learning rate of 0
        after = replace(results.onto(before), usual_norm=usual)
        if results.lost:  # the model stays as it was
            return self._commit(after, dict(self._store.model(before.round)), record)
        return self._commit(after, self._strategy.finish(), record)

    def _measurements(self, results: RoundResults) -> tuple[Measurement, ...]:
        """Return what was measured of the model that the round started from."""
        if results.masked is not None:
            values = summarise(results.masked, self._study)
            return (Measurement(ALL_SITES, "validation", values),)
        return as_measurements(results.sums, "validation", self._study)

    def _unsaid(self, results: RoundResults, alone: bool) -> list[RefusalRecord]:
        """Return why sites that trained say nothing of the study's metric in their updates."""
        leaves = what_leaves(self._study)
        if not leaves.round_metrics or leaves.noised_metrics or leaves.masked or not alone:
            return []  # asked for apart, with its own reasons
        trained = [site.site for site in results.sites]
        return [
            reason
            for site in trained
            for reason in unsaid(site, results.sums.get(site), "validation", self._study)
        ]

    def _assemble(self, results: RoundResults) -> None:
        """Find out who is there for a round, and note who is not."""
        for late in self._exchange.late_replies():
            results.refuse(late.site, f"{late.reason}: not counted.")
            self._deadlines.learn_late(late.seconds)
            self._participation.note(late.site)
        self._nodes = self._participation.of_round(results.number)
        for site, reason in self._participation.absent().items():
            results.refuse(site, reason)

    def _train(
        self, results: RoundResults, cohort: Sequence[Node], before: Progress, alone: bool
    ) -> None:
        """Have some sites train the round's model, and take their replies in.

        Args:
            alone: Whether this is the round's only wave, which starts from the commit.
        """
        number, admitted = results.number, self._strategy.model()
        update_checks = UpdateChecks(self._study, before.run, number, admitted, before.usual_norm)
        if self._lineage is not None:
            self._lineage.send(admitted)

        def instruction(attempt: int = 0) -> RecordDict:
            auxiliary, chosen = self._strategy.auxiliary(), self._study.evaluation.keep == "best"
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
                self._strategy.model(),
            )
            results.bytes_down = array_bytes(content)
            return content

        deadline = self._deadlines.deadline_seconds
        told = self._told_apart(before)
        if self._masks is not None:
            post = Post(self._exchange, deadline, instruction, told, self._miss_in(number))
            self._sum_up(self._masks, results, cohort, before, post)
            return
        for reply in self._exchange.ask(
            cohort, TRAIN, instruction, f"round {number}", deadline, told
        ):
            if reply.is_missing:
                self._participation.miss(reply.node.site, number, reply.is_stuck)
            try:
                self._accumulate(results, reply, update_checks)
            except RefusedReplyError as error:
                results.refuse(reply.node.site, str(error))
            del reply  # or it is still there while the next one arrives

    def _sum_up(
        self,
        masks: "MaskedRounds",
        results: RoundResults,
        cohort: Sequence[Node],
        before: Progress,
        post: Post,
    ) -> None:
        """Have some sites train and mask the round's model, and take their sum in."""
        sent, beside = self._strategy.model(), self._strategy.auxiliary()
        found = masks.sum_up(cohort, before, sent, beside, post, results)
        if not found:
            return
        for one in found:
            self._strategy.accumulate(one.update)
        told = [one.counted.metrics for one in found if one.counted.metrics is not None]
        results.masked = reduce(merge, told) if told else None
        if self._lineage is not None:
            for _ in results.sites:  # a site signs its masked vector, and no update
                self._lineage.count(None)

    def _miss_in(self, number: int) -> Callable[[Reply], None]:
        """Return what notes that a site did not answer in a round."""
        return lambda reply: self._participation.miss(reply.node.site, number, reply.is_stuck)

    def _measure(self, progress: Progress) -> Measured:
        """Have the sites evaluate the model of a commit."""
        number = progress.round
        mean = None if self._mean is None else self._mean.parameters()
        model = mean or dict(self._store.model(number))
        instruction = Instruction(progress.digest, progress.run, number, model)
        told, deadlines = self._told_apart(progress), self._deadlines
        if self._masks is not None:
            post = Post(
                self._exchange,
                deadlines.deadline_seconds,
                lambda attempt: pack_instruction(replace(instruction, attempt=attempt)),
                told,
                self._miss_in(number),
            )
            return self._masks.measure(self._nodes, progress, model, post)
        measured = measure_model(self._grid, self._study, self._nodes, instruction, told, deadlines)
        for site, is_stuck in measured.missing.items():
            self._participation.miss(site, number, is_stuck)
        return measured

    def _accumulate(self, results: RoundResults, reply: Reply, update_checks: UpdateChecks) -> None:
        site = reply.node.site
        with taking_in(site):
            if reply.content is None:
                raise RunError(reply.reason)
            signed = self._signed(site, reply.content)
            update = unpack_update(reply.content, self._study)
            self._note(results, site, update)
            model, norm = update_checks.admit(update)
        self._combine(site, replace(update, parameters=model), signed)
        results.count(site, update, norm, results.bytes_down)
        if update.metrics is not None:
            results.sums[site] = update.metrics

    def _signed(self, site: str, content: RecordDict) -> "SignedRound | None":
        """Return what a site signed of its update, while its arrays are still in the message."""
        return None if self._lineage is None else self._lineage.take(site, content)

    def _combine(self, site: str, update: SiteUpdate, signed: "SignedRound | None") -> None:
        """Hand an update that passed its checks to the strategy.

        Raises:
            RefusedReplyError: It is not what the strategy asked for; nothing was taken in.
        """
        try:
            self._strategy.accumulate(update)
        except WardroundError as error:
            raise RefusedReplyError(plain(error)) from None
        except Exception as error:
            # A defect of ours, perhaps with half of the update in the sum: not to be passed over.
            error.add_note(f"while the update of site {site} was combined")
            raise
        if self._lineage is not None:
            self._lineage.count(signed)

    def _commit(self, before: Progress, parameters: Parameters, record: RoundRecord) -> Progress:
        self._pin_before_newcomers(before, record)
        progress = self._with_best(before, record)
        deadlines = self._study.federation.patience_rounds
        stale = record.measured_round - progress.best_round if progress.best_round >= 0 else 0
        progress = replace(
            progress,
            round=record.round,
            history_bytes=append_record(self._store.history_path, record),
            stopped=deadlines is not None and stale >= deadlines,
        )
        state, evaluated = self._strategy.state(), None
        if self._mean is not None:
            self._mean.take(record.round, parameters)
            state, evaluated = {**state, **self._mean.state()}, self._mean.parameters()
        if self._lineage is not None:
            self._lineage.commit(progress, parameters, evaluated)
        self._store.commit(Commit(progress, parameters, state))
        self._deadlines.learn([record])
        if self._listener is not None:
            metric = self._study.metric
            value = overall(record.measurements, metric)
            self._listener(RoundFinished(record, self._study.federation.rounds, metric, value))
        return progress

    def _pin_before_newcomers(self, before: Progress, record: RoundRecord) -> None:
        """Keep the last commit without a site that is heard of now; before round 1 is none."""
        newcomers = heard_in(record) - self._heard
        if newcomers and before.round:
            self._store.pin(before)
        self._heard |= newcomers

    def _close(self, progress: Progress) -> Commit:
        """Measure the last model too, then return the one that is kept."""
        number = progress.round
        self._nodes = self._participation.of_round(number + 1)
        leaves = what_leaves(self._study)
        is_told = not leaves.noised_metrics or (
            is_measured(self._study, "validation") and not leaves.masked
        )
        measured = self._measure(progress) if is_told else Measured()
        closing = RoundRecord(number + 1, number, 0.0, (), measured.refusals, measured.values)
        append_record(self._store.history_path, closing)
        if self._masks is not None:
            self._masks.end(self._nodes, progress, self._exchange)
        best = self._with_best(progress, closing).best_round
        is_last = kept_model(self._study) == "last" or best == -1
        kept = self._store.load(number if is_last else best)
        return replace(kept, parameters=kept.evaluated)

    def _with_best(self, before: Progress, record: RoundRecord) -> Progress:
        metric, best = self._study.metric, before.best_value
        value = overall(record.measurements, metric)
        error = noise_error(record.measurements, metric, self._study)
        if not is_better(value, best, metric, error):
            return before
        # The mark to beat stays: it is not lowered by a model that won within the error.
        kept = value if is_better(value, best, metric) else best
        return replace(before, best_round=record.measured_round, best_value=kept)

    def _require_round(self, results: RoundResults) -> None:
        """Check that a round has enough updates, or is one of few that were lost in a row."""
        self._lost_in_row = self._lost_in_row + 1 if results.lost else 0
        if not results.lost:
            self._require_quorum(results)
        elif self._lost_in_row >= min(MOST_LOST_IN_ROW, self._study.federation.rounds):
            msg = (
                f"{self._lost_in_row} rounds in a row ended without a sum (the last: "
                f"{results.reasons()}). "
                "Put right what these reasons say, and resume the run."
            )
            raise RunError(msg)

    def _require_quorum(self, results: RoundResults) -> None:
        if self._masks is not None:
            return  # a sum is of the threshold at least, of a roster of so many sites
        needed = self._quorum
        if len(results.sites) >= needed:
            return
        msg = (
            f"round {results.number} has {len(results.sites)} updates "
            f"and needs {needed} ({results.reasons()}). "
            "Put right what these reasons say, or lower federation.minimum_sites, and resume the "
            "run."
        )
        raise RunError(msg)

    def _told_apart(self, progress: Progress) -> Addressed:
        """Return what adds to an instruction how its site stands with the run and the server."""

        def told(content: RecordDict, node: Node) -> RecordDict:
            site_progress = progress.site_progress(node.site)
            ledger = self._participation.ledgers.known(node.site).or_later(site_progress.ledger)
            return addressed(content, replace(site_progress, ledger=ledger))

        return told

    def _note(self, results: RoundResults, site: str, update: SiteUpdate) -> None:
        """Remember how a site's ledger stands, before its update is looked at.

        Raises:
            RunError: It is another ledger than the one that is remembered.
        """
        ledgers = self._participation.ledgers
        if update.ledger.contradicts(ledgers.known(site)):
            msg = (
                f"entry {update.ledger.entries} of its privacy ledger is not the one that this "
                "server has seen: the ledger was written anew. The hospital puts its own back. "
                "Not counted."
            )
            raise RunError(msg)
        ledgers.note(site, update.ledger)
        results.note(site, update)
