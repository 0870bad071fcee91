"""The server's Flower ServerApp: unpack, call, keep."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from wardround.common.messages.instructions import new_run
from wardround.common.models.networks.registry import build_network
from wardround.common.models.pretrained import load_pretrained
from wardround.common.models.sharing import Layout, layout_of
from wardround.common.parameters.schema import read_parameters
from wardround.common.runtime.system.memory import return_freed_memory
from wardround.common.study.loading import study_from_json
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study
from wardround.server.checkpoints.store import CheckpointStore, Commit, Progress
from wardround.server.planning.collection import Collected, collect_statistics
from wardround.server.rounds.asynchronous_loop import BufferedLoop
from wardround.server.rounds.loop import Listener, RoundLoop
from wardround.server.sites.deadlines import Deadlines
from wardround.server.sites.exchange import Node
from wardround.server.sites.participation import Participation, SameSites
from wardround.server.sites.site_info import describe_sites
from wardround.server.strategies.composed import make_strategy
from wardround.server.strategies.strategy import Strategy

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from wardround.common.privacy.secure_aggregation.messages import Identities
    from wardround.server.rounds.unmasking import MaskedRounds

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcome:
    """Where a finished run leaves its kept model, or statistics; Flower's apps return nothing."""

    commit: Commit | None = None
    statistics: Collected | None = None  # of a study that asks for them: it trains nothing


Gather = Callable[[Grid, Study], Participation]
Wrap = Callable[[Strategy], Strategy]


def all_connected(grid: Grid, study: Study) -> Participation:
    """Return all sites that are connected, for the whole run.

    Raises:
        WardroundError: One of them cannot take part.
    """
    nodes, _ = describe_sites(grid, study)
    return at_once(nodes, study)


def at_once(nodes: Sequence[Node], study: Study) -> Participation:
    """Return sites that have described themselves, for the whole run."""
    return SameSites(tuple(nodes), Deadlines(study.federation.deadline_seconds))


def make_server_app(
    listener: Listener | None = None,
    outcome: Outcome | None = None,
    gather: Gather = all_connected,
    key: "Ed25519PrivateKey | None" = None,
    wrap: Wrap | None = None,
    identities: "Identities | None" = None,
) -> ServerApp:
    """Return a ServerApp that runs the study of its context.

    The context's run configuration names ``study`` (the study as JSON) and ``checkpoints`` (the
    folder of the commits, from the last of which it goes on), and may say that they need not be
    ``durable``.

    Args:
        gather: Finds the sites of the study; by default all that are connected, at once.
        key: The server's, with which it signs each round; without one no round is signed.
        wrap: Puts something around the strategy: a simulation keeps what it takes in.
        identities: The sites' public keys, for a study whose updates are masked.
    """
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        return_freed_memory()
        study = study_from_json(str(context.run_config["study"]))
        durable = bool(context.run_config.get("durable", True))
        store = CheckpointStore(Path(str(context.run_config["checkpoints"])), durable=durable)
        participation = gather(grid, study)
        nodes = participation.of_round(1)
        if study.statistics.ask:
            found = collect_statistics(grid, study, nodes, participation.deadlines)
            if outcome is not None:
                outcome.statistics = found
            return
        layout = _prepare(study, store)
        strategy = make_strategy(study, layout, [node.examinations for node in nodes])
        if wrap is not None:
            strategy = wrap(strategy)
        loop = RoundLoop if study.federation.buffer_size is None else BufferedLoop
        lineage = None
        if key is not None:
            from wardround.server.rounds.lineage import RoundLineage

            lineage = RoundLineage(store.folder, key, study)
        masks = _masked_rounds(study, identities or {}, store, layout)
        commit = loop(grid, study, participation, store, strategy, listener).run(lineage, masks)
        if study.evaluation.pack:
            _keep_evidence(grid, study, participation, store, commit)
        if outcome is not None:
            outcome.commit = commit

    return server_app


def _masked_rounds(
    study: Study, identities: "Identities", store: CheckpointStore, layout: Layout
) -> "MaskedRounds | None":
    if not study.federation.secure_aggregation:
        return None
    from wardround.server.rounds.unmasking import MaskedRounds

    return MaskedRounds(study, identities, store.folder, layout.trainable)


def _keep_evidence(
    grid: Grid, study: Study, participation: Participation, store: CheckpointStore, commit: Commit
) -> None:
    """Ask the sites once for the evidence that the study names, and keep it beside the history."""
    from wardround.server.checkpoints.evidence import write_evidence
    from wardround.server.rounds.evidence.collection import collect_evidence
    from wardround.server.rounds.evidence.findings import evidence_rows
    from wardround.server.rounds.evidence.noised import measure_with_noise

    nodes = participation.of_round(study.federation.rounds + 1)
    if what_leaves(study).noised_metrics:
        rows = measure_with_noise(grid, study, nodes, commit, participation)
    else:
        found = collect_evidence(grid, study, nodes, commit, participation.deadlines)
        rows = evidence_rows(found, study)
    write_evidence(store.folder, rows)


def _prepare(study: Study, store: CheckpointStore) -> Layout:
    """Return what the study shares of its network; a new run's store is given round 0's model.

    The network itself is let go: from here on the model is in the store.
    """
    network = build_network(study, study.federation.seed)
    layout = layout_of(network, plan_of(study))
    if store.latest() is None:
        if study.model.adapter_rank is None:  # beneath adapters they never travel
            start = load_pretrained(network, study)
            if start is not None:
                logger.info("%s", start.words())
        initial = layout.shared_part(read_parameters(network))
        store.commit(Commit(Progress(study.digest, new_run(), 0), initial))
    return layout


app = make_server_app()
