"""A series of runs: with several seeds, and with each hospital left out of training once.

Each run is a run folder of its own, as ``wardround simulate`` leaves one. A hospital that is left
out has its folder where no training looks: it is in no round, in no choice of a round, and in no
number that training makes. A series that was stopped goes on with the runs that are missing.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import wardround
from wardround.common.errors import InputError
from wardround.common.study.loading import load_study, require_simulation, with_changes
from wardround.common.study.study import Study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.series.left_out import (
    predict_left_out,
    predictions_file,
    require_whole_models,
)
from wardround.simulations.experiment.series.measured import sites_of_run, write_measured
from wardround.simulations.experiment.series.side_by_side import Runs, run_all
from wardround.simulations.experiment.simulate import SimulationRequest, resume, simulate
from wardround.simulations.experiment.whole_run import REPORT
from wardround.simulations.run_files.events import (
    Event,
    RoundDone,
    SiteFailed,
    StageFinished,
    StageStarted,
    Watch,
    nobody,
)
from wardround.simulations.run_files.folder import new_folder, read_facts, working_on
from wardround.simulations.run_files.series import (
    Part,
    SeriesFacts,
    is_series,
    read_series,
    write_series,
)
from wardround.simulations.sites.preparation import sites_of

_RUNS = "runs"
MOST_SEEDS = 100


@dataclass(frozen=True, slots=True)
class SeriesRequest:
    """What a user asks for.

    Attributes:
        out: The series' folder; must be new.
        leave_one_site_out: Whether the federation is trained without each hospital too.
        seeds: Of the runs; empty for the study's own alone.
        data_root: Where real data sets lie; None for the environment's.
        assignment: A saved split to use instead of drawing one.
        command: The command line that repeats this series.
    """

    study: Study
    out: Path
    leave_one_site_out: bool = False
    seeds: tuple[int, ...] = ()
    machine: Machine = field(default_factory=Machine)
    data_root: Path | None = None
    assignment: Path | None = None
    skip_unreadable: bool = False
    command: tuple[str, ...] = ()


def run_series(request: SeriesRequest, watch: Watch = nobody) -> Path:
    """Run a series and leave its folder with all runs, a table and a report.

    Returns:
        The report.

    Raises:
        InputError: Something asked for cannot be done; nothing is left behind.
        RunError: A run could not go on; the series can be resumed.
        KeyboardInterrupt: The user stopped it; the series can be resumed.
    """
    out, study = request.out, request.study
    request.machine.check()
    _check(request)
    new_folder(out, f"choose another --out, or go on with --resume {out}")
    study = _with_absolute_paths(study)
    (out / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    facts = SeriesFacts(
        wardround=wardround.__version__,
        command=request.command,
        digest=study.digest,
        leave_one_site_out=request.leave_one_site_out,
        seeds=request.seeds or (study.federation.seed,),
        several_seeds=bool(request.seeds),
        started=_now(),
        data_root=_absolute(request.data_root or _data_root_of_environment()),
        assignment=_absolute(request.assignment),
        skip_unreadable=request.skip_unreadable,
    )
    write_series(out, facts)
    try:
        return resume_series(out, request.machine, watch)
    finally:
        # What was refused before the first round is no run, and a series of none is no series.
        if not any(out.glob(f"{_RUNS}/*/run.json")):
            shutil.rmtree(out, ignore_errors=True)


def resume_series(out: Path, machine: Machine, watch: Watch = nobody) -> Path:
    """Go on with a series that was stopped; a finished one stays as it is.

    Raises:
        InputError: The folder holds no series, its study was changed, or another process works on
            it.
    """
    facts, study = read_series(out), load_study(out / "study.toml")
    machine.check()
    if study.digest != facts.digest:
        msg = f"{out}/study.toml was changed after the runs began: start new ones instead."
        raise InputError(msg)
    if facts.finished is not None and (out / "report.html").exists():
        return out / "report.html"
    with working_on(out):
        _make_all(out, facts.together(), machine, watch)
        if facts.leave_one_site_out:
            _make_all(out, tuple(_without(out, facts)), machine, watch)
        watch(StageStarted("report"))
        report = write_series_results(out, replace(facts, finished=_now()))
        watch(StageFinished("report"))
    return report


def write_series_results(out: Path, facts: SeriesFacts | None = None) -> Path:
    """Write the table and the report of a series whose runs are finished, and return the report.

    Raises:
        InputError: The folder holds no series, or a run of it is missing.
    """
    from wardround.simulations.report import write_report
    from wardround.simulations.report.pages.series_page import write_series_page

    held = facts or read_series(out)
    study = load_study(out / "study.toml")
    for part in (*held.together(), *(_without(out, held) if held.leave_one_site_out else ())):
        if not _is_done(out / _RUNS / part.name, part, study):
            msg = f"the run {part.name} is not finished: wardround simulate --resume {out}"
            raise InputError(msg)
    write_measured(out, held, study)
    write_series(out, held)
    for part in held.together():  # it now has a part on the hospitals that took no part
        write_report(out / _RUNS / part.name)
    return write_series_page(out)


def _check(request: SeriesRequest) -> None:
    study = request.study
    if request.assignment is None:
        require_simulation(study)
    if not request.leave_one_site_out:
        return
    require_whole_models(study)
    if study.simulation.adversary:
        msg = "--leave-one-site-out is for hospitals, not adversaries: remove simulation.adversary."
        raise InputError(msg)
    sites = sites_of(
        _seeded(study, request.seeds[0]) if request.seeds else study,
        request.data_root,
        request.assignment,
    )
    fewest = max(2, study.federation.minimum_sites + 1)
    if len(sites) < fewest:
        msg = (
            f"--leave-one-site-out trains without one of {len(sites)} hospitals, and the others "
            f"must be {fewest - 1} at least: use data of {fewest} hospitals or more"
            + (", or lower federation.minimum_sites." if fewest > 2 else ".")
        )
        raise InputError(msg)


def _seeded(study: Study, seed: int) -> Study:
    changes = {"federation.seed": seed, "simulation.seed": seed}
    return with_changes(study, changes, origin=f"the study with the seed {seed}")


def _without(out: Path, facts: SeriesFacts) -> Iterator[Part]:
    for part in facts.together():
        yield from facts.without_each(sites_of_run(out / _RUNS / part.name), part.seed)


def _make_all(out: Path, parts: Sequence[Part], machine: Machine, watch: Watch) -> None:
    study = load_study(out / "study.toml")
    missing = [part for part in parts if not _is_done(out / _RUNS / part.name, part, study)]
    runs = Runs([part.name for part in missing], partial(_make, out), partial(_named, watch))
    run_all(runs, machine)


def _is_done(run: Path, part: Part, study: Study) -> bool:
    whole = all((run / name).exists() for name in ("run.json", REPORT))
    if not whole or read_facts(run).status != "finished":
        return False
    return not part.left_out or predictions_file(run, study).exists()


def _make(out: Path, name: str, machine: Machine, watch: Watch) -> None:
    """Make one run of a series, or go on with it."""
    facts, run = read_series(out), out / _RUNS / name
    parts = {part.name: part for part in facts.together()}
    if name not in parts:
        parts = {part.name: part for part in _without(out, facts)}
    part = parts[name]
    if (run / "run.json").exists():
        resume(run, machine, watch)
    else:
        shutil.rmtree(run, ignore_errors=True)
        simulate(_request(out, facts, part, machine), watch)
    if part.left_out:
        predict_left_out(run)


def _request(out: Path, facts: SeriesFacts, part: Part, machine: Machine) -> SimulationRequest:
    study = load_study(out / "study.toml")
    if facts.several_seeds:
        study = _seeded(study, part.seed)
    assignment = None if facts.assignment is None else Path(facts.assignment)
    if part.left_out:
        # The very hospitals and test patients of the run in which all take part.
        whole = next(one for one in facts.together() if one.seed == part.seed)
        assignment = out / _RUNS / whole.name / "assignment.csv"
        study = with_changes(study, {"simulation.compare": False})
    return SimulationRequest(
        study=study,
        out=out / _RUNS / part.name,
        machine=machine,
        data_root=None if facts.data_root is None else Path(facts.data_root),
        assignment=assignment,
        skip_unreadable=facts.skip_unreadable,
        command=facts.command,
        left_out=part.left_out,
    )


def _named(watch: Watch, name: str) -> Watch:
    """Return a watch that says of which run an event is."""

    def tell(event: Event) -> None:
        if isinstance(event, StageStarted | StageFinished | RoundDone | SiteFailed):
            watch(replace(event, stage=f"{name}/{event.stage}"))

    return tell


def _with_absolute_paths(study: Study) -> Study:
    """Return a study whose data is found from wherever its runs go on."""
    found = {
        f"simulation.options.{key}": str(Path(text).resolve())
        for key in ("manifest", "folder", "file")
        if isinstance(text := study.simulation.options.get(key), str) and text
        if Path(text).exists()
    }
    return with_changes(study, found) if found else study


def _data_root_of_environment() -> Path | None:
    text = os.environ.get("WARDROUND_DATA")
    return Path(text) if text else None


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


__all__ = ["SeriesRequest", "is_series", "resume_series", "run_series", "write_series_results"]
