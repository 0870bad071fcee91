"""A canary round from its questions to its report, with what the server itself does in a round."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from flwr.serverapp import Grid

from wardround.common.errors import WardroundError
from wardround.common.messages.instructions import new_run
from wardround.common.models.networks.registry import build_network
from wardround.common.models.pretrained import load_pretrained
from wardround.common.models.sharing import layout_of
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import Parameters, read_parameters
from wardround.common.study.plans.strategy import fewest_sites, plan_of
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study
from wardround.server.checkpoints.canary import FAILS, TOGETHER, UNTRIED, CanaryReport, CanaryRow
from wardround.server.checkpoints.store import CheckpointStore, Commit, Progress
from wardround.server.rounds.canary.asking import (
    APPROVAL,
    TRANSFER,
    Asking,
    SiteFindings,
    absent_site,
)
from wardround.server.sites.deadlines import Deadlines
from wardround.server.sites.exchange import Node
from wardround.server.strategies.composed import make_strategy

SITES, METRIC, AGGREGATION, COMMIT, MODEL = "sites", "metric", "aggregation", "commit", "model"
_SPACE = "make room on the server's disk, where its runs lie"


@dataclass(frozen=True, slots=True)
class Called:
    """Whom a canary round is for.

    Attributes:
        nodes: Those that are connected.
        absent: Those that are not.
    """

    nodes: tuple[Node, ...]
    absent: tuple[str, ...] = ()


def try_round(
    grid: Grid, study: Study, called: Called, deadlines: Deadlines, folder: Path
) -> CanaryReport:
    """Go through one round of a study at every site and at the server; nothing is trained or kept.

    Args:
        folder: Where the run of the study would keep its models.
    """
    model = first_model(study)
    asking = Asking(grid, study, deadlines, model)
    found = {site: absent_site(site) for site in called.absent}
    found.update(asking.stages(called.nodes))
    allowed = [node for node in called.nodes if not _is_shut(found[node.site])]
    asking.carry(allowed, found)
    ordered = [found[site] for site in sorted(found)]
    server = _at_the_server(study, ordered, model, folder)
    rows = tuple(row for one in ordered for row in one.all_rows())
    return _with_costs(study, (*rows, *server), ordered)


def first_model(study: Study) -> Parameters:
    """Return what sites are sent in a study's first round."""
    network = build_network(study, study.federation.seed)
    if study.model.adapter_rank is None:
        load_pretrained(network, study)
    return layout_of(network, plan_of(study)).shared_part(read_parameters(network))


def _is_shut(one: SiteFindings) -> bool:
    """Whether a site did not get as far as the study itself."""
    approval = one.rows.get(APPROVAL)
    return approval is None or approval.state == FAILS


def _at_the_server(
    study: Study, found: Sequence[SiteFindings], model: Parameters, folder: Path
) -> list[CanaryRow]:
    """Return how the stages go that are about all sites together."""
    rows = [_enough(study, found), _metric(study, found)]
    carried = [one for one in found if one.update is not None]
    try:
        following = _aggregated(study, carried, model)
    except WardroundError as error:
        fact = f"the updates of {len(carried)} sites cannot be combined: {error}"
        remedy = "have more sites take part, or choose another federation.strategy"
        rows.append(CanaryRow(TOGETHER, AGGREGATION, FAILS, fact, remedy))
        return [*rows, *_untried(COMMIT, MODEL)]
    if following is None:
        return [*rows, *_untried(AGGREGATION, COMMIT, MODEL)]
    rows.append(CanaryRow(TOGETHER, AGGREGATION, "ok"))
    return [*rows, *_kept(study, following, folder)]


def _untried(*stages: str) -> list[CanaryRow]:
    return [CanaryRow(TOGETHER, stage, UNTRIED, "no update came back") for stage in stages]


def _enough(study: Study, found: Sequence[SiteFindings]) -> CanaryRow:
    """Return whether a round would have as many sites as it needs."""
    through = [one.site for one in found if not one.fails]
    needed = max(study.federation.minimum_sites, fewest_sites(plan_of(study)))
    if len(through) >= needed:
        return CanaryRow(TOGETHER, SITES, "ok")
    fact = f"{len(through)} of {len(found)} sites get through a round, and {needed} are needed"
    by = "the study" if needed == study.federation.minimum_sites else "its strategy"
    remedy = f"mend the sites above; {by} sets that number"
    return CanaryRow(TOGETHER, SITES, FAILS, fact, remedy)


def _metric(study: Study, found: Sequence[SiteFindings]) -> CanaryRow:
    """Return whether anybody would hear of the study's metric."""
    if not what_leaves(study).round_metrics and study.evaluation.validation_fraction == 0:
        return CanaryRow(TOGETHER, METRIC, "ok")
    tried = [one.rows["metrics"] for one in found if "metrics" in one.rows]
    if not tried:
        return CanaryRow(TOGETHER, METRIC, UNTRIED, "no site has said")
    if any(row.state in ("ok", UNTRIED) for row in tried):
        return CanaryRow(TOGETHER, METRIC, "ok")
    fact = f"no site would say {study.metric}: the run would show none in any round"
    remedy = "see the rows on metrics: more validation patients, another metric, or a policy"
    return CanaryRow(TOGETHER, METRIC, FAILS, fact, remedy)


def _aggregated(
    study: Study, carried: Sequence[SiteFindings], model: Parameters
) -> Parameters | None:
    """Return what the strategy makes of the updates that came; None if none did."""
    updates = {one.site: one.update for one in carried if one.update is not None}
    if not updates:
        return None
    layout = layout_of(build_network(study, study.federation.seed), plan_of(study))
    strategy = make_strategy(study, layout, [one.examinations for one in updates.values()])
    strategy.begin(1, model)
    for cohort in strategy.cohorts(sorted(updates)):
        for site in cohort:
            strategy.accumulate(updates[site])
    return strategy.finish()


def _kept(study: Study, model: Parameters, folder: Path) -> list[CanaryRow]:
    """Return whether a model can be committed here, and read again as it was."""
    try:
        with TemporaryDirectory(dir=folder) as place:
            store = CheckpointStore(Path(place))
            store.commit(Commit(Progress(study.digest, new_run(), 1), model))
            again = store.latest()
    except (OSError, WardroundError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        fact = f"the model cannot be kept: {reason}"
        row = CanaryRow(TOGETHER, COMMIT, FAILS, fact, _SPACE)
        return [row, CanaryRow(TOGETHER, MODEL, UNTRIED, "nothing was committed")]
    row = CanaryRow(TOGETHER, COMMIT, "ok")
    if again is not None and digest(again.parameters) == digest(model):
        return [row, CanaryRow(TOGETHER, MODEL, "ok")]
    fact = "the model that was committed is not the one that is read again"
    return [row, CanaryRow(TOGETHER, MODEL, FAILS, fact, "look at the server's disk")]


def _with_costs(
    study: Study, rows: tuple[CanaryRow, ...], found: Sequence[SiteFindings]
) -> CanaryReport:
    known = [one.seconds for one in found if one.seconds is not None]
    slowest = max(known, default=math.nan)
    rounds = study.federation.rounds
    return CanaryReport(
        rows,
        rounds,
        None if math.isnan(slowest) else slowest,
        None if math.isnan(slowest) else slowest * rounds,
        max((one.bytes_of_a_site for one in found if TRANSFER in one.rows), default=0) * rounds,
    )
