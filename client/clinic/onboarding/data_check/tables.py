"""What the columns of a manifest hold: classes in each part, ranges of covariates."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from wardround.client.clinic.onboarding.data_check.findings import Counts, Finding, found
from wardround.client.clinic.onboarding.data_check.images import far_from_others
from wardround.client.clinic.onboarding.data_check.looks import Look
from wardround.client.clinic.onboarding.data_check.subjects import Subject, patients_of
from wardround.client.data.manifest.cells import is_missing, parse_number
from wardround.client.data.manifest.covariates import has_no_value
from wardround.common.study.study import Study

PARTS = ("train", "validation", "test", "")
_MOST_WORDS = 20  # of a column of categories
_NEVER_BELOW_ZERO = ("age", "alter", "weight", "height", "bmi", "dose", "volume", "size", "years")
_OLDEST = 120.0
_STEPS = 10


def check_classes(subjects: Sequence[Subject], study: Study | None) -> list[Finding]:
    """Return which classes no patient of a part has, and patients who are in two parts."""
    parts: dict[str, set[str]] = {}
    for subject in subjects:
        if subject.part:
            parts.setdefault(subject.patient, set()).add(subject.part)
    torn = [s.row for s in subjects if len(parts.get(s.patient, ())) > 1]
    findings = []
    if torn:
        remedy = "give all rows of a patient the same split."
        findings.append(found("leakage", "fault", "patients are in two parts", remedy, torn))
    named = set(study.data.classes) if study is not None and study.task.classifies else set()
    classes = sorted(named | {one for s in subjects for one in _classes(s)})
    used = [part for part in PARTS if any(s.part == part for s in subjects)]
    for part in used:
        held = {one for s in subjects if s.part == part for one in _classes(s)}
        if held and (absent := [name for name in classes if name not in held]):
            where = part or "the manifest"
            fact = f"no patient of {where} is {' or '.join(absent)}"
            remedy = "add patients, or leave the class out of the study."
            findings.append(Finding("classes", "look", fact, remedy))
    if not findings and classes:
        findings.append(Finding("classes", "ok", "each part has patients of each class"))
    return findings


def _classes(subject: Subject) -> list[str]:
    return [one for one in subject.label.split(";") if one]


def count_classes(subjects: Sequence[Subject]) -> list[Counts]:
    """Return how many examinations each part has of each class."""
    parts = [part for part in PARTS if any(s.part == part for s in subjects)]
    names = sorted({one for s in subjects for one in _classes(s)}) or [""]
    if names == [""] and parts == [""]:
        return []
    counted = Counter((one, s.part) for s in subjects for one in _classes(s) or [""])
    bars = tuple(
        (name or "examinations", tuple(float(counted[name, part]) for part in parts))
        for name in names
    )
    shown = tuple(part or "part not known" for part in parts)
    return [Counts("Examinations of each class, in each part.", shown, bars)]


def count_looks(looks: Sequence[Look]) -> list[Counts]:
    """Return how many examinations have each size, voxel size and orientation."""
    said = (
        ("Sizes in pixels or voxels.", ["x".join(map(str, one.shape)) for one in looks]),
        (
            "Voxel sizes in millimetres.",
            [" x ".join(f"{s:.3g}" for s in one.spacing or ()) for one in looks],
        ),
        ("Where the axes point to.", [one.axes for one in looks]),
    )
    counts = []
    for title, values in said:
        counted = Counter(value for value in values if value)
        if len(counted) > 1:
            most = counted.most_common(12)
            bars = [(name, (float(count),)) for name, count in most]
            if rest := sum(counted.values()) - sum(count for _, count in most):
                bars.append(("others", (float(rest),)))
            counts.append(Counts(title, ("examinations",), tuple(bars)))
    return [*counts, *_count_labels(looks), *_count_levels(looks)]


def _count_labels(looks: Sequence[Look]) -> list[Counts]:
    """Return how many masks hold each value."""
    held = Counter(value for look in looks for value in look.labels or ())
    if not held or len(held) > _MOST_WORDS:
        return []
    bars = tuple((f"{value:g}", (float(held[value]),)) for value in sorted(held))
    return [Counts("Masks that hold each value.", ("masks",), bars, "masks")]


def _count_levels(looks: Sequence[Look]) -> list[Counts]:
    """Return how the middle intensities of each channel are spread, in ten steps."""
    counts = []
    for channel in sorted({name for look in looks for name in look.levels}):
        middles = [look.levels[channel][1] for look in looks if channel in look.levels]
        held, edges = np.histogram(middles, _STEPS)
        if len(set(middles)) > 1:
            bars = tuple(
                (f"{low:.3g} to {high:.3g}", (float(count),))
                for low, high, count in zip(edges, edges[1:], held, strict=False)
            )
            title = f"Median intensity of each examination, channel {channel}."
            counts.append(Counts(title, ("examinations",), bars))
    return counts


def check_missing(subjects: Sequence[Subject], study: Study | None) -> list[Finding]:
    """Return how many examinations lack each channel and covariate that a study lets be missing."""
    findings = []
    for name, rows in _lacking(subjects, study).items():
        fact = f"{len(rows)} of {len(subjects)} examinations lack {name}"
        if len(rows) == len(subjects):
            remedy = "if this hospital has it after all, look at the column's name."
            findings.append(Finding("missing", "look", fact, remedy))
        elif rows:
            findings.append(found("missing", "ok", fact, "", rows))
        else:
            findings.append(Finding("missing", "ok", fact))
    return findings


def count_missing(subjects: Sequence[Subject], study: Study | None) -> list[Counts]:
    """Return how many examinations lack which of them together."""
    lacking = _lacking(subjects, study)
    if not any(lacking.values()):
        return []
    of_row: dict[int, list[str]] = {subject.row: [] for subject in subjects}
    for name, rows in lacking.items():
        for row in rows:
            of_row[row].append(name)
    counted = Counter(", ".join(names) or "nothing" for names in of_row.values())
    most = counted.most_common(_MOST_WORDS)
    bars = [(names, (float(count),)) for names, count in most]
    if rest := len(of_row) - sum(count for _, count in most):
        bars.append(("others", (float(rest),)))
    return [Counts("What examinations lack.", ("examinations",), tuple(bars))]


def _lacking(subjects: Sequence[Subject], study: Study | None) -> dict[str, list[int]]:
    """Return by each optional channel and covariate the rows that lack it."""
    if study is None:
        return {}
    data = study.data
    rows = {
        name: [s.row for s in subjects if s.images.get(name) is None]
        for name in data.optional_channels
    }
    for covariate in data.covariates:
        if covariate.name in data.optional:
            rows[covariate.name] = [
                s.row for s in subjects if has_no_value(covariate, s.covariates[covariate.name])
            ]
    return rows


def check_covariates(subjects: Sequence[Subject]) -> list[Finding]:
    """Return ranges of covariates, and values that cannot be or lie far from the rest."""
    names = list(dict.fromkeys(name for s in subjects for name in s.covariates))
    return [finding for name in names for finding in _check_column(name, subjects)]


def _check_column(name: str, subjects: Sequence[Subject]) -> list[Finding]:
    cells = [(s.row, s.covariates.get(name, "")) for s in subjects]
    filled = [(row, text) for row, text in cells if not is_missing(text)]
    numbers = [(row, n) for row, text in filled if (n := _number(text)) is not None]
    called = f"covariate {name}"
    if not filled:
        return [Finding(called, "look", "is empty in all rows", "fill it in, or leave it out.")]
    if len(numbers) < len(filled) / 2:
        return _check_words(called, filled, len(cells))
    findings = []
    if words := [row for row, text in filled if _number(text) is None]:
        fact = f"{len(words)} cells are no number"
        findings.append(found(called, "fault", fact, "write numbers, or leave them empty.", words))
    if wrong := [row for row, value in numbers if _cannot_be(name, value)]:
        findings.append(found(called, "fault", "values that cannot be", "mend them.", wrong))
    far = [numbers[place][0] for place in far_from_others([value for _, value in numbers])]
    if far := [row for row in far if row not in wrong]:
        fact = f"{len(far)} values lie far from the rest"
        findings.append(found(called, "look", fact, "look at unit and decimal mark.", far))
    values = [value for _, value in numbers]
    missing = len(cells) - len(filled)
    fact = f"from {min(values):g} to {max(values):g}, {missing} of {len(cells)} missing"
    return [*findings, Finding(called, "ok", fact)]


def _check_words(name: str, filled: Sequence[tuple[int, str]], count: int) -> list[Finding]:
    counted = Counter(text for _, text in filled)
    missing = count - len(filled)
    if len(counted) > _MOST_WORDS:
        return [Finding(name, "ok", f"text, {missing} of {count} missing")]
    alike = Counter(text.casefold() for text in counted)
    twice = [row for row, text in filled if alike[text.casefold()] > 1]
    findings = [Finding(name, "ok", f"{len(counted)} words, {missing} of {count} missing")]
    if twice:
        fact = "words that differ in capitals alone"
        findings.append(found(name, "look", fact, "write each in one way.", twice))
    return findings


def _number(text: str) -> float | None:
    try:
        return parse_number(text.replace(",", "."))
    except ValueError:
        return None


def _cannot_be(name: str, value: float) -> bool:
    word = name.casefold()
    if value < 0 and any(one in word for one in _NEVER_BELOW_ZERO):
        return True
    return value > _OLDEST and ("age" in word.split("_") or word in ("age", "alter"))


def how_many(subjects: Sequence[Subject]) -> tuple[int, int]:
    """Return how many examinations there are, of how many patients."""
    return len(subjects), patients_of(subjects)
