"""The round loop: have the sites train, decide, aggregate, commit."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flwr.serverapp import Grid

from wardround.common.errors import RunError
from wardround.common.metrics.sums import summarise
from wardround.common.parameters.schema import Parameters
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
from wardround.server.rounds.asking import Asking
from wardround.server.rounds.evaluation import (
    ALL_SITES,
    Measured,
    as_measurements,
    is_better,
    noise_error,
    overall,
    unsaid,
)
from wardround.server.rounds.updates import RoundResults
from wardround.server.sites.exchange import Exchange, Node
from wardround.server.sites.participation import Participation, select_sites
from wardround.server.strategies.strategy import Strategy

if TYPE_CHECKING:
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
        self._asking = Asking(
            self._grid,
            self._study,
            self._participation,
            self._exchange,
            self._strategy,
            lineage,
            masks,
        )
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
            self._asking.train(results, there, before, alone)
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

    def _measure(self, progress: Progress) -> Measured:
        """Have the sites evaluate the model of a commit."""
        mean = None if self._mean is None else self._mean.parameters()
        model = mean or dict(self._store.model(progress.round))
        return self._asking.measure(self._nodes, progress, model)

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
