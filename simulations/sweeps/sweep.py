"""A sweep: many short federations over the same hospitals, scored on their validation patients.

Every trial trains the federation alone: no comparison models, and no look at the test patients,
which are kept for the one run that the winner gets afterwards. Which values are tried depends on
the seed and on the trials before, not on interruptions: a resumed sweep tries what it would have.
"""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import wardround
from wardround.common.errors import (
    DataError,
    InputError,
    RunError,
    WardroundError,
    install_command,
    known_names,
)
from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study
from wardround.simulations.experiment.federation import Machine, open_grid
from wardround.simulations.experiment.training import train_together
from wardround.simulations.run_files.events import Event, RoundDone, recording
from wardround.simulations.run_files.folder import FEDERATED, new_folder, working_on
from wardround.simulations.sites.preparation import PreparedSites, prepare_sites, reopen_sites
from wardround.simulations.sweeps.folder import (
    SweepContents,
    SweepFacts,
    Trial,
    read_facts,
    write_facts,
    write_results,
)
from wardround.simulations.sweeps.journal import Draw, Journal
from wardround.simulations.sweeps.score import Pruned, kept_value
from wardround.simulations.sweeps.search_space import combinations, parse_parameters

FAILURES_IN_A_ROW = 3  # this many before any success: it is not the values that are wrong

TellTrial = Callable[[Trial, SweepContents], None]


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """What a user asks for.

    Attributes:
        out: The sweep's folder; must be new.
        parameters: What varies, as on the command line.
        metric: Scores the trials; None for the study's own.
        data_root: Where real data sets lie; None for the environment's.
        command: The command line that repeats this sweep.
        own_rounds: Rounds that the best study is to have, where the trials have fewer; None for
            those of the study.
    """

    study: Study
    out: Path
    parameters: tuple[str, ...]
    trials: int
    metric: str | None = None
    seed: int = 0
    machine: Machine = field(default_factory=Machine)
    data_root: Path | None = None
    skip_unreadable: bool = False
    command: tuple[str, ...] = ()
    own_rounds: int | None = None


def sweep(request: SweepRequest, tell: TellTrial) -> SweepContents:
    """Try values out and leave a folder with the trials, the best study and a report.

    Args:
        tell: Called after each trial.

    Raises:
        InputError: Something asked for cannot be done; nothing is left behind.
        RunError: The first trials all failed.
        KeyboardInterrupt: The user stopped it; its folder can be resumed.
    """
    study, out = _checked(request), request.out
    request.machine.check()
    new_folder(out, f"choose another --out, or go on with --resume {out}")
    try:
        sites = prepare_sites(study, out, request.data_root, None, request.skip_unreadable)
        _require_validation(sites)
        (out / "study.toml").write_text(study.to_toml(), encoding="utf-8")
        facts = SweepFacts(
            wardround=wardround.__version__,
            command=request.command,
            digest=study.digest,
            parameters=request.parameters,
            trials=_at_most(request.trials, request.parameters, study),
            metric=study.metric,
            seed=request.seed,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            data_root=None if request.data_root is None else str(request.data_root),
            data=sites.facts,
            own_rounds=request.own_rounds or study.federation.rounds,
        )
        write_facts(out, facts)
        return _Sweep(out, facts, study, request.machine, tell).go(sites)
    finally:
        if not (out / "sweep.json").exists():
            shutil.rmtree(out, ignore_errors=True)


def resume_sweep(out: Path, trials: int | None, machine: Machine, tell: TellTrial) -> SweepContents:
    """Go on with a sweep: to the trials that it was to have, or to a new number of them.

    One that has had all of them stays as it is.

    Raises:
        InputError: The folder holds no sweep, its study was changed, it has had more trials than
            are asked for, or another process works on it.
    """
    facts, study = read_facts(out), load_study(out / "study.toml")
    _require_packages()
    machine.check()
    if study.digest != facts.digest:
        msg = f"{out}/study.toml was changed after the sweep began: start a new sweep instead."
        raise InputError(msg)
    if trials is not None:
        facts = replace(facts, trials=_at_most(trials, facts.parameters, study))
    resumed = _Sweep(out, facts, study, machine, tell)
    if resumed.is_done() and (out / "report.html").exists():
        return resumed.contents()
    return resumed.go(reopen_sites(out))


def _checked(request: SweepRequest) -> Study:
    """Return the study whose metric scores the trials.

    Raises:
        InputError: A parameter, the metric or the number of trials cannot be used.
    """
    _require_packages()
    study = request.study
    if request.metric is not None:
        if request.metric not in METRICS:
            raise InputError(known_names("metric", request.metric, METRICS))
        study = with_changes(study, {"evaluation.metric": request.metric})
    parse_parameters(request.parameters, study)
    return study


def _require_validation(sites: PreparedSites) -> None:
    """Check that trials can be scored, before the first is trained.

    Raises:
        InputError: No site has validation patients.
    """
    if any(row.split == "validation" and row.patients for row in sites.table):
        return
    msg = (
        "no site has validation patients, so trials cannot be scored: add "
        "--set evaluation.validation_fraction=0.2, or mark some in the manifest's split."
    )
    raise InputError(msg)


def _at_most(trials: int, parameters: Sequence[str], study: Study) -> int:
    """Return the number of trials: none beyond the last combination of lists."""
    known = combinations(parse_parameters(parameters, study))
    return trials if known is None else min(trials, known)


def _require_packages() -> None:
    for package in ("optuna", "jinja2"):
        if find_spec(package) is None:
            msg = (
                f"a sweep needs the package {package}, which is not installed: "
                f"run  {install_command('simulation', 'sweep')}"
            )
            raise InputError(msg)


class _Sweep:
    """One try at a sweep."""

    def __init__(
        self, out: Path, facts: SweepFacts, study: Study, machine: Machine, tell: TellTrial
    ) -> None:
        self._out = out
        self._facts = facts
        self._study = study
        self._machine = machine
        self._tell = tell
        self._journal = Journal(
            out / "trials.journal",
            parse_parameters(facts.parameters, study),
            facts.seed,
            METRICS[study.metric].higher_is_better,
        )

    def is_done(self) -> bool:
        """Whether nothing is left to try.

        Raises:
            InputError: It has had more trials than are asked for.
        """
        done = len(self._journal.trials())
        if done > self._facts.trials:
            msg = f"{self._out} has had {done} trials: --trials {self._facts.trials} is fewer."
            raise InputError(msg)
        return done == self._facts.trials

    def go(self, sites: PreparedSites) -> SweepContents:
        """Run the trials that are missing; whatever happens, write down those that are there."""
        with working_on(self._out):
            write_facts(self._out, self._facts)
            return self._go(sites)

    def _go(self, sites: PreparedSites) -> SweepContents:
        self._journal.forget_unfinished()
        try:
            while len(self._journal.trials()) < self._facts.trials:
                self._next(sites)
                contents = self.contents()
                self._tell(contents.trials[-1], contents)
                self._require_success(contents.trials)
        finally:
            contents = self.contents()
            write_results(self._out, contents)
            _report(self._out, contents)
        return contents

    def _next(self, sites: PreparedSites) -> None:
        draw, started = self._journal.draw(), time.perf_counter()
        if draw.repeats is not None:
            draw.repeat()
            return
        try:
            value = self._train(sites, draw)
        except Pruned:
            draw.stop(time.perf_counter() - started)
        except DataError:
            draw.forget()  # no values of a study mend a hospital's data
            raise
        except WardroundError as error:
            draw.fail(str(error), time.perf_counter() - started)
        except BaseException:
            draw.forget()
            raise
        else:
            draw.finish(value, time.perf_counter() - started)

    def _train(self, sites: PreparedSites, draw: Draw) -> float:
        """Return the score of one trial; its models and checkpoints are not kept."""
        study = with_changes(self._study, draw.changes)
        folder = self._out / "trials" / f"{draw.number:04d}"
        shutil.rmtree(folder, ignore_errors=True)  # of a try that was interrupted
        folder.mkdir(parents=True)

        def watch(event: Event) -> None:
            if isinstance(event, RoundDone) and not math.isnan(event.value):
                draw.report(event.round - 1, event.value)
                if event.round < event.rounds and draw.is_hopeless():
                    raise Pruned

        try:
            with (
                recording(folder, watch) as told,
                open_grid(sites.folders, study, self._machine) as grid,
            ):
                model = train_together(folder, grid, study, FEDERATED, told)
            draw.report(study.federation.rounds, value := kept_value(folder, study, model.round))
            return value
        finally:
            for part in ("checkpoints", "models"):
                shutil.rmtree(folder / part, ignore_errors=True)

    def contents(self) -> SweepContents:
        """Return what it has come to."""
        return SweepContents(self._facts, self._study, self._journal.trials())

    def _require_success(self, trials: Sequence[Trial]) -> None:
        if len(trials) < FAILURES_IN_A_ROW or any(t.status != "failed" for t in trials):
            return
        msg = (
            f"the first {len(trials)} trials failed, the last one because: {trials[-1].reason} "
            "Mend the study or the ranges and start a new sweep."
        )
        raise RunError(msg)


def _report(out: Path, contents: SweepContents) -> None:
    from wardround.simulations.sweeps.page import write_sweep_report

    write_sweep_report(out, contents)
