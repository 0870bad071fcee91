"""Whether what was spent, and what is to be spent, stays under a hospital's caps."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from wardround.client.privacy.ledger.entries import LedgerError
from wardround.common.privacy.accounting import LARGEST_EPSILON, Spend, epsilon_of


class BudgetError(LedgerError):
    """A spend does not fit under a hospital's caps."""


class ApprovalError(BudgetError):
    """A study would make more steps than were approved of it."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What a hospital allows to be spent; its own file says it, a study never does.

    Attributes:
        lifetime_epsilon: Of a data set, over all studies and for good.
        lifetime_delta: At which every epsilon of the ledger is stated.
        study_epsilon: Of one study, over all its runs.
        bind_plans: Whether a study is refused that plans more than they allow; if not, only its
            rounds are that would pass them.
        study_steps: How many steps the study at hand may make, over all its runs and attempts: as
            many as were approved; None where a simulated site approves any number.
    """

    lifetime_epsilon: float
    lifetime_delta: float
    study_epsilon: float
    bind_plans: bool = True
    study_steps: int | None = None

    def __post_init__(self) -> None:
        """Refuse caps that are none.

        Raises:
            LedgerError: An epsilon is not positive and finite, or delta is not between 0 and 1.
        """
        epsilons = (self.lifetime_epsilon, self.study_epsilon)
        if all(math.isfinite(e) and e > 0 for e in epsilons) and 0 < self.lifetime_delta < 1:
            return
        msg = (
            f"the caps epsilon {self.lifetime_epsilon:g} and {self.study_epsilon:g} at delta "
            f"{self.lifetime_delta:g} bound nothing: write positive numbers and a delta below 1."
        )
        raise LedgerError(msg)


def check_steps(steps: int, caps: Caps, study: str) -> None:
    """Check that a study makes no more steps than were approved of it.

    Args:
        steps: Of all its runs and attempts, with those that are asked for.
        study: Its digest.

    Raises:
        ApprovalError: It would.
    """
    if caps.study_steps is not None and steps > caps.study_steps:
        msg = (
            f"study {study[:12]} would come to {steps} steps over all its runs, and "
            f"{caps.study_steps} were approved: who wants another run approves it again, "
            f"'wardround site approve {study[:16]}'."
        )
        raise ApprovalError(msg)


def merged(spends: Iterable[Spend]) -> tuple[Spend, ...]:
    """Return equal steps counted together, in a fixed order."""
    steps: defaultdict[tuple[float, float], int] = defaultdict(int)
    for spend in spends:
        steps[spend.sampling_rate, spend.noise_multiplier] += spend.steps
    return tuple(Spend(q, sigma, count) for (q, sigma), count in sorted(steps.items()) if count)


class Accountant:
    """Epsilon of compositions, remembered.

    Composing takes seconds where a site has known many studies. A round of an admitted study needs
    none of it: a part of what is known to fit fits too.

    Args:
        delta: At which epsilon is stated.
    """

    def __init__(self, delta: float) -> None:
        self.delta = delta
        self._known: dict[tuple[Spend, ...], float] = {(): 0.0}

    def epsilon(self, spends: Iterable[Spend]) -> float:
        """Return the epsilon of all spends together."""
        total = merged(spends)
        if total not in self._known:
            self._known[total] = epsilon_of(total, self.delta)
        return self._known[total]

    def fits(self, spends: Iterable[Spend], cap: float) -> bool:
        """Return whether all spends together stay under a cap.

        A cap beyond the largest epsilon that is ever stated limits nothing, as in a simulation.
        """
        if cap > LARGEST_EPSILON:
            return True
        total = merged(spends)
        known = (whole for whole, epsilon in self._known.items() if epsilon <= cap)
        return any(_part_of(total, whole) for whole in known) or self.epsilon(total) <= cap

    def check(self, spends: Iterable[Spend], cap: float, kind: str, what: str) -> None:
        """Check that all spends together stay under a cap.

        Args:
            kind: Of the cap: "study" or "lifetime".
            what: Of whom the spends are.

        Raises:
            BudgetError: They do not.
        """
        total = merged(spends)
        if self.fits(total, cap):
            return
        msg = (
            f"{what} would come to epsilon {self.epsilon(total):.3g} at delta {self.delta:g}, "
            f"above the {kind} cap of {cap:g}: the study needs more noise or fewer rounds, or the "
            f"hospital raises {kind}_epsilon in policy.toml."
        )
        raise BudgetError(msg)


def _part_of(part: tuple[Spend, ...], whole: tuple[Spend, ...]) -> bool:
    steps = {(spend.sampling_rate, spend.noise_multiplier): spend.steps for spend in whole}
    return all(
        spend.steps <= steps.get((spend.sampling_rate, spend.noise_multiplier), 0) for spend in part
    )
