"""A value and where the truth lies with 95 % confidence: the interval of every number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import expit, ndtri, stdtr, stdtrit

LEVEL = 0.95
_ROUNDING = 1e-12
Z95 = 1.959964  # two-sided 95 % point of the normal distribution


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


def unless_all_agree(difference: Interval) -> Interval:
    """Return a difference of two models, unknown where leaving no patient out would change it.

    A few patients who all agree say nothing of how patients differ, and would look certain.
    """
    if difference.standard_error == 0 and difference.value != 0:
        return unknown_interval(difference.value, difference.patients)
    return difference


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


def proportion_error(proportion: float, trials: int) -> float:
    """Return the standard error of a proportion.

    The proportion is first drawn towards one half by two successes and two failures (Agresti and
    Coull, The American Statistician 52, 1998): 10 right out of 10 is not known without error.

    Args:
        proportion: In [0, 1].
        trials: How many were counted; NaN is returned for none.
    """
    if trials < 1 or math.isnan(proportion):
        return math.nan
    centre = (proportion * trials + Z95**2 / 2) / (trials + Z95**2)
    return math.sqrt(centre * (1 - centre) / trials)


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


def logit_interval(
    value: float,
    standard_error: float,
    freedom: float,
    patients: int,
    edge: float,
    level: float = LEVEL,
) -> Interval:
    """Return the interval of a value in [0, 1] on the scale of its log odds: for an AUROC.

    Pepe, The Statistical Evaluation of Medical Tests, 2003, section 5.3. A value of 0 or 1
    has no log odds: one side is then that of a value ``edge`` away, the other the end of the range.

    Args:
        edge: In (0, 0.5], e.g. half a patient's share.
    """
    reach = t_quantile(freedom, level) * standard_error
    if math.isnan(value) or math.isnan(reach):
        return unknown_interval(value, patients)
    at_low, at_high = value < _ROUNDING, value > 1 - _ROUNDING
    inner = edge if at_low else 1 - edge if at_high else value
    odds, reach = math.log(inner / (1 - inner)), reach / (inner * (1 - inner))
    low = 0.0 if at_low else float(expit(odds - reach))
    high = 1.0 if at_high else float(expit(odds + reach))
    return Interval(value, min(low, value), max(high, value), standard_error, freedom, patients)


def score_interval(
    value: float,
    standard_error: float,
    freedom: float,
    patients: int,
    level: float = LEVEL,
    trials: float | None = None,
) -> Interval:
    """Return the interval of a value in [0, 1], which never leaves [0, 1].

    Wilson's score interval (JASA 22, 1927) with the effective number of patients in the place of
    the number of trials: as many as, being independent, would give this standard error (Kish 1965;
    Dean and Pagano, J. Surv. Stat. Methodol. 3, 2015, compare it for clusters), and t in the place
    of z.

    Args:
        trials: As how many trials the value counts if it is 0 or 1 or has no error, which says
            nothing of that; None: as many as there are patients.
    """
    t = t_quantile(freedom, level)
    if math.isnan(value) or math.isnan(standard_error) or math.isnan(t) or patients < 1:
        return unknown_interval(value, patients)
    value = min(max(value, 0.0), 1.0)  # a mean of ones may pass 1 by a rounding error
    spread, variance = value * (1 - value), standard_error**2
    count = float(patients) if trials is None else trials
    if spread > _ROUNDING and variance > _ROUNDING**2:
        count = spread / variance
    shrunk = 1 + t**2 / count
    centre = (value + t**2 / (2 * count)) / shrunk
    reach = t * math.sqrt(spread / count + t**2 / (4 * count**2)) / shrunk
    low, high = max(0.0, centre - reach), min(1.0, centre + reach)
    return Interval(value, min(low, value), max(high, value), standard_error, freedom, patients)


def mean_interval(parts: Sequence[Interval], bounded: bool, level: float = LEVEL) -> Interval:
    """Return the unweighted mean of values of different patients, e.g. of several hospitals.

    Args:
        parts: At least one.
        bounded: Whether values lie in [0, 1].
        level: Of the interval.
    """
    value = sum(part.value for part in parts) / len(parts)
    patients = sum(part.patients for part in parts)
    variances = [part.standard_error**2 for part in parts]
    total = sum(variances)
    if not all(part.is_known for part in parts):
        return unknown_interval(value, patients)
    shares = sum(v**2 / part.freedom for v, part in zip(variances, parts, strict=True))
    freedom = total**2 / shares if shares > 0 else float(patients - len(parts))
    error = math.sqrt(total) / len(parts)
    make = score_interval if bounded else log_interval
    return make(value, error, freedom, patients, level)
