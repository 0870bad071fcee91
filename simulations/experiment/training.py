"""Training one model of a simulation: together, alone, or pooled; finished models are kept."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flwr.serverapp import Grid

from wardround.common.parameters.model_file import load_model, save_model
from wardround.common.parameters.schema import Parameters
from wardround.common.study.plans.contributions import has_contributions
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import RoundRecord, read_records
from wardround.server.checkpoints.store import CheckpointStore, Commit
from wardround.server.rounds.loop import RoundFinished
from wardround.server.sites.exchange import Node
from wardround.simulations.experiment.federation import Machine, open_grid, run_federation
from wardround.simulations.run_files.events import (
    RoundDone,
    SiteFailed,
    StageFinished,
    StageStarted,
    Watch,
)
from wardround.simulations.run_files.folder import FEDERATED


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A finished model of the run.

    Attributes:
        name: ``federated``, ``pooled`` or ``local-SITE``.
        run: The run it is from, whose memory a site completes it with.
        round: The round it is from.
    """

    name: str
    run: str
    round: int
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Baseline:
    """A model that the federated one is compared with.

    Attributes:
        folders: The sites that train it; one trains alone.
        study: What they follow.
        unused: Numbers that the federated model has beside, and no answer depends on: the model
            is completed with them, so that the run's network holds it too.
    """

    name: str
    folders: tuple[Path, ...]
    study: Study
    unused: Parameters = field(default_factory=dict)


def train_together(
    run_folder: Path,
    grid: Grid,
    study: Study,
    name: str,
    watch: Watch,
    nodes: Sequence[Node] | None = None,
) -> TrainedModel:
    """Run the study over the grid, from the last commit of an earlier try if there is one.

    Args:
        nodes: The grid's sites, where they have introduced themselves; they are asked otherwise.
    """
    finished = load_trained(run_folder, name)
    if finished is not None:
        return finished
    commit = _run_rounds(run_folder, grid, study, name, watch, nodes)
    return _keep(run_folder, name, commit, {}, watch)


def train_baseline(run_folder: Path, baseline: Baseline, machine: Machine, watch: Watch) -> None:
    """Train a comparison model with the study's own budget; the model is left in a file.

    A baseline that was cut short starts anew: its optimiser's momentum is in no checkpoint.
    """
    name, study = baseline.name, baseline.study
    if load_trained(run_folder, name) is not None:
        return
    shutil.rmtree(checkpoints_of(run_folder, name), ignore_errors=True)
    standalone = len(baseline.folders) == 1
    with open_grid(baseline.folders, study, machine, standalone) as grid:
        commit = _run_rounds(run_folder, grid, study, name, watch)
    _keep(run_folder, name, commit, baseline.unused, watch)


def load_trained(run_folder: Path, name: str) -> TrainedModel | None:
    """Return a finished model, None if it is not finished."""
    path = _model(run_folder, name)
    if not path.exists():
        return None
    saved = load_model(path)
    facts = saved.metadata
    return TrainedModel(name, facts.get("run", ""), int(facts.get("round", "0")), saved.parameters)


def updates_of(run_folder: Path) -> Path:
    """Return where the updates of the federated rounds are kept."""
    return run_folder / "updates"


def history_of(run_folder: Path, name: str) -> tuple[RoundRecord, ...]:
    """Return what is recorded of a model's training, finished or not."""
    return tuple(read_records(CheckpointStore(checkpoints_of(run_folder, name)).history_path))


def _run_rounds(
    run_folder: Path,
    grid: Grid,
    study: Study,
    name: str,
    watch: Watch,
    nodes: Sequence[Node] | None = None,
) -> Commit:
    done = max((record.round for record in history_of(run_folder, name)), default=0)
    watch(StageStarted(name, study.federation.rounds, done))

    def listen(event: RoundFinished) -> None:
        _tell(watch, name, event)

    updates = updates_of(run_folder) if name == FEDERATED and has_contributions(study) else None
    return run_federation(grid, study, checkpoints_of(run_folder, name), listen, nodes, updates)


def _keep(
    run_folder: Path, name: str, commit: Commit, unused: Parameters, watch: Watch
) -> TrainedModel:
    """Write a finished model into its file."""
    run, number = commit.progress.run, commit.progress.round
    parameters = {**commit.parameters, **unused}
    (run_folder / "models").mkdir(exist_ok=True)
    facts = {"round": str(number), "model": name, "run": run}
    save_model(_model(run_folder, name), parameters, facts)
    watch(StageFinished(name))
    return TrainedModel(name, run, number, parameters)


def _tell(watch: Watch, stage: str, event: RoundFinished) -> None:
    record = event.record
    for refusal in record.refusals:
        watch(SiteFailed(stage, record.round, refusal.site, refusal.reason))
    updates = sum(site.updates for site in record.sites)
    watch(
        RoundDone(
            stage, record.round, event.rounds, event.metric, event.value, updates, record.seconds
        )
    )


def checkpoints_of(run_folder: Path, name: str) -> Path:
    """Return where the commits of a model's training lie."""
    return run_folder / "checkpoints" / name


def _model(run_folder: Path, name: str) -> Path:
    return run_folder / "models" / f"{name}.safetensors"
