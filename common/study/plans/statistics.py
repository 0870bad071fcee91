"""What statistics a study asks of its sites: which histograms, with which cells, and their cost.

All of it follows from the study, so that a hospital approves the very edges. In a histogram each
patient counts 1 in all, shared between the cells: one patient, however many voxels or examinations,
moves no histogram by more than that.
"""

import math
from dataclasses import dataclass

from wardround.common.privacy.accounting import noise_for
from wardround.common.study.plans.patient_privacy import EvaluationPlan
from wardround.common.study.registry import TASKS
from wardround.common.study.study import Study

MOST_CELLS = 65_536  # of all histograms together
_SPACING_CELLS, _SIZE_CELLS, _EXTENT_CELLS = 201, 257, 129
_SHARE_CELLS, _MOST_EXAMINATIONS = 100, 10
# From where to where intensities lie where a study does not say: by its data.intensity.
_RANGES = {"ct": (-1024.0, 3072.0), "mr": (0.0, 4096.0)}
_BYTES = (0.0, 256.0)
# Of a number that is predicted: y from 0 to 1 over its range is shared between three cells as
# (1 - y)^2, 2 y (1 - y) and y^2, which add up to 1. Mean and deviation follow exactly, and three
# cells have less noise than a finer histogram, which a patient would be in one cell of.
OUTCOME = "outcome"
OUTCOME_CELLS = 3


@dataclass(frozen=True, slots=True)
class Histogram:
    """One histogram that a study asks for.

    Attributes:
        name: Of its array in a message.
        first: What stands for the first cell.
        step: How much further each next cell's is.
        cells: How many there are; what lies outside counts in the first or the last.
        is_whole: Whether a patient's examination counts in one cell alone, so that cells hold whole
            numbers of examinations.
        is_ordered: Whether neighbouring cells are alike.
    """

    name: str
    first: float
    step: float
    cells: int
    is_whole: bool = True
    is_ordered: bool = True

    def value(self, cell: float) -> float:
        """Return what stands for a cell."""
        return self.first + cell * self.step


def asked_histograms(study: Study) -> tuple[Histogram, ...]:
    """Return the histograms that a study asks for, in the order of their message."""
    if study.data.kind == "table":
        return (_of_number(study),) if study.task.outcome == "number" else ()
    found = _of_images(study)
    found.append(Histogram("examinations", 1.0, 1.0, _MOST_EXAMINATIONS))
    dense, boxes = TASKS[study.study.task].dense, TASKS[study.study.task].boxes
    if not study.task.outcome:
        # Of an examination with several labels the last cell is for none of them.
        classes = study.class_count + study.data.multi_label
        one_each = not dense and not boxes and not study.data.multi_label
        found.append(Histogram("classes", 0.0, 1.0, classes, one_each, is_ordered=False))
    elif study.task.outcome == "number":
        found.append(_of_number(study))
    if dense:
        found.append(
            Histogram("foreground-share", 0.5 / _SHARE_CELLS, 1 / _SHARE_CELLS, _SHARE_CELLS)
        )
    return tuple(found)


def _of_number(study: Study) -> Histogram:
    low, width = study.outcome.low, study.outcome.width
    return Histogram(OUTCOME, low, width / 2, OUTCOME_CELLS, is_whole=False)


def _of_images(study: Study) -> list[Histogram]:
    data, asked = study.data, study.statistics
    low, high = intensity_range(study)
    width = (high - low) / asked.intensity_bins
    dense = TASKS[study.study.task].dense
    found = []
    for place in range(len(data.channels)):
        kinds = ("intensity", "foreground") if dense else ("intensity",)
        found += [
            Histogram(f"{kind}-{place}", low + width / 2, width, asked.intensity_bins, False)
            for kind in kinds
        ]
    for axis in range(data.dimensions):
        # 0: the file does not say it.
        found.append(Histogram(f"spacing-{axis}", 0.0, asked.spacing_step_mm, _SPACING_CELLS))
        found.append(Histogram(f"size-{axis}", 0.0, asked.size_step, _SIZE_CELLS))
        found.append(Histogram(f"extent-{axis}", 0.0, asked.extent_step_mm, _EXTENT_CELLS))
    return found


@dataclass(frozen=True, slots=True)
class CombatInput:
    """A column of the sums that ComBat is fitted from; its values lie in [-1, 1].

    Attributes:
        covariate: Its name.
        value: Of a category, the value that the column is 1 for; None of a number.
        middle, half: A number v enters as ``(v - middle) / half``, clipped.
        preserve: Whether its effect is kept.
    """

    covariate: str
    value: str | None
    middle: float
    half: float
    preserve: bool


MOMENTS = "moments"


def combat_inputs(study: Study) -> tuple[CombatInput, ...]:
    """Return the columns that ComBat is fitted to, those that are preserved first."""
    known = {one.name: one for one in study.data.covariates}
    found: list[CombatInput] = []
    for one in sorted(study.statistics.combat, key=lambda one: not one.preserve):
        if values := known[one.name].values:
            found += [CombatInput(one.name, value, 0.0, 1.0, True) for value in values]
            continue
        middle, half = (one.low + one.high) / 2, (one.high - one.low) / 2
        found.append(CombatInput(one.name, None, middle, half, one.preserve))
    return tuple(found)


def moment_side(study: Study) -> int:
    """Return the side of the square of sums that a site tells: its columns, and one of ones."""
    return 1 + len(combat_inputs(study))


def fewest_for_combat(study: Study, smallest_cell: int) -> int:
    """Return how many patients with all values a site must have.

    With a smallest cell, three a column too: fewer could be worked out from the sums.
    """
    least = 3
    return least if smallest_cell <= 1 else max(smallest_cell, 3 * moment_side(study))


def intensity_range(study: Study) -> tuple[float, float]:
    """Return from where to where a study counts intensities."""
    return study.statistics.intensity or _RANGES.get(study.data.intensity, _BYTES)


def cell_count(study: Study) -> int:
    """Return the cells of all histograms that a study asks for."""
    return sum(one.cells for one in asked_histograms(study))


def plan_statistics(study: Study) -> EvaluationPlan | None:
    """Return the noise on a site's one answer, and what it spends; None without patient privacy.

    A patient adds a vector of norm at most 1: each histogram's has the norm 1 at most, and is
    divided by the root of how many there are.

    Raises:
        InputError: The promise cannot be kept, or dp-accounting is not installed.
    """
    if study.privacy.mode != "patient":
        return None
    delta = study.privacy.delta
    noise = noise_for(study.statistics.epsilon, delta, 1.0, 1)
    return EvaluationPlan("train", 1, noise, delta)


def patient_scale(study: Study) -> float:
    """Return what each cell of a private answer was multiplied by."""
    return 1 / math.sqrt(len(asked_histograms(study)))
