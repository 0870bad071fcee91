"""One federated training over site folders of this machine: the two Flower apps and a grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid

from wardround.client.app import app as client_app
from wardround.common.flower.local import SUPERLINK_NODE_ID
from wardround.common.seeds import derive_seed
from wardround.common.study import Study
from wardround.server.app import Outcome, make_server_app
from wardround.server.checkpoints import Commit
from wardround.server.rounds import Listener
from wardround.simulations.engine import InProcessGrid, site_contexts


@dataclass(frozen=True, slots=True)
class Machine:
    """What a simulation may use of this computer.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:1".
        threads: Threads of torch in each process; results repeat bit for bit at equal threads.
    """

    device: str = "auto"
    threads: int = 1


def open_grid(folders: Sequence[Path], study: Study, machine: Machine, alone: bool = False) -> Grid:
    """Return a grid whose sites are these folders.

    Args:
        alone: Whether this is a baseline of one site, whose optimiser keeps its momentum.
    """
    run_id = derive_seed("run", study.digest)
    contexts = site_contexts(folders, study.to_json(), machine.device, run_id)
    for context in contexts.values():
        context.node_config["alone"] = alone
    return InProcessGrid(client_app, contexts, run_id)


def run_federation(
    grid: Grid, study: Study, checkpoints: Path, listener: Listener | None = None
) -> Commit:
    """Run a study over a grid and return its kept model."""
    outcome = Outcome()
    context = Context(
        run_id=grid.run.run_id,
        node_id=SUPERLINK_NODE_ID,
        node_config={},
        state=RecordDict(),
        run_config={"study": study.to_json(), "checkpoints": str(checkpoints)},
    )
    make_server_app(listener, outcome)(grid, context)
    if outcome.commit is None:
        msg = "the server app ended without a model"
        raise RuntimeError(msg)
    return outcome.commit
