"""A study tried out on one machine: split, train together, train alone, train pooled, compare."""

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import wardround
from wardround.client.data.cohort import Cohorts
from wardround.common.errors import DataError, InputError
from wardround.common.files.tables import read_kept_table, write_table
from wardround.common.models.pretrained import frozen_as_drawn, start_of
from wardround.common.parameters.schema import Parameters
from wardround.common.runtime.system.signals import is_ctrl_c, raise_if_ctrl_c
from wardround.common.study.loading import load_study, require_simulation
from wardround.common.study.plans.contributions import MOST_SITES, has_contributions
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import RefusalRecord
from wardround.server.checkpoints.lost_sites import missed_rounds
from wardround.server.sites.site_info import describe_sites
from wardround.simulations.evidence.segmentation import marked_tests, worst_cases
from wardround.simulations.experiment.baselines import baselines_of, train_baselines
from wardround.simulations.experiment.environment import describe_environment
from wardround.simulations.experiment.federation import Machine, open_grid
from wardround.simulations.experiment.privacy_spent import privacy_rows
from wardround.simulations.experiment.rows import history_rows, refusal_notes, traffic_rows
from wardround.simulations.experiment.testing.backdoor import backdoor_rows
from wardround.simulations.experiment.testing.contributions import contribution_rows
from wardround.simulations.experiment.testing.cross_site import cross_site_rows
from wardround.simulations.experiment.testing.found_boxes import write_found_boxes
from wardround.simulations.experiment.testing.paired import paired_rows
from wardround.simulations.experiment.testing.predictions import write_groups, write_predictions
from wardround.simulations.experiment.testing.samples import (
    length_unit,
    write_failures,
    write_samples,
)
from wardround.simulations.experiment.training import (
    Baseline,
    TrainedModel,
    history_of,
    load_trained,
    train_together,
    updates_of,
)
from wardround.simulations.run_files.contributions import CONTRIBUTIONS, ContributionRow
from wardround.simulations.run_files.events import (
    StageFinished,
    StageStarted,
    Watch,
    nobody,
    recording,
)
from wardround.simulations.run_files.folder import (
    FEDERATED,
    POOLED,
    UNPROTECTED,
    MetricRow,
    PrivacyRow,
    RunFacts,
    SplitRow,
    Status,
    TrafficRow,
    local_model,
    new_folder,
    read_facts,
    working_on,
    write_facts,
)
from wardround.simulations.run_files.predictions import Predictions, read_predictions
from wardround.simulations.sites.preparation import PreparedSites, prepare_sites, reopen_sites

REPORT = "report.html"
# Its shared part alone answers nothing, and the rest lies with a study that nobody is asked by.
_IN_PARTS = (
    "The federation without privacy is compared by its rounds' validation alone: each hospital "
    "keeps a part of that model."
)


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
            return _Run(out, request.study, request.machine, told).go(facts, sites)
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
            return _report(out)
        with recording(out, watch) as told:
            told(StageStarted("data"))
            return _Run(out, study, machine, told).go(facts, reopen_sites(out))


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
        _write_table(out, reopen_sites(out), [])


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
        started=_now(),
        environment=describe_environment(request.machine.for_study(study)),
        seconds={"data": time.perf_counter() - started},
        notes=(*sites.notes, *_start_notes(study)),
        data=sites.facts,
    )
    (out / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    return facts, sites


class _Run:
    """One try at a run: what it has done so far, and how it ended."""

    def __init__(self, out: Path, study: Study, machine: Machine, watch: Watch) -> None:
        self._out = out
        self._study = study
        self._machine = machine
        self._watch = watch
        self._status: Status = "failed"
        self._seconds: dict[str, float] = {}
        self._tested: list[MetricRow] = []
        self._notes: tuple[str, ...] = ()
        self._refused: list[RefusalRecord] = []
        self._federated: TrainedModel | None = None
        self._length_unit = "mm"

    def go(self, facts: RunFacts, sites: PreparedSites) -> Path:
        """Train and test everything; whatever happens, leave a folder that can be read."""
        self._seconds = dict(facts.seconds)
        try:
            self._work(facts, sites)
        except BaseException as reason:
            is_fault = isinstance(reason, Exception) and not is_ctrl_c(reason)
            self._status = "failed" if is_fault else "interrupted"
            # What was refused before the first round is no run.
            if (self._out / "run.json").exists():
                with suppress(Exception):  # why the run ended must be heard, not why this did
                    self._leave(facts, sites)
            raise_if_ctrl_c(reason)
            raise
        self._status = "finished"
        return self._leave(facts, sites)

    def _work(self, facts: RunFacts, sites: PreparedSites) -> None:
        with open_grid(sites.folders, self._study, self._machine) as grid:
            with self._measuring("data"):
                nodes, site_infos = describe_sites(grid, self._study)
            self._notes = tuple(f"{i.site}: {note}" for i in site_infos for note in i.notes)
            # From here on the folder is a run, which can be resumed.
            started = replace(facts, seconds=self._seconds, status="running", finished=None)
            write_facts(self._out, started)
            self._watch(StageFinished("data"))
            with self._measuring(FEDERATED):
                self._federated = train_together(
                    self._out, grid, self._study, FEDERATED, self._watch, nodes
                )
            baselines = self._baselines(sites)
            with self._measuring("baselines"):
                train_baselines(
                    self._out, baselines, self._machine.for_study(self._study), self._watch
                )
            with self._measuring("test"):
                self._watch(StageStarted("test"))
                others = [load_trained(self._out, baseline.name) for baseline in baselines]
                models = [self._federated, *self._whole(others)]
                rows = cross_site_rows(grid, self._study, nodes, models, self._refused)
                self._tested.extend(rows)
                # Contributions are measured on all sites at once: their manifests are read once.
                opened = dict[Path, Cohorts]() if self._tells_contributions(sites) else None
                write_predictions(self._out, sites.folders, self._study, models, opened)
                said = read_predictions(self._out, self._study)  # once: it may be large
                names = [folder.name for folder in sites.folders]
                self._tested.extend(paired_rows(said, self._study, names))
                boxes = write_found_boxes(self._out, sites.folders, self._study, models)
                self._tested.extend(boxes)
                write_groups(self._out, sites.folders, self._study)
                if self._study.continual is not None:
                    from wardround.simulations.experiment.testing.waves import write_waves

                    write_waves(self._out, sites.folders, self._study, self._federated)
                self._write_contributions(sites, self._federated, opened)
                attacked = backdoor_rows(sites.folders, self._study, self._federated)
                self._tested.extend(attacked)
                samples = self._out / "samples.npz"
                write_samples(samples, sites.folders, self._study, self._federated)
                if self._study.task.dense:
                    self._write_failures(sites, said)
                self._length_unit = length_unit(sites.folders, self._study)
                self._write_model_folders(facts, sites, (models, baselines), said)
                self._watch(StageFinished("test"))

    def _write_model_folders(
        self,
        facts: RunFacts,
        sites: PreparedSites,
        trained: tuple[Sequence[TrainedModel], Sequence[Baseline]],
        said: Predictions,
    ) -> None:
        from wardround.simulations.experiment.testing.model_folders import write_model_folders
        from wardround.simulations.report.contents import RunContents

        models, baselines = trained
        followed = {FEDERATED: self._study, **{one.name: one.study for one in baselines}}
        contents = RunContents(
            self._out,
            facts,
            self._study,
            self._study.to_toml(),
            metrics=tuple(self._tested),
            traffic=(),
            split=tuple(read_kept_table(self._out / "split.csv", SplitRow)),
            samples=None,
            privacy=tuple(privacy_rows(sites.folders)),
            scores=said.scores,
            masks=said.masks,
        )
        with_studies = [(model, followed[model.name]) for model in models]
        write_model_folders(self._out, sites.folders, with_studies, contents)

    def _write_failures(self, sites: PreparedSites, said: Predictions) -> None:
        """Keep pictures of the cases that the federated model marked worst at each site."""
        study, model = self._study, self._federated
        if model is None:
            return
        masks = marked_tests(said.masks)
        worst: dict[str, list[int]] = {}
        for failure in worst_cases(masks, study.data.classes[1:]):
            worst.setdefault(failure.site, []).append(failure.case)
        write_failures(self._out / "failures.npz", sites.folders, study, model, worst)

    def _tells_contributions(self, sites: PreparedSites) -> bool:
        return has_contributions(self._study) and len(sites.folders) <= MOST_SITES

    def _write_contributions(
        self, sites: PreparedSites, federated: TrainedModel, opened: Mapping[Path, Cohorts] | None
    ) -> None:
        updates, study = updates_of(self._out), self._study
        rows = list(contribution_rows(sites.folders, study, updates, federated.round, opened))
        if rows:
            write_table(self._out / CONTRIBUTIONS, rows, ContributionRow)

    def _baselines(self, sites: PreparedSites) -> Sequence[Baseline]:
        if not self._study.simulation.compare:
            return []
        return baselines_of(self._study, sites.folders, sites.pooled)

    def _leave(self, facts: RunFacts, sites: PreparedSites) -> Path:
        _write_table(self._out, sites, self._tested)
        model = self._federated
        if self._status == "finished":
            # An earlier try's says that the run was interrupted. Without one, whoever resumes a run
            # that was stopped over its report knows that there is something left to do.
            (self._out / REPORT).unlink(missing_ok=True)
        write_facts(
            self._out,
            replace(
                facts,
                status=self._status,
                finished=_now(),
                seconds=self._seconds,
                notes=tuple(dict.fromkeys((*facts.notes, *self._notes, *self._unmeasured()))),
                best_round=-1 if model is None else model.round,
                parameters=0 if model is None else _count(model.parameters),
                length_unit=self._length_unit,
                missed=self._missed(),
            ),
        )
        self._watch(StageStarted("report"))
        report = _report(self._out)
        self._watch(StageFinished("report"))
        return report

    def _missed(self) -> dict[str, int]:
        """Return in how many rounds each site did not train."""
        history = history_of(self._out, FEDERATED)
        return missed_rounds([(r.site, r.asked) for r in record.refusals] for record in history)

    def _unmeasured(self) -> tuple[str, ...]:
        """Return who did not evaluate the federated model, or one of those tested at the end."""
        rounds = (r for record in history_of(self._out, FEDERATED) for r in record.refusals)
        return refusal_notes((*rounds, *self._refused))

    def _whole(self, others: Iterable[TrainedModel | None]) -> Iterator[TrainedModel]:
        """Yield the comparison models that can be asked: each is in one file, and whole."""
        plan = plan_of(self._study)
        is_whole = plan.share in ("all", "adapters") and not plan.personal
        for model in others:
            if model is None:
                continue
            if model.name == UNPROTECTED and not is_whole:
                self._notes += (_IN_PARTS,)
                continue
            yield model

    @contextmanager
    def _measuring(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self._seconds[part] = self._seconds.get(part, 0.0) + spent


def _write_table(out: Path, sites: PreparedSites, tested: list[MetricRow]) -> None:
    standalone = (local_model(folder.name) for folder in sites.folders)
    names = [FEDERATED, *standalone, POOLED, UNPROTECTED]
    metrics: list[MetricRow] = []
    traffic: list[TrafficRow] = []
    for name in names:
        records = history_of(out, name)
        metrics.extend(history_rows(name, records))
        traffic.extend(traffic_rows(name, records))
    write_table(out / "metrics.csv", [*metrics, *tested], MetricRow)
    write_table(out / "traffic.csv", traffic, TrafficRow)
    spent = list(privacy_rows(sites.folders))
    if spent:
        write_table(out / "privacy.csv", spent, PrivacyRow)


def _report(out: Path) -> Path:
    from wardround.simulations.report import write_report

    return write_report(out)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _count(parameters: Parameters) -> int:
    return sum(tensor.numel() for tensor in parameters.values())
