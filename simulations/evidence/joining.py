"""Should this hospital join? Its word, and which model it should use, from a run's predictions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from wardround.common.statistics.joining.patient_gain import gain_of
from wardround.common.statistics.joining.worth_joining import Gain, Joining, judge_joining
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study
from wardround.simulations.evidence.intervals.metric_estimates import (
    Cases,
    estimate,
    estimates_by_class,
    patient_count,
    patients_of_class,
    strata_of,
)
from wardround.simulations.run_files.folder import FEDERATED, local_model
from wardround.simulations.run_files.predictions import ENSEMBLE, SHARED, Key

Kind = Literal["own", "global", "personalised"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The model that a hospital should use, chosen on validation patients and then tested.

    Attributes:
        kind: ``own`` (trained alone), ``global`` (the same for all hospitals) or ``personalised``
            (the global one with a part that is the hospital's).
        validation: Its value there, by which it was chosen; NaN where nothing could be.
        validation_patients: 0 where the hospital has none: then it is the federation's model.
        test: Its value on the test patients, which had no part in the choice.
        gain: Over the hospital's own model on the test patients; exactly 0 for that one.
    """

    kind: Kind
    validation: float
    validation_patients: int
    test: float
    gain: Gain


@dataclass(frozen=True, slots=True)
class SiteJoining:
    """What the run says to one hospital.

    Attributes:
        patients: Test patients.
        one_class: Whether all of them are of one class, where a constant answer is always right.
        own: Gain of the federation's model over the hospital's own one.
        ensemble: Its gain over the mean answer of all hospitals' own models; None where there is
            no such model, as of a segmentation.
    """

    site: str
    patients: int
    one_class: bool
    joining: Joining
    own: Gain
    ensemble: Gain | None
    choice: Choice


def judge_sites(
    cases: Mapping[Key, Cases], sites: Sequence[str], study: Study
) -> tuple[SiteJoining, ...]:
    """Return the word of every site whose own and federated models were both tested.

    Args:
        cases: What each model said, by (model, site, split).
        sites: In their order.
    """
    return tuple(
        _judge(cases, site, study)
        for site in sites
        if (FEDERATED, site, "test") in cases and (local_model(site), site, "test") in cases
    )


def compare(first: Cases, second: Cases, study: Study) -> Gain:
    """Return the gain of the first model over the second in the study's metric."""
    metric = study.metric
    if not np.array_equal(first.cases, second.cases):
        return Gain(math.nan, math.nan, 0.0, patient_count(first))
    sign = 1 if METRICS[metric].higher_is_better else -1
    one, other = estimate(metric, first, study), estimate(metric, second, study)
    return gain_of(one, other, strata_of(metric, first, study), sign)


def _judge(cases: Mapping[Key, Cases], site: str, study: Study) -> SiteJoining:
    federated, own = cases[FEDERATED, site, "test"], cases[local_model(site), site, "test"]
    together = cases.get((ENSEMBLE, site, "test"))
    gain = compare(federated, own, study)
    over_ensemble = None if together is None else compare(federated, together, study)
    parts = _by_class(federated, own, study)
    joining = judge_joining(gain, study.evaluation.margin, over_ensemble, parts)
    return SiteJoining(
        site,
        patient_count(federated),
        _one_class(federated, study),
        joining,
        gain,
        over_ensemble,
        _choose(cases, site, study),
    )


def _by_class(first: Cases, second: Cases, study: Study) -> Mapping[str, Gain]:
    metric = study.metric
    if not np.array_equal(first.cases, second.cases):
        return {}
    sign = 1 if METRICS[metric].higher_is_better else -1
    ours, theirs = (estimates_by_class(metric, cases, study) for cases in (first, second))
    found = {}
    for name in ours:
        gain = gain_of(ours[name], theirs[name], strata_of(metric, first, study), sign)
        # A class is known by the patients who have it, however many others there are.
        having = patients_of_class(first, name, study)
        found[name] = replace(gain, freedom=min(gain.freedom, having - 1.0), patients=having)
    return found


def _choose(cases: Mapping[Key, Cases], site: str, study: Study) -> Choice:
    """Choose on validation; of equals the one that takes the least: the hospital's own first."""
    names: dict[Kind, str] = {"own": local_model(site)}
    if plan_of(study).personalised:
        names |= {"global": SHARED, "personalised": FEDERATED}
    else:
        names["global"] = FEDERATED
    values = {
        kind: estimate(study.metric, cases[name, site, "validation"], study).value
        for kind, name in names.items()
        if (name, site, "validation") in cases and (name, site, "test") in cases
    }
    sign = 1 if METRICS[study.metric].higher_is_better else -1
    known = {kind: value for kind, value in values.items() if not math.isnan(value)}
    joined: Kind = "personalised" if "personalised" in names else "global"
    kind = max(known, key=lambda one: sign * known[one]) if known else joined
    seen = cases.get((local_model(site), site, "validation"))
    tested, own = cases[names[kind], site, "test"], cases[local_model(site), site, "test"]
    test = estimate(study.metric, tested, study).value
    return Choice(
        kind,
        known.get(kind, math.nan),
        patient_count(seen) if seen is not None and known else 0,
        test,
        compare(tested, own, study) if kind != "own" else Gain(0.0, 0.0, 1.0, patient_count(own)),
    )


def _one_class(cases: Cases, study: Study) -> bool:
    if not study.task.classifies or study.data.multi_label:
        return False
    labels = getattr(cases, "labels", None)
    return labels is not None and int(labels.any(axis=0).sum()) == 1
