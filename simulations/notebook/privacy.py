"""What privacy costs, in the numbers that a researcher asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

from wardround.common.errors import InputError
from wardround.common.privacy.accounting import Spend, epsilon_of, noise_for
from wardround.simulations.notebook.tables import Table, as_table

if TYPE_CHECKING:
    from wardround.common.study.plans.patient_privacy import PrivacyPlan
    from wardround.common.study.study import Study

_MOST_STEPS = 10_000_000


@dataclass(frozen=True, slots=True)
class PrivacyRow:
    """What one budget asks for.

    Attributes:
        epsilon: Of all steps.
        noise_multiplier: Standard deviation of the noise over the clip norm.
        noise_deviation: Of the noise on each number of a step's mean, for a clip norm of 1 and the
            patients that a step expects; NaN where that is not known.
    """

    epsilon: float
    noise_multiplier: float
    noise_deviation: float


def epsilon(
    noise_multiplier: float, *, sampling_rate: float = 1.0, steps: int = 1, delta: float = 1e-5
) -> float:
    """Return the epsilon of steps that each add Gaussian noise to a clipped sum.

    Args:
        noise_multiplier: Standard deviation of the noise over the clip norm, at least 0.
        sampling_rate: Probability in (0, 1] that a patient takes part in a step.
        steps: How many, at least 0.
        delta: In (0, 1).

    Returns:
        Infinity where nothing is promised.

    Raises:
        InputError: A number is out of its range, or dp-accounting is not installed.
    """
    return epsilon_of([Spend(sampling_rate, noise_multiplier, steps)], delta)


def steps_for(
    epsilon: float, noise_multiplier: float, *, sampling_rate: float = 1.0, delta: float = 1e-5
) -> int:
    """Return how many steps a budget pays for; 0 if not even one.

    Args:
        epsilon: The budget, more than 0.
        noise_multiplier: As for :func:`epsilon`.
        sampling_rate: As for :func:`epsilon`.
        delta: In (0, 1).

    Raises:
        InputError: A number is out of its range, or dp-accounting is not installed.
    """
    if not epsilon > 0:
        msg = f"epsilon = {epsilon} is no budget: use a number above 0."
        raise InputError(msg)

    def cost(steps: int) -> float:
        return epsilon_of([Spend(sampling_rate, noise_multiplier, steps)], delta)

    enough, most = 0, 1
    while most <= _MOST_STEPS and cost(most) <= epsilon:
        enough, most = most, most * 2
    if most > _MOST_STEPS:
        return _MOST_STEPS
    while most - enough > 1:
        middle = (enough + most) // 2
        enough, most = (middle, most) if cost(middle) <= epsilon else (enough, middle)
    return enough


def trade_offs(
    epsilons: Sequence[float],
    *,
    steps: int,
    sampling_rate: float,
    delta: float = 1e-5,
    patients: int | None = None,
) -> Table:
    """Return what each budget asks for, as a table with the columns of :class:`PrivacyRow`.

    Args:
        epsilons: The budgets.
        steps: Of the whole training.
        sampling_rate: In (0, 1].
        delta: In (0, 1).
        patients: Training patients of a site: a step expects ``sampling_rate`` times as many.

    Raises:
        InputError: A number is out of its range, or dp-accounting is not installed.
    """
    expected = float("nan") if patients is None else max(1.0, sampling_rate * patients)
    rows = []
    for budget in epsilons:
        noise = noise_for(budget, delta, sampling_rate, steps)
        rows.append(PrivacyRow(float(budget), noise, noise / expected))
    return as_table(rows, PrivacyRow)


def plan_of_study(study: "Study | str | PathLike[str]") -> "PrivacyPlan":
    """Return the sampling, clipping, noise and steps of a study that protects patients.

    Its ``epsilon`` is what all rounds spend on a training patient.

    Args:
        study: A study, the path of a study file, or a built-in study's name.

    Raises:
        StudyError: The study promises its patients nothing.
        InputError: There is no such study, or dp-accounting is not installed.
    """
    from wardround.common.study.plans.patient_privacy import plan_privacy
    from wardround.simulations.notebook.studies import load_study

    return plan_privacy(load_study(study))
