"""Did a hospital gain? The federated and its own model, compared on each of its test patients.

Real sites send sums only, which cannot say whether two models erred on the same patients. A
simulation has the patients, so it can.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wardround.client.data.cohort import Cohort, open_cohorts
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.client.site.state import SiteState
from wardround.client.tasks.registry import task_of
from wardround.client.training.evaluation import evaluating, predict
from wardround.common.parameters.schema import write_parameters
from wardround.common.study.study import Study
from wardround.simulations.experiment.rows import KEPT
from wardround.simulations.experiment.training import TrainedModel
from wardround.simulations.run_files.folder import FEDERATED, PAIRED, MetricRow, local_model

METRICS = ("accuracy", "balanced-accuracy", "f1")
_DRAWS = 1_999  # so that 5 % of these and the observed one are 100
_AT_ONCE = 200
_LEVEL = 0.05
_Z95 = 1.959964
_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model answered, as counts of examinations a patient.

    Attributes:
        right: ``(P, C)`` that are of a class and were called so.
        called: ``(P, C)`` that were called so.
    """

    right: _Floats
    called: _Floats


def paired_rows(
    folders: Sequence[Path], study: Study, models: Sequence[TrainedModel]
) -> Iterator[MetricRow]:
    """Yield the federated model's gain over each site's own on the same test patients.

    Of a classification; not where the federated model is trained on before each test.
    """
    by_name = {model.name: model for model in models}
    context = ModelContext.build(study, "cpu")
    if not study.task.classifies or context.plan.objective == "fine-tune":
        return
    for folder in folders:
        name = open_site(folder).name
        own = by_name.get(local_model(folder.name))
        if own is not None and FEDERATED in by_name:
            yield from _of_site(folder, context, by_name[FEDERATED], own, name)


def _of_site(
    folder: Path, context: ModelContext, federated: TrainedModel, own: TrainedModel, name: str
) -> Iterator[MetricRow]:
    site, study = open_site(folder), context.study
    cohort = open_cohorts(site, study).test
    if not len(cohort):
        return
    state = SiteState(site.state_folder, study.digest, federated.run)
    write_parameters(
        context.network, context.own_model(state, federated.round, federated.parameters)
    )
    first = _answers(context, cohort)
    write_parameters(context.network, context.on_base(own.parameters))
    second = _answers(context, cohort)
    truth = _truth(cohort, study)
    patients = cohort.patient_count
    for metric, (gain, margin) in compare(first, second, truth, study.data.multi_label).items():
        yield MetricRow(
            own.name, KEPT, name, PAIRED, metric, "", gain, patients, 0.0, margin / _Z95
        )


def compare(
    first: Answers, second: Answers, truth: _Floats, multi_label: bool
) -> Mapping[str, tuple[float, float]]:
    """Return each metric's gain of the first model over the second, and how far chance goes.

    If both are equally good, a patient's two answers may be swapped: the gains of random swaps are
    what chance does (an exact test: Fisher 1935; Pitman 1937; by 1,999 draws). A gain beyond the
    margin has a p-value of at most 0.05. All examinations of a patient are swapped together.

    Args:
        first: ``(P, C)`` counts of P patients.
        second: The same patients'.
        truth: ``(C,)`` examinations of each class. With several labels C is twice their number:
            all absent ones first, then all present ones.
        multi_label: Whether it is.
    """
    generator = np.random.default_rng(0)
    right, called = second.right - first.right, second.called - first.called
    differ = (right != 0).any(axis=1) | (called != 0).any(axis=1)  # the others swap for themselves
    right, called = right[differ], called[differ]
    sums = [part.sum(axis=0) for part in (first.right, first.called, second.right, second.called)]
    gains: dict[str, list[_Floats]] = {name: [] for name in METRICS}
    for _ in range(-(-_DRAWS // _AT_ONCE)):
        swapped = generator.integers(0, 2, (_AT_ONCE, len(right))).astype(np.float64)
        moved, moved_calls = swapped @ right, swapped @ called
        one = _values(sums[0] + moved, sums[1] + moved_calls, truth, multi_label)
        other = _values(sums[2] - moved, sums[3] - moved_calls, truth, multi_label)
        for name in METRICS:
            gains[name].append(one[name] - other[name])
    observed = _values(sums[0], sums[1], truth, multi_label)
    before = _values(sums[2], sums[3], truth, multi_label)
    place = round(_LEVEL * (_DRAWS + 1)) - 1
    return {
        name: (
            float(observed[name] - before[name]),
            float(np.sort(np.abs(np.concatenate(gains[name])[:_DRAWS]))[::-1][place]),
        )
        for name in METRICS
    }


def _values(
    right: _Floats, called: _Floats, truth: _Floats, multi_label: bool
) -> Mapping[str, _Floats]:
    """Return each metric from counts ``(..., C)``, as :class:`ClassificationSums` defines it."""
    present = truth > 0
    recall = right / np.maximum(truth, 1)
    f1 = 2 * right / np.maximum(truth + called, 1)
    if multi_label:
        labels = len(truth) // 2
        both = present[:labels] & present[labels:]
        present, f1_counted = np.tile(both, 2), present & (np.arange(2 * labels) >= labels)
    else:
        f1_counted = present
    return {
        "accuracy": right.sum(axis=-1) / truth.sum(),
        "balanced-accuracy": (recall * present).sum(axis=-1) / max(1, present.sum()),
        "f1": (f1 * f1_counted).sum(axis=-1) / max(1, f1_counted.sum()),
    }


def _answers(context: ModelContext, cohort: Cohort) -> Answers:
    study, size = context.study, context.study.training.batch_size
    found = []
    with evaluating(context.network):
        for start in range(0, len(cohort), size):
            batch = cohort.batch(torch.arange(start, min(start + size, len(cohort))))
            found.append(task_of(study).decide(predict(context.network, batch, study), study))
    called = _one_hot(torch.cat(found), study)
    right = called * _one_hot(cohort.targets, study)
    return Answers(_of_patients(right, cohort), _of_patients(called, cohort))


def _truth(cohort: Cohort, study: Study) -> _Floats:
    return np.asarray(_one_hot(cohort.targets, study).sum(dim=0).numpy())


def _one_hot(labels: torch.Tensor, study: Study) -> torch.Tensor:
    """Return ``(N, C)`` 0/1: the class, or for several labels those absent and those present."""
    if study.data.multi_label:
        return torch.cat([1 - labels, labels], dim=1).double()
    return torch.nn.functional.one_hot(labels, study.class_count).double()


def _of_patients(counts: torch.Tensor, cohort: Cohort) -> _Floats:
    total = torch.zeros(cohort.patient_count, counts.shape[1], dtype=torch.float64)
    return np.asarray(total.index_add_(0, cohort.patients, counts).numpy())
