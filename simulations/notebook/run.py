"""A whole simulated run from Python: split, train, compare, report; at once or round by round."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypedDict, Unpack

import torch

from wardround.common.errors import RunError
from wardround.common.files.usable_path import usable_path
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import SimulationRequest
from wardround.simulations.experiment.simulate import resume as resume_request
from wardround.simulations.experiment.simulate import simulate as run_request
from wardround.simulations.notebook.lockstep import events_of
from wardround.simulations.notebook.progress import both, how_to_resume, paged, showing
from wardround.simulations.notebook.result import SimulationResult, open_run
from wardround.simulations.notebook.studies import load_study
from wardround.simulations.run_files.events import Event, RoundDone, SiteFailed, Watch
from wardround.simulations.run_files.folder import FEDERATED, unused_folder

_Path = str | PathLike[str]


class RunOptions(TypedDict, total=False):
    """What :func:`simulate` and :func:`simulate_rounds` take beside study and folder.

    Attributes:
        data_root: Folder of the real data sets; None takes WARDROUND_DATA.
        assignment: A saved split (``assignment.csv``) to use again.
        compare: Whether each site also trains alone, and one model on all data pooled.
        seed: Of weights, split and order; None leaves those of the study.
        engine: "in-process", "pool" (a worker process a core), "stacked" (small networks of
            several sites trained as one), "auto", or "ray".
        device: "auto", "cpu", "cuda" or "cuda:1".
        workers: Worker processes of a pool; 0 takes as many as cores or GPUs.
        threads: Threads of torch in each process; 0 shares the cores, at most OMP_NUM_THREADS each.
            The results of one seed repeat bit for bit at equal threads.
        on_event: Is called with each stage that begins or ends, each finished round, and each site
            that is left out of one; ``print`` will do.
        progress: Whether one line shows how far the run is; None shows it in a notebook alone.
        watch: Whether a live page is served to this machine's browsers while the run goes on; its
            link is printed on standard error.
    """

    data_root: _Path | None
    assignment: _Path | None
    compare: bool
    seed: int | None
    engine: str
    device: str
    workers: int
    threads: int
    on_event: Callable[[Event], None] | None
    progress: bool | None
    watch: bool


def simulate(  # noqa: PLR0913 # one argument an option, as on the command line
    study: Study | _Path,
    out: _Path | None = None,
    *,
    data_root: _Path | None = None,
    assignment: _Path | None = None,
    compare: bool = True,
    seed: int | None = None,
    engine: str = "in-process",
    device: str = "auto",
    workers: int = 0,
    threads: int = 0,
    on_event: Callable[[Event], None] | None = None,
    progress: bool | None = None,
    watch: bool = False,
) -> SimulationResult:
    """Run a study in simulation, and leave a run folder with its report.

    Nothing is printed but a progress line, in a notebook, and the link of ``watch``. A call can be
    followed by another one in the same process, and be made in a thread or inside a running event
    loop.

    Args:
        study: A study, the path of a study file, or a built-in study's name.
        out: The run folder, which must be new or empty; None makes one below ``runs/``.
        data_root: Folder of the real data sets; None takes WARDROUND_DATA.
        assignment: A saved split (``assignment.csv``) to use again.
        compare: Whether each site also trains alone, and one model on all data pooled.
        seed: Of weights, split and order; None leaves those of the study.
        engine: "in-process", "pool" (a worker process a core), "stacked" (small networks of
            several sites trained as one), "auto", or "ray".
        device: "auto", "cpu", "cuda" or "cuda:1".
        workers: Worker processes of a pool; 0 takes as many as cores or GPUs.
        threads: Threads of torch in each process; 0 shares the cores, at most OMP_NUM_THREADS each.
            The results of one seed repeat bit for bit at equal threads.
        on_event: Is called with each stage that begins or ends, each finished round, and each site
            that is left out of one; ``print`` will do. What it raises ends the run.
        progress: Whether one line shows how far the run is; None shows it in a notebook alone.
        watch: Whether a live page is served to this machine's browsers while the run goes on; its
            link is printed on standard error.

    Raises:
        InputError: Something asked for cannot be done; nothing is left behind.
        RunError: The run could not go on; its folder tells how far it came.
        KeyboardInterrupt: The cell was interrupted; :func:`resume` goes on with the run.
    """
    request = _request(
        study,
        out,
        {
            "data_root": data_root,
            "assignment": assignment,
            "compare": compare,
            "seed": seed,
            "engine": engine,
            "device": device,
            "workers": workers,
            "threads": threads,
        },
    )
    out = request.out
    with _telling(out), _same_threads(), paged(watch, out), showing(progress, out) as line:
        run_request(request, both(line, on_event))
    return open_run(out)


def resume(  # noqa: PLR0913 # as simulate
    folder: _Path,
    *,
    engine: str = "in-process",
    device: str = "auto",
    workers: int = 0,
    threads: int = 0,
    on_event: Callable[[Event], None] | None = None,
    progress: bool | None = None,
) -> SimulationResult:
    """Go on with a run that was stopped, to the models that it would have had.

    A finished run stays as it is.

    Args:
        folder: The run folder.
        engine: As for :func:`simulate`, as the others.
        device: "auto", "cpu", "cuda" or "cuda:1".
        workers: Worker processes of a pool.
        threads: Threads of torch in each process; those of the first try repeat it bit for bit.
        on_event: Is called with what happens from now on.
        progress: Whether one line shows how far the run is.

    Raises:
        InputError: The folder holds no run, or another process works on it.
        RunError: The run could not go on.
        KeyboardInterrupt: The cell was interrupted again.
    """
    out, machine = usable_path(folder, "a run folder"), Machine(device, engine, workers, threads)
    machine.check()
    with _telling(out), _same_threads(), showing(progress, out) as line:
        resume_request(out, machine, both(line, on_event))
    return open_run(out)


@dataclass(frozen=True, slots=True)
class Round:
    """One round of the federated training, just done.

    Attributes:
        number: From 1.
        of: How many rounds the study has.
        metric: What ``value`` is.
        value: Of the model that the round started from, on all sites' validation patients; NaN if
            it was not measured.
        updates: Optimiser steps of all sites.
        seconds: How long the round took.
        left_out: Which sites did not contribute, and why.
    """

    number: int
    of: int
    metric: str
    value: float
    updates: int
    seconds: float
    left_out: tuple[SiteFailed, ...] = ()


class Rounds:
    """A run that goes on as its rounds are asked for: ``for round in rounds``.

    It stands still while a round is looked at. Leaving the loop, by ``break`` or by an exception,
    ends the run there: its folder can be resumed, and no process or thread stays. Another ``for``
    over the same object, or :func:`resume`, goes on where it stopped.
    """

    def __init__(
        self,
        request: SimulationRequest,
        on_event: Callable[[Event], None] | None,
        progress: bool | None,
        watch: bool = False,
    ) -> None:
        self._request = request
        self._on_event = on_event
        self._progress = progress
        self._watch = watch

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._request.out

    @property
    def result(self) -> SimulationResult:
        """What the run came to so far; its ``status`` says whether it is finished.

        Raises:
            RunError: No round was asked for yet.
        """
        if not (self.folder / "run.json").exists():
            msg = f"{self.folder} holds no run yet: ask for its rounds first, for round in rounds."
            raise RunError(msg)
        return open_run(self.folder)

    def __iter__(self) -> Iterator[Round]:
        out, left_out = self.folder, list[SiteFailed]()
        with (
            _telling(out),
            _same_threads(),
            paged(self._watch, out),
            showing(self._progress, out) as line,
            closing(events_of(self._work)) as events,
        ):
            told = both(line, self._on_event)
            for event in events:
                told(event)
                if isinstance(event, SiteFailed) and event.stage == FEDERATED:
                    left_out.append(event)
                elif isinstance(event, RoundDone) and event.stage == FEDERATED:
                    yield _round(event, left_out)
                    left_out = []

    def _work(self, watch: Watch) -> None:
        if (self.folder / "run.json").exists():
            resume_request(self.folder, self._request.machine, watch)
        else:
            run_request(self._request, watch)

    def __repr__(self) -> str:
        return f"<Rounds of {self._request.study.name!r} in {str(self.folder)!r}>"


def simulate_rounds(
    study: Study | _Path, out: _Path | None = None, **options: Unpack[RunOptions]
) -> Rounds:
    """Run a study in simulation round by round, for a ``for`` loop.

    After the last round the other models are trained and everything is tested, as in
    :func:`simulate`, before the loop ends; then ``rounds.result`` is what that returns.

    Args:
        study: A study, the path of a study file, or a built-in study's name.
        out: The run folder, which must be new or empty; None makes one below ``runs/``.
        options: As of :func:`simulate`.

    Raises:
        InputError: Something asked for cannot be done; nothing is left behind.
    """
    if unknown := sorted(options.keys() - RunOptions.__annotations__.keys()):
        msg = f"simulate_rounds() got an unexpected keyword argument {unknown[0]!r}"
        raise TypeError(msg)
    on_event, progress = options.pop("on_event", None), options.pop("progress", None)
    watch = options.pop("watch", False)
    return Rounds(_request(study, out, options), on_event, progress, watch)


def _round(event: RoundDone, left_out: list[SiteFailed]) -> Round:
    return Round(
        event.round,
        event.rounds,
        event.metric,
        event.value,
        event.updates,
        event.seconds,
        tuple(left_out),
    )


def _request(study: Study | _Path, out: _Path | None, given: RunOptions) -> SimulationRequest:
    chosen: Study = load_study(study)
    seed, changes = given.get("seed"), dict[str, object]()
    if not given.get("compare", True):
        changes["simulation.compare"] = False
    if seed is not None:
        changes |= {"federation.seed": seed, "simulation.seed": seed}
    chosen = with_changes(chosen, changes) if changes else chosen
    engine, device = given.get("engine", "in-process"), given.get("device", "auto")
    machine = Machine(device, engine, given.get("workers", 0), given.get("threads", 0))
    machine.check()
    data_root, assignment = given.get("data_root"), given.get("assignment")
    folder = unused_folder(chosen.name) if out is None else usable_path(out, "a run folder")
    options = {
        "--data-root": data_root,
        "--assignment": assignment,
        "--engine": engine,
        "--device": device,
        "--workers": machine.workers or None,
        "--threads": machine.threads or None,
    }
    words = [str(word) for pair in options.items() if pair[1] is not None for word in pair]
    return SimulationRequest(
        study=chosen,
        out=folder,
        machine=machine,
        data_root=None if data_root is None else usable_path(data_root, "data_root"),
        assignment=None if assignment is None else usable_path(assignment, "assignment"),
        command=("wardround", "simulate", str(folder / "study.toml"), *words),
    )


@contextmanager
def _telling(folder: Path) -> Iterator[None]:
    """Say with an interruption how the run can be gone on with."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(how_to_resume(folder))
        raise


@contextmanager
def _same_threads() -> Iterator[None]:
    """Leave torch the threads that it had, which an engine changes."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
