"""What a site's training data look like: a histogram of each kind, one row a patient.

A patient's row has the sum 1 at most, however many examinations or voxels the patient has: the mean
of the rows of the examinations, each shared out between its cells. Nothing here leaves as it is.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.cohort import Cohort
from wardround.client.data.manifest.cells import parse_number
from wardround.client.data.manifest.examination import Examination
from wardround.client.data.preprocessing.case import Case
from wardround.client.data.preprocessing.preprocessing import prepare_case
from wardround.client.site.folder import Site
from wardround.client.tasks.registry import task_of
from wardround.common.errors import DataError
from wardround.common.study.plans.statistics import (
    OUTCOME,
    CombatInput,
    Histogram,
    asked_histograms,
    combat_inputs,
)
from wardround.common.study.sections.harmonisation import HarmonisationSection
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)
Rows = NDArray[np.float64]
_ANY_WIDTH = 1e30


@dataclass(frozen=True, slots=True)
class Measured:
    """The patients' histograms.

    Attributes:
        patients: How many there are.
        rows: By the name of a histogram ``(P, cells)``; each row is at least 0 and its sum 1 at
            most.
    """

    patients: int
    rows: dict[str, Rows]


def measure_statistics(site: Site, cohort: Cohort, study: Study) -> Measured:
    """Return the histograms of the patients of a cohort, as its images are stored.

    Images are turned to ``data.orientation``, and else neither resampled nor normalised. A patient
    of whom nothing can be used counts as nobody at a tolerant site.

    Raises:
        DataError: An examination cannot be used; says its row.
    """
    asked = asked_histograms(study)
    by_patient: dict[str, list[Examination]] = {}
    for examination in cohort.examinations:
        by_patient.setdefault(examination.patient, []).append(examination)
    totals: dict[str, list[Rows]] = {one.name: [] for one in asked}
    for examinations in by_patient.values():
        seen = [_row_of(e, case, study, asked) for e, case in _cases(examinations, site, study)]
        if not seen:
            continue
        for one in asked:
            if one.name == "examinations":
                row = _one_hot(len(seen), one)
            else:
                row = np.mean([r[one.name] for r in seen], 0)
            totals[one.name].append(_bounded(row))
    patients = len(totals[asked[0].name])
    return Measured(
        patients,
        {
            one.name: np.stack(totals[one.name]) if patients else np.zeros((0, one.cells))
            for one in asked
        },
    )


def measure_moments(cohort: Cohort, study: Study) -> tuple[Rows, Rows]:
    """Return what ComBat is fitted from: a row of each patient who has all values, and its sums.

    Returns:
        ``(P, 1 + columns)``, a column of ones first and the others within [-1, 1]; and the sums of
        the products of its columns, a square.
    """
    known = {one.name: place for place, one in enumerate(study.data.covariates)}
    inputs = combat_inputs(study)
    by_patient: dict[str, list[list[float]]] = {}
    for examination in cohort.examinations:
        values = [_input_of(examination.covariates[known[one.covariate]], one) for one in inputs]
        if None not in values:
            row = [value for value in values if value is not None]
            by_patient.setdefault(examination.patient, []).append([1.0, *row])
    means = [np.mean(rows, axis=0) for rows in by_patient.values()]
    rows = np.stack(means) if means else np.zeros((0, 1 + len(inputs)))
    return rows, rows.T @ rows


def _input_of(text: str, asked: CombatInput) -> float | None:
    if asked.value is not None:
        return float(text == asked.value) if text else None
    number = parse_number(text)
    if number is None:
        return None
    return float(np.clip((number - asked.middle) / asked.half, -1.0, 1.0))


def _cases(
    examinations: Sequence[Examination], site: Site, study: Study
) -> Iterator[tuple[Examination, Case | None]]:
    """Yield examinations, each with its images where the study has any."""
    if study.data.kind == "table":
        yield from ((examination, None) for examination in examinations)
        return
    # A window that holds every value leaves them as they are, also bytes, which "none" divides.
    data = study.data.model_copy(
        update={
            "spacing": None,
            "size": None,
            "denoise": False,
            "harmonisation": HarmonisationSection(),
            "intensity": "ct",
            "window": (0.0, _ANY_WIDTH),
            "scaling": (0.0, 1.0),
        }
    )
    as_stored = study.model_copy(update={"data": data})
    for examination in examinations:
        try:
            yield examination, prepare_case(examination, site, as_stored)
        except DataError:
            if not site.skips_unreadable:
                raise
            logger.warning("row %d counts as nobody: it cannot be read", examination.row)


def _row_of(
    examination: Examination, case: Case | None, study: Study, asked: Sequence[Histogram]
) -> dict[str, Rows]:
    """Return what an examination adds to each histogram but that of numbers of examinations."""
    rows = {} if case is None else _of_images(examination, case, study, asked)
    if study.task.outcome == "number":
        (number,) = examination.label or (study.outcome.low,)
        y = min(max((number - study.outcome.low) / study.outcome.width, 0.0), 1.0)
        rows[OUTCOME] = np.array([(1 - y) ** 2, 2 * y * (1 - y), y**2])
    return rows


def _of_images(
    examination: Examination, case: Case, study: Study, asked: Sequence[Histogram]
) -> dict[str, Rows]:
    image = case.image.numpy()
    mask = None if case.mask is None else case.mask.numpy()
    planes = len(image) // len(study.data.channels)
    rows: dict[str, Rows] = {}
    for place, held in enumerate(examination.images):
        channel = image[place * planes : (place + 1) * planes]
        seen = {f"intensity-{place}": channel}
        if mask is not None:
            seen[f"foreground-{place}"] = channel[:, mask > 0]
        for name, values in seen.items():
            histogram = _named(name, asked)
            # The zeros of a channel that is missing are no intensities of a patient.
            rows[name] = np.zeros(histogram.cells) if held is None else _shared(values, histogram)
    for axis, (count, step) in enumerate(zip(image.shape[1:], case.spacing, strict=True)):
        said = step if case.has_spacing else 0.0
        for name, value in (
            (f"spacing-{axis}", said),
            (f"size-{axis}", count),
            (f"extent-{axis}", count * said),
        ):
            rows[name] = _one_hot(value, _named(name, asked))
    if not study.task.outcome:
        rows["classes"] = _classes(examination, case, study, _named("classes", asked))
    if mask is not None:
        share = _named("foreground-share", asked)
        rows[share.name] = _one_hot(float((mask > 0).mean()), share)
    return rows


def _classes(examination: Examination, case: Case, study: Study, asked: Histogram) -> Rows:
    """Return which classes an examination is of, or how its boxes or voxels are shared."""
    if case.boxes is not None:
        return _shared(case.boxes[:, 0].numpy(), asked)
    if case.mask is not None:
        mask = case.mask.numpy()
        counts = np.bincount(mask.ravel().astype(np.int64), minlength=asked.cells)[: asked.cells]
        found: Rows = counts / max(mask.size, 1)
        return found
    labels = task_of(study).labels
    if labels is None:
        return np.zeros(asked.cells)
    target = labels.stack([examination.label or ()], study)[0].numpy()
    if target.ndim == 0:
        return _one_hot(float(target), asked)
    several = np.append(target, float(not target.any()))
    shared: Rows = several / several.sum()
    return shared


def _shared(values: NDArray[np.generic], asked: Histogram) -> Rows:
    """Return the share of voxels in each cell; of no voxel nothing."""
    if not values.size:
        return np.zeros(asked.cells)
    low = asked.first - asked.step / 2
    places = np.floor((values.astype(np.float64).ravel() - low) / asked.step)
    inside = np.clip(np.nan_to_num(places), 0, asked.cells - 1).astype(np.int64)
    counts: Rows = np.bincount(inside, minlength=asked.cells) / values.size
    return counts


def _one_hot(value: float, asked: Histogram) -> Rows:
    """Return 1 in the cell whose value is nearest; what lies outside is in the first or last."""
    row = np.zeros(asked.cells)
    row[int(np.clip(round((value - asked.first) / asked.step), 0, asked.cells - 1))] = 1.0
    return row


def _bounded(row: Rows) -> Rows:
    """Return a row of sum 1 at most; one that is no number counts as nobody."""
    clean = np.clip(np.nan_to_num(row, nan=0.0, posinf=0.0, neginf=0.0), 0.0, 1.0)
    bounded: Rows = clean / max(1.0, float(clean.sum()))
    return bounded


def _named(name: str, asked: Sequence[Histogram]) -> Histogram:
    return next(one for one in asked if one.name == name)
