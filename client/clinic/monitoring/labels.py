"""Labels that come later: how well the model still does, and whether it is still calibrated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.clinic.inference.inputs import find_inputs
from wardround.client.clinic.monitoring.case import Case
from wardround.client.clinic.monitoring.comparison.evidence import Budget, Finding
from wardround.client.clinic.monitoring.comparison.two_samples import mean_p_value, rates_p_value
from wardround.client.clinic.monitoring.gathering import place_of
from wardround.client.clinic.monitoring.monitor import alpha_of, judged
from wardround.client.clinic.monitoring.renewal import LABELS
from wardround.client.clinic.monitoring.store import MonitorFolder, Truth
from wardround.client.data.manifest.table import Table, read_table
from wardround.client.tasks.words import tidy, word_among
from wardround.common.errors import DataError, InputError
from wardround.common.statistics.delong import auroc_from_scores
from wardround.common.statistics.multiple import holm_p_values
from wardround.common.study.study import Study

LEAST_LABELLED = 20
_BINS = 10
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Performance:
    """How well a model did on labelled cases.

    Attributes:
        cases: How many are labelled.
        accuracy: Share of them that got their own classes; NaN for a number.
        auroc: Of two classes that of the second, of more the mean; NaN where one has no case.
        loss: Brier score (sum over classes), or the mean absolute error of a number.
        calibration_error: Mean distance of confidence and accuracy over ten bins; NaN for a number.
    """

    cases: int
    accuracy: float
    auroc: float
    loss: float
    calibration_error: float


def truth_of_label(key: str, label: Sequence[float], study: Study) -> Truth | None:
    """Return a manifest's label as a truth; None for a task whose labels are no classes or number.

    Args:
        label: As an examination holds it.
    """
    classes = study.data.classes
    if study.task.classifies and not study.data.multi_label and len(label) == 1:
        place = int(label[0])
        return Truth(key, (classes[place],)) if 0 <= place < len(classes) else None
    if study.task.classifies and len(label) == len(classes):
        return Truth(key, tuple(n for n, v in zip(classes, label, strict=True) if v == 1))
    if study.task.outcome == "number" and len(label) == 1:
        return Truth(key, (), float(label[0]))
    return None


def require_labels(study: Study) -> None:
    """Refuse a task whose predictions are not kept in a form that labels can be held against.

    Raises:
        InputError: It is one of masks, boxes or times.
    """
    if not study.task.classifies and study.task.outcome != "number":
        msg = (
            f"the task {study.study.task!r} has no labels of one word or number, and predicted "
            "masks and boxes are not kept here: measure it with 'wardround evaluate'."
        )
        raise InputError(msg)


def read_labels(monitor: MonitorFolder, path: Path, study: Study) -> tuple[list[Truth], int]:
    """Return the labels of a table that are of known cases, and how many are of none.

    Args:
        path: CSV with the columns ``image`` (as it was named when it was added) or ``series`` (of
            the gateway), and ``label``.

    Raises:
        InputError: A column is missing, or a label is no class; says the row.
    """
    require_labels(study)
    if not path.is_file():
        msg = f"there is no table {path}: give a CSV file with the columns image and label."
        raise InputError(msg)
    try:
        table = read_table(path)
    except DataError as error:
        raise InputError(str(error)) from None
    if not table.places("label"):
        msg = f"{path} lacks the column label: add it, with a class or a number a row."
        raise InputError(msg)
    known = {case.key for cases in monitor.cases().values() for case in cases}
    known |= {case.key for case in monitor.reference_cases()}
    keys = _keys_by_row(monitor, path, table, study)
    truths, unknown = [], 0
    for line in table.lines:
        text = tidy(line.cells[table.places("label")[0]])
        if not text:
            continue  # not looked at yet
        truth = _truth(keys[line.row], text, study, (path, line.row))
        if truth.key in known:
            truths.append(truth)
        else:
            unknown += 1
    if not truths:
        msg = (
            f"none of the {unknown} labelled rows of {path} is an image that was added: name the "
            "images as they were named then."
        )
        raise InputError(msg)
    return truths, unknown


def _keys_by_row(monitor: MonitorFolder, path: Path, table: Table, study: Study) -> dict[int, str]:
    if table.places("series"):
        place = table.places("series")[0]
        return {ln.row: monitor.key_of(f"series:{tidy(ln.cells[place])}") for ln in table.lines}
    return {one.row: monitor.key_of(place_of(one)) for one in find_inputs([str(path)], study)}


def _truth(key: str, text: str, study: Study, at: tuple[Path, int]) -> Truth:
    path, row = at
    if study.task.outcome == "number":
        try:
            return Truth(key, (), float(text))
        except ValueError:
            msg = f"{path}, row {row}: the label is not a number."
            raise InputError(msg) from None
    parts = [part.strip() for part in text.split(";")] if study.data.multi_label else [text]
    words = [word_among(part, study.data.classes) for part in parts if part]
    if any(word is None for word in words):
        known = ", ".join(study.data.classes[:8])
        msg = f"{path}, row {row}: the label is none of the model's classes: {known}."
        raise InputError(msg)
    return Truth(key, tuple(word for word in words if word is not None))


def look_at_labels(monitor: MonitorFolder, truths: Sequence[Truth]) -> dict[str, Any]:
    """Write labels down, and look at the cases that they are of; return what was found."""
    with monitor.alone():
        monitor.add_truths(truths)
        held = monitor.truths()
        named = {truth.key for truth in truths}
        own = [c for cases in monitor.cases().values() for c in cases if c.key in named]
        before = _scored(monitor.reference_cases(), held)
        after = _scored(own, held)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        number = sum(entry["kind"] == LABELS for entry in monitor.entries()) + 1
        found: list[Finding] = []
        if min(len(before), len(after)) >= LEAST_LABELLED:
            budget = Budget(alpha_of(monitor.reference), f"labels {number}")
            found = _findings(before, after, budget)
        entry = {
            "kind": LABELS,
            "period": f"labels {number}",
            "at": now,
            "cases": len(after),
            "reference_cases": len(before),
            "with": [],
            **judged(found),
        }
        if own:  # labels of the reference alone are nothing that was found
            monitor.add_entry(entry)
        return entry


@dataclass(frozen=True, slots=True)
class _Scored:
    case: Case
    truth: Truth

    @property
    def is_right(self) -> bool:
        return set(self.case.found) == set(self.truth.classes)

    @property
    def loss(self) -> float:
        if self.truth.value is not None:
            return abs(next(iter(self.case.outputs.values())) - self.truth.value)
        wanted = {name: float(name in self.truth.classes) for name in self.case.outputs}
        return sum((p - wanted[name]) ** 2 for name, p in self.case.outputs.items())


def _scored(cases: Sequence[Case], truths: Mapping[str, Truth]) -> list[_Scored]:
    return [_Scored(case, truths[case.key]) for case in cases if case.key in truths]


def _findings(before: list[_Scored], after: list[_Scored], budget: Budget) -> list[Finding]:
    tests = []
    count = budget.permutations("performance")
    if before[0].truth.value is None:
        right = [sum(one.is_right for one in some) for some in (before, after)]
        tables = [(r, len(some) - r) for r, some in zip(right, (before, after), strict=True)]
        p = rates_p_value(tables[0], tables[1], count, budget.generator("right"))
        shares = [r / len(some) for r, some in zip(right, (before, after), strict=True)]
        tests.append(("accuracy", p, shares))
    losses = [np.array([one.loss for one in some]) for some in (before, after)]
    p = mean_p_value(losses[0], losses[1], count, budget.generator("loss"))
    name = "Brier score" if before[0].truth.value is None else "absolute error"
    tests.append((name, p, [float(rows.mean()) for rows in losses]))
    adjusted = holm_p_values([p for _, p, _ in tests])
    return [
        Finding(
            family="performance",
            name=name,
            scanner="",
            p=p,
            alone=alone,
            before=means[0],
            after=means[1],
            scale=np.nan,
            cases=len(after),
            level=budget.level_of("performance", p),
        )
        for (name, alone, means), p in zip(tests, adjusted, strict=True)
    ]


def performance_of(cases: Sequence[Case], truths: Mapping[str, Truth]) -> Performance | None:
    """Return how well the model did on the cases that are labelled; None where none is."""
    some = _scored(cases, truths)
    if not some:
        return None
    loss = float(np.mean([one.loss for one in some]))
    if some[0].truth.value is not None:
        return Performance(len(some), np.nan, np.nan, loss, np.nan)
    right = np.array([one.is_right for one in some], dtype=np.float64)
    return Performance(
        len(some), float(right.mean()), _auroc(some), loss, _calibration_error(some, right)
    )


def _auroc(some: Sequence[_Scored]) -> float:
    classes = list(some[0].case.outputs)
    found = []
    for name in classes[1:] if len(classes) == 2 else classes:
        labels = np.array([name in one.truth.classes for one in some])
        if labels.all() or not labels.any():
            return float("nan")
        scores = np.array([one.case.outputs[name] for one in some])
        found.append(auroc_from_scores(scores, labels))
    return float(np.mean(found))


def _calibration_error(some: Sequence[_Scored], right: Floats) -> float:
    confidence = np.array([one.case.confidence for one in some])
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    apart = 0.0
    for place in range(_BINS):
        inside = bins == place
        if inside.any():
            apart += abs(float((right[inside] - confidence[inside]).sum()))
    return apart / len(some)
