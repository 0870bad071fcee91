"""Is a running study worth joining? Asked at the hospital, of its own patients, before it decides.

The study's present model, a copy of it that is trained on here, and a model that is trained here
alone are measured on the hospital's own test patients. Nothing is sent but the study's digest, by
which the server knows which model is wanted; the numbers stay.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wardround.client.clinic.inference.released_model import fetch_present
from wardround.client.clinic.local_training import train_locally
from wardround.client.data.cohort import Cohort
from wardround.client.data.cohorts import open_cohorts
from wardround.client.doctor.decisions import find_study
from wardround.client.policy.policy import open_policy
from wardround.client.policy.rules import require_packages
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.client.training.evaluation import evaluate, evaluating, predict
from wardround.client.training.losses.registry import build_loss
from wardround.common.errors import InputError, PolicyError
from wardround.common.metrics.sums import MetricSums, summarise
from wardround.common.parameters.schema import write_parameters
from wardround.common.statistics.joining.patient_gain import (
    Estimate,
    auroc_of,
    f1_of,
    gain_of,
    mean_of,
    mean_of_estimates,
    recall_of,
)
from wardround.common.statistics.joining.worth_joining import Gain, Joining, judge_joining
from wardround.common.study.study import Study
from wardround.common.study.variants import without_privacy

PRESENT, TUNED, OWN = "the study's present model", "a copy trained on here", "trained here alone"
_CHUNK = 64
_UNKNOWN = Gain(math.nan, math.nan, 0.0, 0)
_Maker = Callable[[np.ndarray, np.ndarray, np.ndarray], Estimate]


@dataclass(frozen=True, slots=True)
class Worth:
    """What a hospital learns of a study that it may join; it stays at the hospital.

    Attributes:
        round: After which the present model was made.
        sites: How many took part in it last; not which.
        metric: The study's.
        patients: Test patients.
        values: Of the metric on them, by model.
        gain: Of the present model over the one trained here alone.
        joining: The word, as a simulation's report says it.
        rounds: Of training, of the copy and of the own model.
    """

    study: str
    round: int
    sites: int
    metric: str
    patients: int
    values: dict[str, float]
    gain: Gain
    joining: Joining
    rounds: tuple[int, int]


def weigh_joining(site_folder: Path, given: str, rounds: int = 3, address: str = "") -> Worth:
    """Measure what a running study has to offer at a site, and what the site has without it.

    Args:
        given: The study's digest, or how it begins, or its file.
        rounds: How many rounds the copy is trained here.
        address: Of the server, where it is not that of ``site.toml``.

    Raises:
        InputError: The study is not known here, or trains nothing.
        PolicyError: The site's policy takes no model.
        DataError: The site's data is not what the study needs, or nobody is tested on.
        RunError: The server was not reached, or no run of the study goes on there for this site.
    """
    study, policy = find_study(site_folder, given), open_policy(site_folder)
    require_packages(policy, study)
    if not policy.takes_models:
        msg = "policy.toml says takes_models = false: this site fetches no model to look at."
        raise PolicyError(msg)
    if study.statistics.ask or study.task.restores:
        msg = "the study trains no model that answers anything: there is nothing to weigh."
        raise InputError(msg)
    said, weights = fetch_present(site_folder, study, policy, address)
    alone = without_privacy(study)
    site = open_site(site_folder)
    context = ModelContext.build(alone, site.settings.first_device)
    write_parameters(context.network, {**_whole(context), **weights})
    present = context.network
    tuned = train_locally(alone, site, present, rounds=rounds).network
    own = train_locally(alone, site).network
    test = open_cohorts(site, alone).test
    networks = {PRESENT: present, TUNED: tuned, OWN: own}
    values = {name: _value(network, test, alone) for name, network in networks.items()}
    gain = _gain(present, own, test, alone)
    patients = len({one.patient for one in test.examinations})
    return Worth(
        study.digest,
        said.round,
        said.sites,
        study.metric,
        patients,
        values,
        gain,
        judge_joining(gain, study.evaluation.margin),
        (rounds, study.federation.rounds),
    )


def _whole(context: ModelContext) -> dict[str, torch.Tensor]:
    from wardround.common.parameters.schema import read_parameters

    return dict(read_parameters(context.network))


def _value(network: nn.Module, cohort: Cohort, study: Study) -> float:
    """Return the study's metric over all classes; NaN where it is not defined."""
    device = next(network.parameters()).device
    loss = build_loss(study, cohort.class_counts(), device)
    sums = evaluate(network, cohort, study, device, loss, surfaces=False)
    values = summarise(sums, study) if isinstance(sums, MetricSums) else ()
    found = [one.value for one in values if one.metric == study.metric and not one.class_name]
    return found[0] if found else math.nan


def _gain(first: nn.Module, second: nn.Module, cohort: Cohort, study: Study) -> Gain:
    """Return the paired gain of the first; not known of a metric that is no classification's."""
    maker = _MAKERS.get(study.metric)
    if maker is None or not study.task.classifies or study.data.multi_label:
        return replace(_UNKNOWN, patients=len({one.patient for one in cohort.examinations}))
    order = {p: n for n, p in enumerate(dict.fromkeys(e.patient for e in cohort.examinations))}
    patients = np.array([order[one.patient] for one in cohort.examinations])
    truth = cohort.targets.numpy().astype(int)
    one, other = (
        maker(_scores(network, cohort, study), truth, patients) for network in (first, second)
    )
    return gain_of(one, other)


def _scores(network: nn.Module, cohort: Cohort, study: Study) -> np.ndarray:
    """Return ``(N, K)`` probabilities."""
    device, found = next(network.parameters()).device, []
    with evaluating(network):
        for start in range(0, len(cohort), _CHUNK):
            indices = torch.arange(start, min(start + _CHUNK, len(cohort)))
            answers = predict(network, cohort.batch(indices, None, device), study)
            found.append(answers.softmax(dim=1).cpu())
    return torch.cat(found).numpy()


def _accuracy(scores: np.ndarray, truth: np.ndarray, patients: np.ndarray) -> Estimate:
    return mean_of((scores.argmax(1) == truth).astype(float), patients, counts=True)


def _auroc(scores: np.ndarray, truth: np.ndarray, patients: np.ndarray) -> Estimate:
    classes = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    return mean_of_estimates([auroc_of(scores[:, k], truth == k, patients) for k in classes])


def _balanced(scores: np.ndarray, truth: np.ndarray, patients: np.ndarray) -> Estimate:
    right = (scores.argmax(1) == truth).astype(float)
    parts = [recall_of(right, truth == k, patients) for k in range(scores.shape[1])]
    return mean_of_estimates(parts)


def _f1(scores: np.ndarray, truth: np.ndarray, patients: np.ndarray) -> Estimate:
    called = scores.argmax(1)
    parts = [f1_of(called == k, truth == k, patients) for k in range(scores.shape[1])]
    return mean_of_estimates(parts)


_MAKERS: dict[str, _Maker] = {
    "accuracy": _accuracy,
    "auroc": _auroc,
    "balanced-accuracy": _balanced,
    "f1": _f1,
}
