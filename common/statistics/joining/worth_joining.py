"""Is a federation worth joining for one hospital? *yes*, *no*, or *cannot be told*, and why.

Two one-sided tests against a margin (Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987), each at
5 %. *yes* rejects "it loses the margin or more"; *no* rejects "it gains the margin or more". Where
both are rejected the difference is smaller than the margin either way: then a gain whose 95 %
interval leaves 0 out is a *yes*, all else a *no*, for joining costs work. Where neither is rejected
it cannot be told with so few patients.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scipy.special import ndtri, stdtrit

from wardround.common.errors import InputError

Word = Literal["yes", "no", "cannot be told"]
Reason = Literal[
    "certain gain",
    "no loss of the margin",
    "certain loss",
    "loss in a part",
    "ensemble is better",
    "no gain of the margin",
    "too few patients",
    "not measured",
]
LEVEL = 0.05  # of each one-sided test: a wrong yes or no where the truth is a margin away
CERTAIN = 0.025  # one-sided, of a gain or loss at all: what a 95 % interval that leaves 0 out says
POWER = 0.8  # with which the patients that it would take could tell
FEWEST = 4  # patients: below that no spread between patients is known
LARGEST_COUNT = 1_000_000  # patients; beyond that "it would take" says nothing


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better the federation's model is than another one, on the same patients.

    Attributes:
        value: In the metric's units, positive is better whatever the metric's direction; NaN where
            one of the two was not measured.
        error: Standard error of the value, from the differences between patients.
        freedom: Degrees of freedom of that error.
        patients: How many it is from.
    """

    value: float
    error: float
    freedom: float
    patients: int

    @property
    def is_known(self) -> bool:
        """Whether anything can be said: both were measured, on enough patients to see a spread."""
        numbers = math.isfinite(self.value) and math.isfinite(self.error)
        return numbers and self.freedom >= 1 and self.patients >= FEWEST

    def lower(self, level: float = LEVEL) -> float:
        """Return the bound that the true gain is below with this probability at most."""
        return self.value - self._half(level)

    def upper(self, level: float = LEVEL) -> float:
        """Return the bound that the true gain is above with this probability at most."""
        return self.value + self._half(level)

    def _half(self, level: float) -> float:
        if not self.is_known:
            return math.inf
        return float(stdtrit(self.freedom, 1 - level)) * self.error


@dataclass(frozen=True, slots=True)
class Joining:
    """The word for one hospital.

    Attributes:
        word: The answer.
        part: Where it loses, for ``loss in a part``.
        patients_needed: About how many test patients would tell, for ``too few patients``; None
            where that cannot be reckoned either.
    """

    word: Word
    reason: Reason
    part: str = ""
    patients_needed: int | None = None


def judge_joining(
    own: Gain,
    margin: float,
    ensemble: Gain | None = None,
    parts: Mapping[str, Gain] | None = None,
) -> Joining:
    """Return the word for a hospital from what its test patients say.

    Args:
        own: The federation's gain over the hospital's own model.
        margin: The smallest difference that matters, above 0, in the metric's units.
        ensemble: Its gain over the mean answer of all hospitals' own models, which needs no rounds
            of training together. One that is better by the margin for certain makes a *no*.
        parts: Its gain over the own model for parts of the metric, e.g. each class. A part that
            loses the margin for certain makes a *no*. They share one level (Bonferroni).

    Raises:
        InputError: The margin is not above 0.
    """
    if not margin > 0 or math.isinf(margin):
        msg = f"the margin is {margin}: give the smallest difference that matters, above 0."
        raise InputError(msg)
    if not own.is_known:
        few = own.patients < FEWEST and math.isfinite(own.value)
        return Joining("cannot be told", "too few patients" if few else "not measured")
    lost = _lost(parts or {}, margin)
    # The first that holds: what speaks against joining goes before what speaks for it.
    words: tuple[tuple[bool, Joining], ...] = (
        (own.upper(CERTAIN) < 0, Joining("no", "certain loss")),
        (bool(lost), Joining("no", "loss in a part", part=lost)),
        (
            ensemble is not None and ensemble.upper() < -margin,
            Joining("no", "ensemble is better"),
        ),
        (own.lower(CERTAIN) > 0, Joining("yes", "certain gain")),
        (own.upper() < margin, Joining("no", "no gain of the margin")),
        (own.lower() > -margin, Joining("yes", "no loss of the margin")),
    )
    needed = patients_needed(own, margin)
    untold = Joining("cannot be told", "too few patients", patients_needed=needed)
    return next((joining for holds, joining in words if holds), untold)


def patients_needed(gain: Gain, margin: float) -> int | None:
    """Return about how many patients would tell, if the gain is truly what it seems to be.

    So many that the nearer of the two tests rejects with a probability of 80 %, at the spread
    between patients that these show: ``n ((z95 + z80) error / (|gain| + margin))^2``.

    Returns:
        None where the spread is not known.
    """
    if not gain.is_known or gain.error == 0:
        return None
    reach = float(ndtri(1 - LEVEL) + ndtri(POWER)) * gain.error / (abs(gain.value) + margin)
    # Fewer than there are would contradict the word; that the estimate is off explains it.
    return min(max(math.ceil(gain.patients * reach**2), gain.patients + 1), LARGEST_COUNT)


def _lost(parts: Mapping[str, Gain], margin: float) -> str:
    """Return the part that loses most of those that lose the margin for certain; "" if none."""
    known = {name: gain for name, gain in parts.items() if gain.is_known}
    lost = [
        (gain.value, name)
        for name, gain in known.items()
        if gain.upper(LEVEL / len(known)) < -margin
    ]
    return min(lost)[1] if lost else ""
