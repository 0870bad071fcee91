"""``predictions.csv``, ``cases.csv``, ``lesions.csv``: what models said of each examination.

They name an examination by its row of the site's manifest and a patient by a number, and stay in
the run folder: no message carries them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wardround.common.files.tables import read_table, refusing_damage
from wardround.common.study.study import Study
from wardround.simulations.run_files.outcomes import OUTCOMES, Outcomes, read_outcomes

PREDICTIONS = "predictions.csv"
CASES = "cases.csv"
LESIONS = "lesions.csv"
ENSEMBLE = "ensemble"  # the mean score of all sites' own models
SHARED = "shared"  # of a study whose sites have models of their own: the one that all receive

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """What one model said of one class of one examination.

    Attributes:
        model: As in :class:`MetricRow`, ``ensemble`` or ``shared``.
        site: Whose examination.
        split: ``validation`` or ``test``.
        case: The row of the site's manifest.
        patient: Number of the patient within the site's split, from 0.
        class_name: The class that the score is of; every class has a row.
        score: In [0, 1].
        label: 1 where the examination is of the class, else 0.
    """

    model: str
    site: str
    split: str
    case: int
    patient: int
    class_name: str
    score: float
    label: int


@dataclass(frozen=True, slots=True)
class CaseRow:
    """How well one model marked one foreground class of one examination.

    Attributes:
        dice: NaN where the truth lacks the class.
        hd95: In the run's length unit; NaN where truth or prediction lack the class.
        surface_dice: NaN where the truth lacks the class.
        truth_ml: Volume of the class in the truth, in millilitres.
        found_ml: Volume that the model marked.
        lesions_true: Lesions of the class in the truth: parts that touch, if only at a corner.
            NaN where they were not counted: in validation, of other models than the two compared,
            and from 200 parts on.
        lesions_found: Those of which at least one voxel was marked.
        lesions_false: Marked parts that touch no lesion of the truth.
    """

    model: str
    site: str
    split: str
    case: int
    patient: int
    class_name: str
    dice: float
    hd95: float
    surface_dice: float
    truth_ml: float
    found_ml: float
    lesions_true: float
    lesions_found: float
    lesions_false: float


@dataclass(frozen=True, slots=True)
class LesionRow:
    """One lesion of the truth, and how much of it a model marked.

    Attributes:
        ml: Its volume in millilitres.
        covered: Share of its voxels that were marked, from 0 to 1.
    """

    model: str
    site: str
    case: int
    patient: int
    class_name: str
    ml: float
    covered: float


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """One model's scores of N examinations of one site's split, K classes.

    Attributes:
        cases: ``(N,)`` rows of the site's manifest.
        patients: ``(N,)`` numbers of patients.
        scores: ``(N, K)`` in [0, 1].
        labels: ``(N, K)`` bool.
    """

    cases: NDArray[np.int64]
    patients: NDArray[np.int64]
    scores: Floats
    labels: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """How well one model marked N examinations of one site's split, K - 1 foreground classes.

    Attributes:
        cases: ``(N,)`` rows of the site's manifest.
        patients: ``(N,)`` numbers of patients.
        dice, hd95, surface_dice, truth_ml, found_ml, lesions_true, lesions_found, lesions_false:
            ``(N, K - 1)``, as in :class:`CaseRow`.
    """

    cases: NDArray[np.int64]
    patients: NDArray[np.int64]
    dice: Floats
    hd95: Floats
    surface_dice: Floats
    truth_ml: Floats
    found_ml: Floats
    lesions_true: Floats
    lesions_found: Floats
    lesions_false: Floats


MEASURES = tuple(one.name for one in fields(Masks))[2:]  # what is ``(N, K - 1)``
Key = tuple[str, str, str]  # model, site, split
Row = TypeVar("Row", ScoreRow, CaseRow)


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What the models of a run said of each examination, by (model, site, split).

    Attributes:
        scores: Of a classification; empty for other tasks.
        masks: Of a segmentation; empty for other tasks.
        outcomes: Of a regression or a survival task; empty for other tasks.
    """

    scores: Mapping[Key, Scores]
    masks: Mapping[Key, Masks]
    outcomes: Mapping[Key, Outcomes] = field(default_factory=dict)


def read_scores(folder: Path, classes: Sequence[str]) -> Mapping[Key, Scores]:
    """Return every model's scores by (model, site, split); empty where the run left none.

    Args:
        classes: In the study's order.

    Raises:
        ValueError, TypeError, KeyError: The file is not such a table, or lacks a class.
        OSError: It cannot be read.
    """
    return {
        key: _scores(rows, classes)
        for key, rows in _grouped(read_table(folder / PREDICTIONS, ScoreRow))
    }


def read_masks(folder: Path, classes: Sequence[str]) -> Mapping[Key, Masks]:
    """Return how well every model marked, by (model, site, split); empty where there is none.

    Args:
        classes: The foreground classes in the study's order.

    Raises:
        ValueError, TypeError, KeyError: The file is not such a table, or lacks a class.
        OSError: It cannot be read.
    """
    return {
        key: masks_of(rows, classes) for key, rows in _grouped(read_table(folder / CASES, CaseRow))
    }


def read_predictions(folder: Path, study: Study) -> Predictions:
    """Return what the models of a study's run said; empty where the run left nothing.

    Raises:
        InputError: A file is damaged.
    """
    scores: Mapping[Key, Scores] = {}
    masks: Mapping[Key, Masks] = {}
    if study.task.classifies:
        with refusing_damage(folder / PREDICTIONS):
            scores = read_scores(folder, study.data.classes)
    if study.task.dense:
        with refusing_damage(folder / CASES):
            masks = read_masks(folder, study.data.classes[1:])
    outcomes: Mapping[Key, Outcomes] = {}
    if study.task.outcome:
        with refusing_damage(folder / OUTCOMES):
            outcomes = read_outcomes(folder, study.task.outcome)
    return Predictions(scores, masks, outcomes)


def read_lesions(folder: Path) -> list[LesionRow]:
    """Return the true lesions of the test examinations; empty where the run left none.

    Raises:
        ValueError, TypeError, KeyError: The file is not such a table.
        OSError: It cannot be read.
    """
    return read_table(folder / LESIONS, LesionRow)


def _grouped(rows: Iterable[Row]) -> Iterator[tuple[Key, list[Row]]]:
    for key, group in groupby(rows, key=lambda row: (row.model, row.site, row.split)):
        yield key, list(group)


def _scores(rows: Sequence[ScoreRow], classes: Sequence[str]) -> Scores:
    first = rows[:: len(classes)]
    shape = (len(first), len(classes))
    _check_order([row.class_name for row in rows], classes)
    scores = np.array([row.score for row in rows], dtype=np.float64)
    # Not NaN: of a model that has diverged it is what the run left.
    if ((scores < 0) | (scores > 1)).any() or any(row.label not in (0, 1) for row in rows):
        msg = "a score lies outside [0, 1], or a label is neither 0 nor 1"
        raise ValueError(msg)
    return Scores(
        np.array([row.case for row in first], dtype=np.int64),
        np.array([row.patient for row in first], dtype=np.int64),
        scores.reshape(shape),
        np.array([row.label for row in rows], dtype=np.int64).reshape(shape) > 0,
    )


def masks_of(rows: Sequence[CaseRow], classes: Sequence[str]) -> Masks:
    """Return the rows of one model and split as arrays.

    Args:
        rows: Each foreground class of an examination, one examination after the other.
        classes: The foreground classes in the study's order.

    Raises:
        ValueError: The rows do not name the classes in order.
    """
    first = rows[:: len(classes)]
    shape = (len(first), len(classes))
    _check_order([row.class_name for row in rows], classes)

    def column(name: str) -> Floats:
        return np.array([getattr(row, name) for row in rows], dtype=np.float64).reshape(shape)

    return Masks(
        np.array([row.case for row in first], dtype=np.int64),
        np.array([row.patient for row in first], dtype=np.int64),
        column("dice"),
        column("hd95"),
        column("surface_dice"),
        column("truth_ml"),
        column("found_ml"),
        column("lesions_true"),
        column("lesions_found"),
        column("lesions_false"),
    )


def _check_order(names: Sequence[str], classes: Sequence[str]) -> None:
    if len(names) % len(classes) or list(names) != list(classes) * (len(names) // len(classes)):
        msg = "the rows do not name the study's classes in order"
        raise ValueError(msg)
