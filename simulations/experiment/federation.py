"""One federated training over site folders of this machine: the two Flower apps and a grid."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid

from wardround.client.app import app as client_app
from wardround.client.app import close_sessions
from wardround.client.site.device import choose_device, device_for
from wardround.client.site.folder import KEY_FOLDER, open_site
from wardround.common.errors import InputError, StudyError, known_names
from wardround.common.flower.site_grid import SUPERLINK_NODE_ID, SiteGrid
from wardround.common.parameters.compression import CompressionOptions
from wardround.common.privacy.secure_aggregation.messages import Identities
from wardround.common.runtime.seeds import derive_seed
from wardround.common.runtime.system.limits import cores, threads_each
from wardround.common.security.peers import write_peers
from wardround.common.security.signing_key import open_key
from wardround.common.study.study import Study
from wardround.server.app import Outcome, Wrap, all_connected, at_once, make_server_app
from wardround.server.checkpoints.store import Commit
from wardround.server.rounds.loop import Listener
from wardround.server.sites.exchange import Node
from wardround.server.sites.participation import LateSites, Participation
from wardround.server.strategies.kept_updates import KeepingStrategy
from wardround.simulations.adversaries.grid import AdversarialGrid, Wire
from wardround.simulations.adversaries.poisoning import give_role, poisonable_app
from wardround.simulations.adversaries.roles import Role, cast_roles
from wardround.simulations.engines.in_process import InProcessGrid, site_contexts
from wardround.simulations.engines.pool import PoolGrid, WorkerPlan
from wardround.simulations.engines.ray_engine import RayOptions, open_ray_grid
from wardround.simulations.engines.stacked import StacksWork, is_faster_stacked, require_stackable

ENGINES = {
    "auto": "a worker a core (or GPU) where there are several, else one process, in which small "
    "networks are stacked where that was measured to win",
    "in-process": "everything in one process",
    "pool": "persistent worker processes",
    "stacked": "small networks of several sites trained as one, in one process",
    "ray": "Flower's own simulation engine, on Ray: this machine or a cluster",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """What a simulation may use of this computer.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:1".
        engine: A key of ENGINES.
        workers: Worker processes; 0 takes as many as cores or GPUs.
        threads: Threads of torch in each process; 0 shares the cores among the workers, at most
            OMP_NUM_THREADS each. Results repeat bit for bit at equal threads, whether in-process or
            in a pool.
        ray: What the engine "ray" gives each site.
    """

    device: str = "auto"
    engine: str = "auto"
    workers: int = 0
    threads: int = 0
    ray: RayOptions = field(default_factory=RayOptions)

    def check(self) -> None:
        """Refuse what this computer does not have.

        Raises:
            InputError: The engine is unknown or not installed, the device is not there, or a count
                is none.
        """
        counts: dict[str, object] = {"workers": self.workers, "threads": self.threads}
        for name, count in counts.items():  # from Python anything may come
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                msg = f"{name} = {count!r} cannot be used: give a whole number; 0 has it chosen."
                raise InputError(msg)
        if self.engine not in ENGINES:
            raise InputError(known_names("engine", self.engine, ENGINES))
        choose_device(self.device)
        if self.engine == "ray":
            self.ray.check(self.device, cores())

    def for_study(self, study: Study) -> "Machine":
        """Return the machine with "auto" settled where the study settles it.

        Raises:
            InputError: The engine is "stacked", and the study cannot be trained so.
        """
        if self.engine == "stacked":
            require_stackable(study)
        if self.device != "auto" or device_for(self.device, study).type != "cpu":
            return self
        return replace(self, device="cpu")

    def devices_for(self, sites: int) -> tuple[str, ...]:
        """Return one device a worker, for this many sites; one means no worker is needed."""
        chosen = choose_device(self.device)
        if chosen.type == "cuda":
            gpus = torch.cuda.device_count() if self.device in ("auto", "cuda") else 1
            names = tuple(f"cuda:{n}" for n in range(gpus)) if gpus > 1 else (str(chosen),)
        else:
            names = ("cpu",) * (self.workers or cores())
        if self.workers:
            names = tuple(names[i % len(names)] for i in range(self.workers))
        return names[: max(1, sites)]

    def threads_for(self, workers: int) -> int:
        """Return the threads of each worker."""
        return self.threads or threads_each(workers)


# Whose signatures the server of a grid counts; of a study that masks nothing nobody's.
_IDENTITIES: WeakKeyDictionary[Grid, Identities] = WeakKeyDictionary()


@contextmanager
def open_grid(
    folders: Sequence[Path], study: Study, machine: Machine, standalone: bool = False
) -> Iterator[Grid]:
    """Give a grid whose sites are these folders, and stop its workers afterwards.

    Args:
        standalone: Whether this is a baseline of one site, whose optimiser keeps its momentum;
            nobody attacks it.

    Raises:
        StudyError: An adversary of the study does not fit it.
    """
    machine, run_id = machine.for_study(study), derive_seed("run", study.digest)
    devices = machine.devices_for(len(folders))
    contexts = site_contexts(folders, study.to_json(), devices[0], run_id)
    for context in contexts.values():
        context.node_config["standalone"] = standalone
    roles = {} if standalone else _hand_out_roles(study, contexts)
    identities = introduce(folders) if study.federation.secure_aggregation else {}
    app = poisonable_app() if roles else client_app
    if machine.engine == "ray":
        with open_ray_grid(list(contexts.values()), machine.ray, *_shares(machine, folders)) as ray:
            _IDENTITIES[ray] = identities
            yield ray
        return
    grid: SiteGrid
    if machine.engine in ("in-process", "stacked") or (
        machine.engine == "auto" and len(devices) == 1
    ):
        torch.set_num_threads(machine.threads_for(1))
        stacks = StacksWork(contexts) if _is_stacked(machine, study, contexts) else None
        grid = InProcessGrid(app, contexts, run_id, stacks)
    else:
        # Before a fork no thread may run: a child that needs the parent's threads would hang.
        torch.set_num_threads(1)
        load = {node: _size(Path(str(c.node_config["site"]))) for node, c in contexts.items()}
        plan = WorkerPlan(devices, machine.threads_for(len(devices)), load)
        grid = PoolGrid(app, contexts, run_id, plan)
    if roles:
        options = CompressionOptions(kept_fraction=study.federation.kept_fraction)
        wire = Wire(study.federation.compression, options)
        grid = AdversarialGrid(grid, roles, run_id, wire)
    _IDENTITIES[grid] = identities
    try:
        yield grid
    finally:
        grid.close()
        close_sessions()


def run_federation(
    grid: Grid,
    study: Study,
    checkpoints: Path,
    listener: Listener | None = None,
    nodes: Sequence[Node] | None = None,
    updates: Path | None = None,
) -> Commit:
    """Run a study over a grid and return its kept model.

    Args:
        grid: The sites' engine; not closed.
        study: What is run.
        checkpoints: The folder of the run's models and history; a run that is there goes on.
        listener: Is called after each round.
        nodes: The grid's sites, where they have described themselves; they are asked otherwise.
        updates: The folder where the sites' updates are kept; None keeps none.

    Raises:
        RunError: Too few sites replied in a round, or the disk cannot be used.
        RuntimeError: The server app ended without a model, which is a defect of ours.
    """
    outcome = Outcome()
    context = Context(
        run_id=grid.run.run_id,
        node_id=SUPERLINK_NODE_ID,
        node_config={},
        state=RecordDict(),
        run_config={
            "study": study.to_json(),
            "checkpoints": str(checkpoints),
            "durable": False,
        },
    )
    gather = all_connected if nodes is None else lambda _, study: _from_round_to_round(nodes, study)
    wrap = None if updates is None else _keeping(updates, study.simulation.keep_updates_mb)
    identities = _IDENTITIES.get(grid, {})
    make_server_app(listener, outcome, gather, wrap=wrap, identities=identities)(grid, context)
    if outcome.commit is None:
        msg = "the server app ended without a model"
        raise RuntimeError(msg)
    return outcome.commit


def _from_round_to_round(nodes: Sequence[Node], study: Study) -> Participation:
    """Return the sites of a run, of which some may come late; a baseline of one is never late.

    Raises:
        StudyError: A site that comes late is none, or its round is none.
    """
    late, rounds = study.simulation.late, study.federation.rounds
    there = at_once(nodes, study)
    if not late or len(nodes) == 1:
        return there
    names = {node.site for node in nodes}
    for site, first in late.items():
        if site not in names:
            raise StudyError(known_names("site of simulation.late", site, names))
        if first > rounds:
            msg = f"simulation.late: {site} comes in round {first}: give at most {rounds}."
            raise StudyError(msg)
    if names <= late.keys():
        msg = "simulation.late leaves round 1 without a site: let one take part from the first."
        raise StudyError(msg)
    return LateSites(there, late)


def introduce(folders: Sequence[Path]) -> Identities:
    """Tell simulated sites each other's public keys, and return them by the sites' names."""
    keys = {
        open_site(folder).name: open_key(folder / KEY_FOLDER, durable=False).public_key()
        for folder in folders
    }
    for folder in folders:
        write_peers(folder, keys, durable=False)
    return keys


def _keeping(updates: Path, most_megabytes: int) -> Wrap:
    return lambda strategy: KeepingStrategy(strategy, updates, most_megabytes)


def _is_stacked(machine: Machine, study: Study, contexts: Mapping[int, Context]) -> bool:
    """Return whether the sites of one process are trained together."""
    if machine.engine != "auto":
        return machine.engine == "stacked"
    device = next(str(context.node_config["device"]) for context in contexts.values())
    return is_faster_stacked(study, len(contexts), device)


def _hand_out_roles(study: Study, contexts: Mapping[int, Context]) -> dict[int, Role]:
    """Tell the hostile sites what they play; return it by node."""
    names = {node: Path(str(c.node_config["site"])).name for node, c in contexts.items()}
    roles = cast_roles(study, list(names.values()))
    hostile = {node: roles[name] for node, name in names.items() if name in roles}
    for node, role in hostile.items():
        give_role(contexts[node], role)
    return hostile


def _shares(machine: Machine, folders: Sequence[Path]) -> tuple[int, int]:
    """Return how many actors of Ray work at a time on this machine, and the threads of each."""
    each = machine.ray.cpus_per_site
    actors = min(len(folders), machine.workers or max(1, int(cores() / each)))
    return actors, machine.threads or max(1, int(each))


def _size(folder: Path) -> int:
    """Return a site's rows: how much work it is likely to have."""
    with (folder / "manifest.csv").open("rb") as stream:
        return sum(1 for _ in stream)
