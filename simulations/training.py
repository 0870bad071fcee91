"""Training one model of a simulation: together, alone, or pooled; finished models are kept."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from flwr.serverapp import Grid

from wardround.common.parameters import Parameters, load_model, save_model
from wardround.common.study import Study
from wardround.server.checkpoints import CheckpointStore
from wardround.server.history import RoundRecord, read_records
from wardround.server.rounds import RoundFinished
from wardround.simulations.federation import Machine, open_grid, run_federation
from wardround.simulations.watch import RoundDone, SiteFailed, StageStarted, Watch


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A finished model of the run.

    Attributes:
        name: ``federated``, ``pooled`` or ``local-SITE``.
        round: The round it is from.
    """

    name: str
    round: int
    parameters: Parameters
    records: tuple[RoundRecord, ...]


def train_together(
    run_folder: Path, grid: Grid, study: Study, name: str, watch: Watch
) -> TrainedModel:
    """Run the study over the grid, from the last commit of an earlier try if there is one."""
    watch(StageStarted(name, study.federation.rounds))
    finished = _finished(run_folder, name)
    if finished is not None:
        return finished
    checkpoints = _checkpoints(run_folder, name)

    def listen(event: RoundFinished) -> None:
        _tell(watch, name, event)

    commit = run_federation(grid, study, checkpoints, listen)
    number = commit.progress.round
    (run_folder / "models").mkdir(exist_ok=True)
    save_model(_model(run_folder, name), commit.parameters, {"round": str(number), "model": name})
    records = tuple(read_records(CheckpointStore(checkpoints).history_path))
    return TrainedModel(name, number, commit.parameters, records)


def train_baseline(
    run_folder: Path, folder: Path, study: Study, name: str, machine: Machine, watch: Watch
) -> TrainedModel:
    """Train one site folder alone with the study's own budget.

    A baseline that was cut short starts anew: its optimiser's momentum is in no checkpoint.
    """
    if _finished(run_folder, name) is None:
        shutil.rmtree(_checkpoints(run_folder, name), ignore_errors=True)
    grid = open_grid([folder], study, machine, alone=True)
    return train_together(run_folder, grid, study, name, watch)


def history_of(run_folder: Path, name: str) -> tuple[RoundRecord, ...]:
    """Return what is recorded of a model's training, finished or not."""
    return tuple(read_records(CheckpointStore(_checkpoints(run_folder, name)).history_path))


def _finished(run_folder: Path, name: str) -> TrainedModel | None:
    path = _model(run_folder, name)
    if not path.exists():
        return None
    saved = load_model(path)
    number = int(saved.metadata.get("round", "0"))
    return TrainedModel(name, number, saved.parameters, history_of(run_folder, name))


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


def _checkpoints(run_folder: Path, name: str) -> Path:
    return run_folder / "checkpoints" / name


def _model(run_folder: Path, name: str) -> Path:
    return run_folder / "models" / f"{name}.safetensors"
