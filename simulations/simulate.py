"""A study tried out on one machine: split, train together, train alone, train pooled, compare."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

import wardround
from wardround.client.app import close_sessions
from wardround.common.errors import InputError
from wardround.common.networks import build_network
from wardround.common.parameters import parameter_count
from wardround.common.study import Study, load_study
from wardround.server.introduction import introduce_sites
from wardround.simulations.compare import cross_site_rows
from wardround.simulations.environment import describe_environment
from wardround.simulations.federation import Machine, open_grid
from wardround.simulations.measurements import history_rows, traffic_rows
from wardround.simulations.preparation import PreparedSites, prepare_sites, reopen_sites
from wardround.simulations.run_folder import (
    FEDERATED,
    POOLED,
    MetricRow,
    RunFacts,
    Status,
    TrafficRow,
    local_model,
    read_facts,
    write_facts,
    write_rows,
)
from wardround.simulations.samples import write_samples
from wardround.simulations.training import TrainedModel, history_of, train_baseline, train_together
from wardround.simulations.watch import StageStarted, Watch, nobody


@dataclass(frozen=True, slots=True)
class SimulationRequest:
    """What a user asks for.

    Attributes:
        out: The run folder; must be new, unless the run is resumed.
        data_root: Where real data sets lie; None for the environment's.
        assignment: A saved split to use instead of drawing one.
        command: The command line that repeats this run.
    """

    study: Study
    out: Path
    machine: Machine = field(default_factory=Machine)
    data_root: Path | None = None
    assignment: Path | None = None
    skip_unreadable: bool = False
    command: tuple[str, ...] = ()


def simulate(request: SimulationRequest, watch: Watch = nobody) -> Path:
    """Run a study in simulation and leave a run folder with its report.

    Returns:
        The report.

    Raises:
        InputError: Something asked for cannot be done; nothing is left behind.
        RunError: The run could not go on; its folder tells how far it came.
        KeyboardInterrupt: The user stopped it; its folder can be resumed and has a report.
    """
    out = request.out
    if out.exists() and any(out.iterdir()):
        msg = f"{out} is not empty: choose another --out, or go on with --resume {out}."
        raise InputError(msg)
    existed = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        facts, sites = _begin(request, watch)
    except BaseException:
        # Nothing half-written: what was refused before the first round leaves no folder.
        shutil.rmtree(out, ignore_errors=True)
        if existed:
            out.mkdir()
        raise
    return _run(out, request.study, request.machine, facts, sites, watch)


def resume(out: Path, machine: Machine, watch: Watch = nobody) -> Path:
    """Go on with a run that was stopped, to the model it would have had.

    Raises:
        InputError: The folder holds no run.
    """
    if not (out / "run.json").exists():
        msg = f"{out} holds no run: give the folder that 'wardround simulate --out' wrote."
        raise InputError(msg)
    facts, study = read_facts(out), load_study(out / "study.toml")
    if study.digest != facts.digest:
        msg = f"{out}/study.toml was changed after the run began: start a new run instead."
        raise InputError(msg)
    return _run(out, study, machine, facts, reopen_sites(out), watch)


def _begin(request: SimulationRequest, watch: Watch) -> tuple[RunFacts, PreparedSites]:
    started, study = time.perf_counter(), request.study
    watch(StageStarted("data"))
    torch.set_num_threads(request.machine.threads)
    sites = prepare_sites(
        study, request.out, request.data_root, request.assignment, request.skip_unreadable
    )
    grid = open_grid(sites.folders, study, request.machine)
    _, introductions = introduce_sites(grid, study)
    notes = [f"{i.site}: {note}" for i in introductions for note in i.notes]
    facts = RunFacts(
        wardround=wardround.__version__,
        command=request.command,
        digest=study.digest,
        seed=study.federation.seed,
        started=_now(),
        environment=describe_environment(request.machine.device, request.machine.threads),
        seconds={"data": time.perf_counter() - started},
        notes=(*sites.notes, *notes),
        data=sites.facts,
        parameters=parameter_count(build_network(study, study.federation.seed)),
    )
    (request.out / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    write_facts(request.out, facts)
    return facts, sites


def _run(
    out: Path, study: Study, machine: Machine, facts: RunFacts, sites: PreparedSites, watch: Watch
) -> Path:
    torch.set_num_threads(machine.threads)
    clock = _Clock(dict(facts.seconds))
    status: Status = "failed"
    best_round = facts.best_round
    models: list[TrainedModel] = []
    tested: list[MetricRow] = []
    try:
        for model in _train_all(out, study, machine, sites, watch, clock):
            models.append(model)
        best_round = models[0].round
        with clock.measuring("test"):
            watch(StageStarted("test"))
            grid = open_grid(sites.folders, study, machine)
            tested.extend(cross_site_rows(grid, study, models))
            write_samples(out / "samples.npz", sites.folders, study, models[0].parameters)
        status = "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        close_sessions()
        _write_rows(out, sites, tested, study)
        write_facts(
            out,
            replace(
                facts,
                status=status,
                finished=_now(),
                seconds=clock.seconds,
                best_round=best_round,
            ),
        )
        report = _report(out, watch)
    return report


def _train_all(
    out: Path,
    study: Study,
    machine: Machine,
    sites: PreparedSites,
    watch: Watch,
    clock: "_Clock",
) -> Iterator[TrainedModel]:
    with clock.measuring(FEDERATED):
        grid = open_grid(sites.folders, study, machine)
        yield train_together(out, grid, study, FEDERATED, watch)
    if not study.simulation.compare:
        return
    for folder in sites.folders:
        name = local_model(folder.name)
        with clock.measuring("local"):
            yield train_baseline(out, folder, study, name, machine, watch)
    with clock.measuring(POOLED):
        yield train_baseline(out, sites.pooled, study, POOLED, machine, watch)


def _write_rows(out: Path, sites: PreparedSites, tested: list[MetricRow], study: Study) -> None:
    names = [FEDERATED, *(local_model(folder.name) for folder in sites.folders), POOLED]
    metrics: list[MetricRow] = []
    traffic: list[TrafficRow] = []
    for name in names:
        records = history_of(out, name)
        metrics.extend(history_rows(name, records))
        traffic.extend(traffic_rows(name, records))
    write_rows(out / "metrics.csv", [*metrics, *tested], MetricRow)
    write_rows(out / "traffic.csv", traffic, TrafficRow)


def _report(out: Path, watch: Watch) -> Path:
    from wardround.simulations.report import write_report

    watch(StageStarted("report"))
    return write_report(out)


class _Clock:
    """Wall seconds by part, added up over the tries of a run."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds

    @contextmanager
    def measuring(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[part] = self.seconds.get(part, 0.0) + spent


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
