"""A value and where the truth lies with 95 % confidence: the interval of every number."""

import math
from dataclasses import dataclass

from scipy.special import ndtri, stdtr, stdtrit

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval.

    Attributes:
        value: NaN where it is not defined.
        low: NaN, as ``high``, where the interval cannot be told.
        high: Not below ``low``.
        standard_error: Of the value; NaN where it cannot be told.
        freedom: Degrees of freedom of that error.
        patients: How many are behind the value.
    """

    value: float
    low: float
    high: float
    standard_error: float
    freedom: float
    patients: int

    @property
    def is_known(self) -> bool:
        """Whether the interval can be told."""
        return not (math.isnan(self.low) or math.isnan(self.high))


def unknown_interval(value: float, patients: int) -> Interval:
    """Return a value whose interval cannot be told."""
    return Interval(value, math.nan, math.nan, math.nan, math.nan, patients)


def normal_quantile(probability: float) -> float:
    """Return the point of the normal distribution with this probability below it."""
    return float(ndtri(probability))


def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """Return how many standard errors a two-sided interval reaches; NaN without freedom.

    Args:
        freedom: Degrees of freedom; need not be whole.
        level: In (0, 1).
    """
    if math.isnan(freedom) or freedom <= 0:
        return math.nan
    return float(stdtrit(freedom, (1 + level) / 2))


def two_sided_p(value: float, standard_error: float, freedom: float) -> float:
    """Return the p-value of a value that would be 0 if nothing but chance were at work.

    1 where it cannot be told.
    """
    if any(math.isnan(part) for part in (value, standard_error, freedom)) or freedom <= 0:
        return 1.0
    if standard_error <= 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * stdtr(freedom, -abs(value) / standard_error))


def t_interval(
    value: float, standard_error: float, freedom: float, patients: int, level: float = LEVEL
) -> Interval:
    """Return value ± t times its standard error: for differences, which have no bounds."""
    reach = t_quantile(freedom, level) * standard_error
    return Interval(value, value - reach, value + reach, standard_error, freedom, patients)


def log_interval(
    value: float, standard_error: float, freedom: float, patients: int, level: float = LEVEL
) -> Interval:
    """Return the interval of a positive value, e.g. a distance in mm, on the scale of its log.

    The delta method: the log's standard error is the value's divided by the value.
    """
    if not value > 0:
        return t_interval(value, standard_error, freedom, patients, level)
    reach = math.exp(min(t_quantile(freedom, level) * standard_error / value, 700.0))
    return Interval(value, value / reach, value * reach, standard_error, freedom, patients)


def score_interval(
    value: float, standard_error: float, freedom: float, patients: int, level: float = LEVEL
) -> Interval:
    """Return the interval of a value in [0, 1], which never leaves [0, 1].

    Wilson's score interval (JASA 22, 1927) with the effective number of patients in the place of
    the number of trials: as many as, being independent, would give this standard error (Kish 1965;
    Dean and Pagano, J. Surv. Stat. Methodol. 3, 2015, compare it for clusters), and t in the place
    of z. A standard error of 0 says nothing: then each patient counts as one trial.
    """
    t = t_quantile(freedom, level)
    if math.isnan(value) or math.isnan(standard_error) or math.isnan(t) or patients < 1:
        return unknown_interval(value, patients)
    spread = value * (1 - value)
    trials = spread / standard_error**2 if standard_error > 0 and spread > 0 else float(patients)
    shrunk = 1 + t**2 / trials
    centre = (value + t**2 / (2 * trials)) / shrunk
    reach = t * math.sqrt(max(0.0, spread / trials + t**2 / (4 * trials**2))) / shrunk
    low, high = max(0.0, centre - reach), min(1.0, centre + reach)
    return Interval(value, low, high, standard_error, freedom, patients)
