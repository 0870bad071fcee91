"""What each site contributed, from the updates that the rounds left: nothing is trained anew.

The rounds are aggregated again by the server's own strategy, from the updates of some of the sites
alone, along the way that the training took (Song et al., IEEE Big Data 2019: "multi-rounds" where a
block is a round, "one-round" where a block is all rounds). A block's improvement is divided by
Shapley's rule, and the blocks' shares are added: all together are the whole improvement, from the
untrained model to the one that was kept.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from wardround.client.data.cohort import Cohort
from wardround.client.data.cohorts import Cohorts, open_cohorts
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.client.training.evaluation import Loss, evaluate
from wardround.client.training.losses.registry import build_loss
from wardround.common.errors import ModelError, RunError
from wardround.common.messages.replies import SiteUpdate
from wardround.common.metrics.sums import merge, summarise
from wardround.common.parameters.schema import Parameters, write_parameters
from wardround.common.statistics.joining.shapley import (
    MOST_EXACT,
    Shares,
    exact_shares,
    sampled_shares,
)
from wardround.common.study.plans.contributions import MOST_SITES, has_contributions
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study
from wardround.server.strategies.composed import make_strategy
from wardround.server.strategies.kept_updates import kept_rounds, read_start, read_updates
from wardround.server.strategies.strategy import Strategy
from wardround.simulations.run_files.contributions import ContributionRow

MOST_MODELS = 32  # that are measured for the shares; more only where one block needs more
MOST_VISITS = 20_000  # of a model to a site, where orders of joining are drawn
_FEWEST_ORDERS = 3
_TOLERANCE = 1e-3  # of the metric: an order of joining ends when so little is left
_CPU = torch.device("cpu")


def contribution_rows(
    folders: Sequence[Path],
    study: Study,
    updates: Path,
    kept_round: int,
    opened: Mapping[Path, Cohorts] | None = None,
) -> Iterator[ContributionRow]:
    """Yield a row a site; none where contributions cannot be told.

    Args:
        folders: The sites.
        study: What was run.
        updates: Where the rounds' updates were kept.
        kept_round: The round whose model was kept; later ones contributed nothing to it.
        opened: The sites' patients, where somebody has read their manifests already.
    """
    rounds = kept_rounds(updates)[: max(0, kept_round)]
    if not has_contributions(study) or len(folders) > MOST_SITES or not rounds:
        return
    utility = Utility.of(folders, study, opened)
    if utility is None:
        return
    try:
        told = [read_updates(updates, number) for number in rounds]
        start = read_start(updates)
        replay = Replay.of(study, utility.context, told)
        names = sorted({update.site for updates_of_round in told for update in updates_of_round})
        rows = list(_rows(names, replay, utility, start))
    except (RunError, ModelError):
        # Fewer sites than the rule or the metric can work with, or a file that was changed: the
        # run is finished all the same, and its report says that contributions are not told.
        return
    yield from rows


def _rows(
    names: Sequence[str], replay: "Replay", utility: "Utility", start: Parameters
) -> Iterator[ContributionRow]:
    starts = replay.along(start, block_lengths(len(replay.told), len(names)))
    values = [utility(point.model) for point in starts]
    shares = [
        _shares_of(names, replay, utility, points, both)
        for points, both in zip(pairwise(starts), pairwise(values), strict=True)
    ]
    before, after = values[0], values[-1]
    for place, name in enumerate(names):
        others = frozenset(names) - {name}
        without = replay.play(starts[0], len(replay.told), others)
        yield ContributionRow(
            site=name,
            rounds=len(replay.told),
            split=utility.split,
            patients=utility.patients,
            start=utility.sign * before,
            end=utility.sign * after,
            leave_one_out=after - utility(without.model),
            shapley=float(sum(part.values[place] for part in shares)),
            error=math.hypot(*(float(part.errors[place]) for part in shares)),
            method="exact" if len(names) <= MOST_EXACT else "sampled",
        )


def block_lengths(rounds: int, sites: int) -> list[int]:
    """Return how the rounds are divided, so that not too many models have to be measured."""
    blocks = 1
    if sites <= MOST_EXACT:
        blocks = min(rounds, max(1, MOST_MODELS // 2**sites))
    return [len(part) for part in np.array_split(np.arange(rounds), blocks)]


def _shares_of(
    names: Sequence[str],
    replay: "Replay",
    utility: "Utility",
    points: tuple["Point", "Point"],
    values: tuple[float, float],
) -> Shares:
    """Divide the improvement of one block, from one point to the next, among the sites."""
    start, end = points
    known = {frozenset[int](): values[0], frozenset(range(len(names))): values[1]}

    def value(subset: frozenset[int]) -> float:
        if subset not in known:
            chosen = frozenset(names[place] for place in subset)
            known[subset] = utility(replay.play(start, end.done - start.done, chosen).model)
        return known[subset]

    if len(names) <= MOST_EXACT:
        return exact_shares(len(names), value)
    generator = np.random.default_rng(0)
    return sampled_shares(len(names), value, orders_for(len(names)), generator, _TOLERANCE)


def orders_for(sites: int) -> int:
    """Return how many orders of joining are drawn: one a site, fewer where sites are many.

    An order needs a model a site, and each model visits all sites: with an order a site that grows
    with the third power of the sites.
    """
    return min(sites, max(_FEWEST_ORDERS, MOST_VISITS // sites**2))


@dataclass(frozen=True, slots=True)
class Point:
    """Where the training stood.

    Attributes:
        done: Rounds that lie behind.
        model: What the next round starts from.
        state: What the server's strategy remembers.
    """

    done: int
    model: Parameters = field(repr=False)
    state: Parameters = field(repr=False)


@dataclass(frozen=True, slots=True)
class Replay:
    """The rounds of a run, aggregated again.

    Attributes:
        told: The updates of each round, in the order in which the server took them in.
        make: Returns the server's strategy with nothing remembered.
    """

    told: Sequence[Sequence[SiteUpdate]]
    make: Callable[[], Strategy]

    @classmethod
    def of(
        cls, study: Study, context: ModelContext, told: Sequence[Sequence[SiteUpdate]]
    ) -> "Replay":
        """Return the replay of a study's rounds."""
        counts = {update.site: update.examinations for updates in told for update in updates}
        return cls(told, lambda: make_strategy(study, context.layout, list(counts.values())))

    def play(self, start: Point, rounds: int, sites: frozenset[str] | None = None) -> Point:
        """Return where some rounds would have led with the updates of some sites alone.

        Args:
            start: Where they begin.
            rounds: How many.
            sites: Whose updates count; None for all. A round without one leaves the model.

        Raises:
            RunError: The strategy cannot work with so few.
        """
        strategy, model = self.make(), start.model
        strategy.restore(dict(start.state))
        for number in range(start.done, start.done + rounds):
            counted = [one for one in self.told[number] if sites is None or one.site in sites]
            if not counted:
                continue
            strategy.begin(number + 1, model)
            for update in counted:
                strategy.accumulate(update)
            model = strategy.finish()
        state = {name: tensor.clone() for name, tensor in strategy.state().items()}
        return Point(start.done + rounds, model, state)

    def along(self, model: Parameters, lengths: Sequence[int]) -> list[Point]:
        """Return where each block of rounds began, and where the last one ended."""
        points = [Point(0, model, {})]
        for length in lengths:
            points.append(self.play(points[-1], length))
        return points


@dataclass(frozen=True, slots=True)
class Utility:
    """How good a model is for the patients of all sites together; higher is better.

    Attributes:
        sign: -1 where the metric is better when it is lower.
    """

    context: ModelContext
    cohorts: Sequence[Cohort]
    losses: Sequence[Loss]
    split: str
    patients: int
    sign: int

    @classmethod
    def of(
        cls,
        folders: Sequence[Path],
        study: Study,
        opened: Mapping[Path, Cohorts] | None = None,
    ) -> "Utility | None":
        """Return it on the validation patients, or the test ones where there are none."""
        known = opened or {}
        sites = [known.get(folder) or open_cohorts(open_site(folder), study) for folder in folders]
        for split in ("validation", "test"):
            held = [(one, getattr(one, split)) for one in sites]
            held = [(one, cohort) for one, cohort in held if len(cohort)]
            if held:
                return cls(
                    ModelContext.build(study, "cpu"),
                    [cohort for _, cohort in held],
                    [_loss_of(one.train, study) for one, _ in held],
                    split,
                    sum(cohort.patient_count for _, cohort in held),
                    1 if METRICS[study.metric].higher_is_better else -1,
                )
        return None

    def __call__(self, model: Parameters) -> float:
        """Return the study's metric of a model.

        Raises:
            RunError: It is not defined for these patients, or the model's output is no number.
        """
        context, study = self.context, self.context.study
        write_parameters(context.network, context.on_base(model))
        measured = [
            evaluate(context.network, cohort, study, _CPU, loss)
            for cohort, loss in zip(self.cohorts, self.losses, strict=True)
        ]
        values = {
            value.metric: value.value
            for value in summarise(reduce(merge, measured), study)
            if not value.class_name
        }
        if math.isnan(values[study.metric]):
            msg = f"{study.metric} is not defined for the {self.split} patients."
            raise RunError(msg)
        return self.sign * values[study.metric]


def _loss_of(train: Cohort, study: Study) -> Loss:
    balanced = study.training.class_weights == "balanced"
    return build_loss(study, train.class_counts() if balanced else None, _CPU)
