"""A ledger in a site's folder, its caps, and the charges that the tests make."""

from dataclasses import replace
from pathlib import Path

from wardround.client.privacy.ledger.budget import Caps
from wardround.client.privacy.ledger.charges import Assignment, Charge
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.common.privacy.accounting import Spend

CAPS = Caps(lifetime_epsilon=8.0, lifetime_delta=1e-5, study_epsilon=8.0)
STEP = Spend(sampling_rate=0.05, noise_multiplier=2.0, steps=20)  # one round
ROUNDS = 4
PLAN = replace(STEP, steps=STEP.steps * ROUNDS)
STUDY, OTHER = "a" * 64, "b" * 64


def assign(
    ledger: PrivacyLedger, study: str = STUDY, run: str = "run-1", patients: str = "xyz"
) -> Assignment:
    return Assignment(study, run, ledger.snapshot(patients))


def charge(assignment: Assignment, number: int, attempt: int = 0, spend: Spend = STEP) -> Charge:
    return Charge(assignment, number, attempt, spend)


def linear_epsilon(spends: object, delta: float) -> float:
    """Return a cheap stand-in for epsilon: monotone, and additive in the steps."""
    total = tuple(spends)  # type: ignore[call-overload]
    return float(sum(s.steps * s.sampling_rate / max(s.noise_multiplier, 1e-9) for s in total))


def ledger_path(site: Path) -> Path:
    return site / "ledger" / "ledger.jsonl"
