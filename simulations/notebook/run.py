"""A whole simulated run from Python: split, train, compare, report."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

import torch

from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import SimulationRequest
from wardround.simulations.experiment.simulate import simulate as run_request
from wardround.simulations.notebook.models import LoadedModel, load_model, model_names
from wardround.simulations.notebook.studies import load_study
from wardround.simulations.report.contents import read_contents
from wardround.simulations.report.verdict import Verdict
from wardround.simulations.report.wording import compose_headline
from wardround.simulations.run_files.events import Event, nobody
from wardround.simulations.run_files.folder import (
    FEDERATED,
    MetricRow,
    Status,
    unused_folder,
)

_Path = str | PathLike[str]


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """What a run came to; everything in it can be read again from its folder.

    Attributes:
        folder: The run folder.
        study: What was run, with all changes made.
        status: ``finished``, or how far an older run came.
        headline: The verdict in one sentence.
        verdict: For each site its own, the federated and the pooled model on its test patients;
            the gain with its error, and what that is called.
        rows: Every measured number: model, round (-1 is the kept model), site, split, metric,
            class, value, support, errors.
        models: Names of the finished models.
        notes: What a reader of the numbers has to know.
    """

    folder: Path
    study: Study
    status: Status
    headline: str
    verdict: Verdict
    rows: tuple[MetricRow, ...]
    models: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def report(self) -> Path:
        """The report, a page to open in a browser."""
        return self.folder / "report.html"

    @property
    def metrics(self) -> list[dict[str, str | int | float]]:
        """The rows as a table: ``pandas.DataFrame(result.metrics)``."""
        return [asdict(row) for row in self.rows]

    def model(self, name: str = FEDERATED, site: str | None = None) -> LoadedModel:
        """Return a finished model, ready to predict on the CPU.

        Args:
            name: One of ``models``.
            site: Whose, where the strategy gives each site one of its own.

        Raises:
            ModelError: There is no such model, or it is only the part that sites share.
        """
        return load_model(self.folder, self.study, name=name, site=site)


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
) -> SimulationResult:
    """Run a study in simulation, and leave a run folder with its report.

    Nothing is printed. A call can be followed by another one in the same process.

    Args:
        study: A study, the path of a study file, or a built-in study's name.
        out: The run folder, which must be new or empty; None makes one below ``runs/``.
        data_root: Folder of the real data sets; None takes WARDROUND_DATA.
        assignment: A saved split (``assignment.csv``) to use again.
        compare: Whether each site also trains alone, and one model on all data pooled.
        seed: Of weights, split and order; None leaves those of the study.
        engine: "in-process", "pool" (a worker process a core), "auto", or "ray".
        device: "auto", "cpu", "cuda" or "cuda:1".
        workers: Worker processes of a pool; 0 takes as many as cores or GPUs.
        threads: Threads of torch in each process; 0 shares the cores. The results of one seed
            repeat bit for bit at equal threads.
        on_event: Is called with each stage that begins or ends, each finished round, and each site
            that is left out of one; ``print`` will do.

    Raises:
        InputError: Something asked for cannot be done; nothing is left behind.
        RunError: The run could not go on; its folder tells how far it came.
    """
    chosen = load_study(study)
    changes: dict[str, object] = {} if compare else {"simulation.compare": False}
    if seed is not None:
        changes.update({"federation.seed": seed, "simulation.seed": seed})
    chosen = with_changes(chosen, changes) if changes else chosen
    folder = unused_folder(chosen.name) if out is None else Path(out)
    machine = Machine(device, engine, workers, threads)
    machine.check()
    options = {
        "--data-root": data_root,
        "--assignment": assignment,
        "--engine": engine,
        "--device": device,
        "--workers": workers or None,
        "--threads": threads or None,
    }
    words = [str(word) for pair in options.items() if pair[1] is not None for word in pair]
    request = SimulationRequest(
        study=chosen,
        out=folder,
        machine=machine,
        data_root=None if data_root is None else Path(data_root),
        assignment=None if assignment is None else Path(assignment),
        command=("wardround", "simulate", str(folder / "study.toml"), *words),
    )
    before = torch.get_num_threads()
    try:
        run_request(request, on_event or nobody)
    finally:
        torch.set_num_threads(before)  # which an engine changes
    return open_run(folder)


def open_run(folder: _Path) -> SimulationResult:
    """Return what an earlier run came to.

    Args:
        folder: The run folder that :func:`simulate` or ``wardround simulate`` wrote.

    Raises:
        InputError: It holds no run, or one that this version cannot read.
    """
    path = Path(folder)
    contents = read_contents(path)
    verdict = contents.verdict_on(contents.metric)
    return SimulationResult(
        folder=path,
        study=contents.study or load_study(path / "study.toml"),
        status=contents.facts.status,
        headline=compose_headline(contents, verdict).sentence,
        verdict=verdict,
        rows=contents.metrics,
        models=model_names(path),
        notes=contents.facts.notes,
    )
