"""One try at a simulated run: train, compare, measure, and leave a folder that can be read."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from flwr.serverapp import Grid

from wardround.client.data.cohorts import Cohorts
from wardround.common.files.tables import read_kept_table, write_table
from wardround.common.parameters.schema import Parameters
from wardround.common.runtime.system.signals import is_ctrl_c, raise_if_ctrl_c
from wardround.common.study.plans.contributions import MOST_SITES, has_contributions
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import RefusalRecord
from wardround.server.checkpoints.lost_sites import missed_rounds
from wardround.server.sites.exchange import Node
from wardround.server.sites.site_info import describe_sites
from wardround.simulations.evidence.segmentation import marked_tests, worst_cases
from wardround.simulations.experiment.baselines import baselines_of, train_baselines
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
    write_facts,
)
from wardround.simulations.run_files.predictions import Predictions, read_predictions
from wardround.simulations.sites.preparation import PreparedSites

REPORT = "report.html"
# Its shared part alone answers nothing, and the rest lies with a study that nobody is asked by.
_IN_PARTS = (
    "The federation without privacy is compared by its rounds' validation alone: each hospital "
    "keeps a part of that model."
)


class WholeRun:
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
                federated = self._federated = train_together(
                    self._out, grid, self._study, FEDERATED, self._watch, nodes
                )
            baselines = self._baselines(sites)
            with self._measuring("baselines"):
                train_baselines(
                    self._out, baselines, self._machine.for_study(self._study), self._watch
                )
            with self._measuring("test"):
                self._test(facts, sites, (grid, nodes), federated, baselines)

    def _test(
        self,
        facts: RunFacts,
        sites: PreparedSites,
        connected: tuple[Grid, Sequence[Node]],
        federated: TrainedModel,
        baselines: Sequence[Baseline],
    ) -> None:
        """Measure the models that were trained, and write down what there is of them."""
        self._watch(StageStarted("test"))
        others = [load_trained(self._out, baseline.name) for baseline in baselines]
        models = [federated, *self._whole(others)]
        grid, nodes = connected
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

            write_waves(self._out, sites.folders, self._study, federated)
        self._write_contributions(sites, federated, opened)
        attacked = backdoor_rows(sites.folders, self._study, federated)
        self._tested.extend(attacked)
        samples = self._out / "samples.npz"
        write_samples(samples, sites.folders, self._study, federated)
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
        write_rows(self._out, sites, self._tested)
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
                finished=now(),
                seconds=self._seconds,
                notes=tuple(dict.fromkeys((*facts.notes, *self._notes, *self._unmeasured()))),
                best_round=-1 if model is None else model.round,
                parameters=0 if model is None else _count(model.parameters),
                length_unit=self._length_unit,
                missed=self._missed(),
            ),
        )
        self._watch(StageStarted("report"))
        report = write_run_report(self._out)
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


def write_rows(out: Path, sites: PreparedSites, tested: list[MetricRow]) -> None:
    """Write the tables of a run: its metrics, its traffic and what was spent on patients."""
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


def write_run_report(out: Path) -> Path:
    """Write the report of a run folder; return its path."""
    from wardround.simulations.report import write_report

    return write_report(out)


def now() -> str:
    """Return the time in UTC, as run folders have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _count(parameters: Parameters) -> int:
    return sum(tensor.numel() for tensor in parameters.values())
