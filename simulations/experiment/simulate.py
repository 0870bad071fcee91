"""A study tried out on one machine: split, train together, train alone, train pooled, compare."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import wardround
from wardround.common.errors import DataError, InputError
from wardround.common.models.pretrained import frozen_as_drawn, start_of
from wardround.common.study.loading import load_study, require_simulation
from wardround.common.study.study import Study
from wardround.simulations.experiment.environment import describe_environment
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.whole_run import (
    REPORT,
    WholeRun,
    now,
    write_rows,
    write_run_report,
)
from wardround.simulations.run_files.events import (
    StageStarted,
    Watch,
    nobody,
    recording,
)
from wardround.simulations.run_files.folder import (
    RunFacts,
    new_folder,
    read_facts,
    working_on,
)
from wardround.simulations.sites.preparation import PreparedSites, prepare_sites, reopen_sites


@dataclass(frozen=True, slots=True)
class SimulationRequest:
    """What a user asks for.

    Attributes:
        out: The run folder; must be new, unless the run is resumed.
        data_root: Where real data sets lie; None for the environment's.
        assignment: A saved split to use instead of drawing one.
        command: The command line that repeats this run.
        left_out: A site that takes no part in the run, and is in none of its tables.
    """

    study: Study
    out: Path
    machine: Machine = field(default_factory=Machine)
    data_root: Path | None = None
    assignment: Path | None = None
    skip_unreadable: bool = False
    command: tuple[str, ...] = ()
    left_out: str = ""


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
    new_folder(out, f"choose another --out, or go on with --resume {out}")
    try:
        with working_on(out), recording(out, watch) as told:
            facts, sites = _begin(request, told)
            return WholeRun(out, request.study, request.machine, told).go(facts, sites)
    except DataError as error:
        msg = f"{error}{_whose_rows(request.study, str(error))}"
        raise DataError(msg) from None
    finally:
        # Nothing half-written: what was refused before the first round leaves no folder.
        if not (out / "run.json").exists():
            shutil.rmtree(out, ignore_errors=True)


def _start_notes(study: Study) -> Iterator[str]:
    """Yield what the network takes of the study's pretrained weights.

    Raises:
        ModelError: They do not fit it.
    """
    start = start_of(study)
    if start is not None:
        yield start.words()
    if random := frozen_as_drawn(study):
        yield random


def _whose_rows(study: Study, said: str) -> str:
    """Return a sentence on which file a refusal's rows are of, where it does not say."""
    own = study.simulation.options.get("manifest")
    if study.simulation.data == "folder":
        return "" if str(own) in said else f" (Rows are those of {own}.)"
    return (
        " (Rows are those of the site's manifest; 'wardround split' with the same options writes "
        "it for you to see.)"
    )


def resume(out: Path, machine: Machine, watch: Watch = nobody) -> Path:
    """Go on with a run that was stopped, to the model it would have had.

    A finished run stays as it is; a report that it was stopped in is written.

    Raises:
        InputError: The folder holds no run, or another process works on it.
    """
    facts, study = read_facts(out), load_study(out / "study.toml")
    if study.digest != facts.digest:
        msg = f"{out}/study.toml was changed after the run began: start a new run instead."
        raise InputError(msg)
    if _is_done(out, facts):
        return out / REPORT
    with working_on(out):
        facts = read_facts(out)
        if _is_done(out, facts):  # while the lock was waited for
            return out / REPORT
        if facts.status == "finished":
            return write_run_report(out)
        with recording(out, watch) as told:
            told(StageStarted("data"))
            return WholeRun(out, study, machine, told).go(facts, reopen_sites(out))


def _is_done(out: Path, facts: RunFacts) -> bool:
    """Whether a run was finished to its last file, which is its report."""
    return facts.status == "finished" and (out / REPORT).exists()


def write_what_is_left(out: Path) -> None:
    """Write the tables of a run whose process was killed, from the rounds that it committed.

    Raises:
        InputError: The folder holds no run.
    """
    facts = read_facts(out)
    if facts.status == "interrupted" and facts.finished is None:
        write_rows(out, reopen_sites(out), [])


def _begin(request: SimulationRequest, watch: Watch) -> tuple[RunFacts, PreparedSites]:
    """Split the data and write down what the run is about."""
    started, study, out = time.perf_counter(), request.study, request.out
    watch(StageStarted("data"))
    request.machine.check()
    if request.assignment is None:  # else that says how many sites there are
        require_simulation(study)
    sites = prepare_sites(
        study,
        out,
        request.data_root,
        request.assignment,
        request.skip_unreadable,
        request.left_out,
    )
    facts = RunFacts(
        wardround=wardround.__version__,
        command=request.command,
        digest=study.digest,
        seed=study.federation.seed,
        started=now(),
        environment=describe_environment(request.machine.for_study(study)),
        seconds={"data": time.perf_counter() - started},
        notes=(*sites.notes, *_start_notes(study)),
        data=sites.facts,
    )
    (out / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    return facts, sites
