"""What the labels of a regression or a survival study hold: numbers, or times and events."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from wardround.client.clinic.onboarding.data_check.findings import Finding, found
from wardround.client.clinic.onboarding.data_check.images import far_from_others
from wardround.client.clinic.onboarding.data_check.subjects import Subject
from wardround.client.tasks.words import number_in
from wardround.common.study.study import Study

_NAME = "label"
_MOST_CLASSES = 20  # so many different numbers are no classes
_FEWEST_EVENTS = 10  # fewer teach next to nothing
_FAR_OFF = 3.0  # scales between the labels' mean and the study's


def check_outcomes(subjects: Sequence[Subject], study: Study) -> list[Finding]:
    """Return what is to be said of the labels that can be read; nothing of a study of classes."""
    told = [subject for subject in subjects if subject.outcome]
    if not study.task.outcome:
        return []
    if not told:
        return [Finding(_NAME, "fault", "no row has a label that can be read", "mend the column.")]
    return _of_times(told, study) if study.task.outcome == "time" else _of_numbers(told, study)


def without_numbers(subjects: Sequence[Subject]) -> tuple[list[Subject], list[Finding]]:
    """Return subjects whose labels are no numbers that were taken for classes, and what they are.

    Without a study nobody says what a label is; a column of many different numbers has no classes.
    """
    labels = {subject.label for subject in subjects if subject.label}
    pairs = [[number_in(part) for part in label.split(";")] for label in labels]
    if len(labels) <= _MOST_CLASSES or any(None in pair for pair in pairs):
        return list(subjects), []
    first = [pair[0] for pair in pairs if pair[0] is not None]
    fact = f"numbers from {min(first):g} to {max(first):g}: for a study of a number or a time"
    return [replace(one, label="") for one in subjects], [Finding(_NAME, "ok", fact)]


def _of_numbers(told: Sequence[Subject], study: Study) -> list[Finding]:
    values, outcome = [subject.outcome[0] for subject in told], study.outcome
    mean, spread = float(np.mean(values)), float(np.std(values))
    low, high = outcome.with_unit(min(values)), outcome.with_unit(max(values))
    fact = f"from {min(values):g} to {high}, mean {mean:.4g}, standard deviation {spread:.4g}"
    findings = [Finding(_NAME, "ok", fact)]
    if low == high and len(values) > 1:
        fact = f"all labels are {low}"
        findings.append(Finding(_NAME, "look", fact, "a model has nothing to learn from them."))
    far = [told[place].row for place in far_from_others(values)]
    if far:
        remedy = "look at unit and decimal mark."
        findings.append(found(_NAME, "look", f"{len(far)} lie far from the rest", remedy, far))
    if abs(mean - outcome.centre) > _FAR_OFF * outcome.step:
        fact = (
            f"the mean is {mean:.4g}, and the study expects about {outcome.centre:g} "
            "(data.outcome.mean)"
        )
        findings.append(Finding(_NAME, "look", fact, "is it the same unit?"))
    return findings


def _of_times(told: Sequence[Subject], study: Study) -> list[Finding]:
    outcome, horizon = study.outcome, study.outcome.times[-1]
    times = [subject.outcome[0] for subject in told]
    events = sum(1 for one in told if one.outcome[1] and one.outcome[0] <= horizon)
    share = math.floor(100 * events / len(told))
    fact = (
        f"{events} of {len(told)} examinations ({share} %) have the event up to the horizon of "
        f"{outcome.with_unit(horizon)}; times go up to {outcome.with_unit(max(times))}"
    )
    findings = [Finding(_NAME, "ok", fact)]
    if events < _FEWEST_EVENTS:
        fact = f"{events} events: a model hardly learns from so few"
        remedy = "are 1 and 0 the right way round? 1 is the event."
        findings.append(Finding(_NAME, "look", fact, remedy))
    if events == len(told) > 1:
        fact = "every examination has the event"
        remedy = "was nobody only followed so far? They belong into the manifest, with a 0."
        findings.append(Finding(_NAME, "look", fact, remedy))
    if at_once := [one.row for one in told if one.outcome[0] == 0]:
        remedy = "count from the image or the entry into the study on; 0 tells a model nothing."
        fact = f"{len(at_once)} times are 0"
        findings.append(found(_NAME, "look", fact, remedy, at_once))
    if max(times) < outcome.times[0]:
        fact = f"all times are below {outcome.with_unit(outcome.times[0])}, the first of the study"
        findings.append(Finding(_NAME, "look", fact, "is it the same unit?"))
    return findings
