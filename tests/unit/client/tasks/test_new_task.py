"""One more task, the length of a stay, that only this file knows: a class and a row each."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from wardround.client.data.cohorts import open_cohorts
from wardround.client.site.folder import open_site
from wardround.client.tasks.registry import TASKS as SITE_TASKS
from wardround.client.tasks.task import UnusableLabelError
from wardround.client.training.losses.registry import LOSS_BUILDERS
from wardround.common.errors import DataError, InputError, StudyError
from wardround.common.messages.instructions import Instruction, new_run
from wardround.common.metrics.records import from_arrays, to_arrays
from wardround.common.metrics.sums import TASK_SUMS, empty_sums
from wardround.common.metrics.task_sums import MetricValue, refuse, refuse_other_task, sums_of
from wardround.common.study.loading import parse_study
from wardround.common.study.registry import METRICS, NETWORKS, TASKS, MetricEntry, TaskEntry
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import read_records
from wardround.server.checkpoints.store import CheckpointStore
from wardround.server.rounds.evaluation import measure_model
from wardround.server.sites.site_info import describe_sites
from wardround.simulations.experiment.federation import Machine, open_grid, run_federation

ERROR = "mean-absolute-error"


@dataclass(frozen=True, slots=True, eq=False)
class RegressionSums:
    OPTIONAL = frozenset()

    distances: np.ndarray  # (1,) sum of the distances between truth and prediction

    @classmethod
    def empty(cls, study, surfaces):
        return cls(np.zeros(1))

    @classmethod
    def from_arrays(cls, arrays, examinations):
        sums = cls(sums_of(arrays, "distances"))
        if not examinations and sums.distances.any():
            refuse("distances", "is a sum over no examination")
        return sums

    def to_arrays(self):
        return {"distances": self.distances}

    def plus(self, other, examinations):
        if not isinstance(other, RegressionSums):
            refuse_other_task()
        return RegressionSums(self.distances + other.distances)

    def summarise(self, metric, examinations, study):
        value = float(self.distances[0]) / examinations if examinations else math.nan
        yield MetricValue(metric, "", value, examinations)

    def cells_behind(self, metric):
        return np.zeros(0, dtype=np.int64)


class Numbers:
    def read(self, text, study):
        try:
            return (float(text),)
        except ValueError:
            fact = "the column label is not a number"
            raise UnusableLabelError(fact, "write one") from None

    def stack(self, labels, study):
        return torch.tensor(labels, dtype=torch.float32).reshape(len(labels), 1)


class DistanceCounter:
    def __init__(self):
        self.total = 0.0

    def add(self, outputs, targets, spacings_mm):
        self.total += float((outputs - targets).abs().sum())

    def sums(self):
        return RegressionSums(np.array([self.total]))


class Regression:
    labels = Numbers()

    def cases_of_classes(self, targets, study):
        return None

    def predict(self, forward, batch, study):
        return forward(*batch.inputs)

    def decide(self, outputs, study):
        return outputs

    def counter(self, study, surfaces):
        return DistanceCounter()


def squared_error(outputs, targets, class_weights):
    return (outputs - targets).square().mean(1)


@pytest.fixture
def length_of_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each registry its row."""
    entry = TaskEntry("label", "estimate", "squared-error", ERROR, fewest_classes=1)
    monkeypatch.setitem(TASKS, "length-of-stay", entry)
    monkeypatch.setitem(SITE_TASKS, "length-of-stay", Regression())
    monkeypatch.setitem(TASK_SUMS, "length-of-stay", RegressionSums)
    monkeypatch.setitem(LOSS_BUILDERS, "squared-error", squared_error)
    monkeypatch.setitem(
        METRICS, ERROR, MetricEntry(("length-of-stay",), False, "mean absolute error")
    )
    for table, name in ((METRICS, "loss"), (NETWORKS, "mlp")):
        row = table[name]
        monkeypatch.setitem(table, name, replace(row, tasks=(*row.tasks, "length-of-stay")))


def stays(**federation) -> Study:
    return parse_study(
        {
            "study": {"name": "length of stay", "task": "length-of-stay"},
            "data": {"kind": "table", "classes": ["days"], "covariates": [{"name": "age"}]},
            "model": {"network": "mlp", "features": []},
            "training": {"learning_rate": 0.1, "local_epochs": 10, "optimiser": "adam"},
            "federation": {"rounds": 4, "minimum_sites": 2, **federation},
        }
    )


def write_site(folder, metrics, shift=0.0):
    """Write a site whose patients stay 2 x age + 1 days; ages are in decades about the mean."""
    folder.mkdir()
    ages = np.linspace(-2, 2, 40) + shift
    rows = [f"p{i},{2 * age + 1},{age}" for i, age in enumerate(ages)]
    (folder / "manifest.csv").write_text("\n".join(["patient,label,age", *rows]))
    (folder / "site.toml").write_text(f'name = "{folder.name}"')
    (folder / "policy.toml").write_text(
        'tasks = ["length-of-stay"]\napproved = "any"\nsimulated = true\nprivacy_required = false\n'
        f'smallest_cohort = 2\nsmallest_cell = 1\nmetrics = "{metrics}"\n'
    )
    return folder


@pytest.mark.usefixtures("length_of_stay")
@pytest.mark.parametrize("metrics", ["sums", "values"])
def test_a_new_task_is_trained_and_measured_across_sites_without_an_edit(tmp_path, metrics):
    study = stays()
    folders = [write_site(tmp_path / name, metrics, s) for name, s in (("a", 0), ("b", 0.5))]

    with open_grid(folders, study, Machine("cpu", "in-process", threads=1)) as grid:
        kept = run_federation(grid, study, tmp_path / "run")
        nodes, _ = describe_sites(grid, study)
        order = Instruction(
            study.digest, new_run(), 4, kept.parameters, split="test", surfaces=True
        )
        measured = measure_model(grid, study, nodes, order)

    records = list(read_records(CheckpointStore(tmp_path / "run").history_path))
    errors = [
        value.value
        for record in records
        for value in record.measurements[-1].values
        if value.metric == ERROR
    ]
    assert errors[-1] < errors[0] / 4
    assert {v.metric for m in measured.values for v in m.values} == {"loss", ERROR}
    assert all(v.value < 1 for v in measured.values[-1].values if v.metric == ERROR)
    assert not measured.refusals


@pytest.mark.usefixtures("length_of_stay")
def test_a_cell_that_the_new_task_cannot_read_is_named_by_its_row(tmp_path):
    folder, study = write_site(tmp_path / "a", "sums"), stays()
    manifest = folder / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("p0,", "p0,long "))

    with pytest.raises(DataError, match="the column label is not a number in row 2: write one"):
        open_cohorts(open_site(folder), study)


@pytest.mark.usefixtures("length_of_stay")
def test_sums_of_the_new_task_that_cannot_be_true_are_refused():
    study = stays()
    arrays = to_arrays(empty_sums(study)) | {"distances": np.ones(1)}

    with pytest.raises(InputError, match="is a sum over no examination"):
        from_arrays(arrays, study)


def test_a_task_without_its_row_is_no_task():
    with pytest.raises(StudyError, match="unknown task 'length-of-stay'"):
        stays()


def test_every_task_has_its_row_in_each_registry():
    assert set(TASKS) == set(SITE_TASKS) == set(TASK_SUMS)
    for name, entry in TASKS.items():
        # What pretraining compares with is made of the image itself: it has no column.
        assert (entry.column in ("label", "")) == (SITE_TASKS[name].labels is not None)
        assert name in METRICS[entry.metric].tasks
        assert entry.loss in LOSS_BUILDERS
