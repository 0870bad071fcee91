"""What a small model of a site's own says against its labels, in words."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wardround.client.clinic.onboarding.data_check.findings import Finding, Suspect, found
from wardround.client.clinic.onboarding.data_check.label_errors import (
    FEWEST,
    FOLDS,
    LabelHints,
    Labelled,
    find_label_errors,
)
from wardround.client.clinic.onboarding.data_check.looks import Look
from wardround.client.clinic.onboarding.data_check.subjects import Subject
from wardround.client.data.manifest.cells import parse_number
from wardround.common.study.study import Study

NAME = "label errors"
_MOST_SUSPECTS = 50  # shown: a person looks at them one by one
Looked = Sequence[tuple[Subject, Look]]


def check_labels(looked: Looked, study: Study | None) -> tuple[list[Finding], tuple[Suspect, ...]]:
    """Return what is to be said of labels, and those to be looked at, the surest doubts first."""
    labelled = [(s, look) for s, look in looked if s.label and not look.fault]
    if not labelled:
        return [], ()
    several = any(";" in s.label for s, _ in labelled)
    if several or (study is not None and study.data.multi_label):
        return [Finding(NAME, "ok", "not looked for: an examination has several labels")], ()
    features = _features(labelled)
    if features is None:
        return [Finding(NAME, "ok", "not looked for: there is nothing to hold labels against")], ()
    data = Labelled(
        tuple(s.row for s, _ in labelled),
        features,
        tuple(s.label for s, _ in labelled),
        tuple(s.patient for s, _ in labelled),
    )
    hints = find_label_errors(data)
    if hints is None:
        fact = f"not looked for: fewer than two classes have {FEWEST} patients"
        return [Finding(NAME, "ok", fact)], ()
    return _in_words(hints)


def _in_words(hints: LabelHints) -> tuple[list[Finding], tuple[Suspect, ...]]:
    how = (
        f"a small model, trained {FOLDS} times without a fifth of the patients, agrees with "
        f"{hints.accuracy:.0%} of the labels (always the largest class: {hints.chance:.0%})"
    )
    if hints.accuracy <= hints.chance:
        return [Finding(NAME, "ok", f"{how}: it has learnt nothing, so it says nothing")], ()
    if not hints.suspects:
        return [Finding(NAME, "ok", f"{how}, and is sure of no other one")], ()
    fact = f"{how}, and is confident of another class for {len(hints.suspects)}"
    remedy = "a hint, no verdict: look at them, the surest stand first in the report."
    rows = [suspect.row for suspect in hints.suspects]
    return [found(NAME, "look", fact, remedy, rows)], hints.suspects[:_MOST_SUSPECTS]


def _features(labelled: Looked) -> NDArray[np.float64] | None:
    """Return ``(N, D)`` what a model looks at: pictures of one kind, else the covariates."""
    widths = {look.features.size for _, look in labelled}
    if len(widths) == 1 and widths != {0}:
        return np.stack([look.features for _, look in labelled]).astype(np.float64)
    names = list(dict.fromkeys(name for s, _ in labelled for name in s.covariates))
    columns = [_column([s.covariates.get(name, "") for s, _ in labelled]) for name in names]
    known = [column for column in columns if column is not None]
    return np.stack(known, axis=1) if known and max(widths) == 0 else None


def _column(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """Return a covariate as numbers, the mean where it is missing; None for text."""
    try:
        numbers = [parse_number(cell) for cell in cells]
    except ValueError:
        return None
    held = [number for number in numbers if number is not None]
    mean = sum(held) / len(held) if held else 0.0
    return np.array([mean if number is None else number for number in numbers])
