"""The caps of the privacy ledger: what is refused, and when (P3)."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.ledger_folder import (
    CAPS,
    OTHER,
    PLAN,
    ROUNDS,
    STEP,
    STUDY,
    assign,
    charge,
    linear_epsilon,
)

from wardround.client.egress.private_round import reply_once
from wardround.client.privacy.ledger import budget as ledger_budget
from wardround.client.privacy.ledger.budget import ApprovalError, BudgetError, Caps
from wardround.client.privacy.ledger.entries import LedgerError
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.client.privacy.ledger.outbox import Outbox
from wardround.common.privacy.accounting import Spend, epsilon_of


def test_a_study_whose_plan_does_not_fit_is_refused_before_its_first_batch(tmp_path: Path) -> None:
    trained: list[int] = []
    with PrivacyLedger.open(tmp_path) as ledger:
        assignment, outbox = assign(ledger), Outbox(tmp_path)
        greedy = Spend(0.05, 0.8, 2000)
        with pytest.raises(BudgetError, match=r"above the study cap of 8"):
            ledger.admit(assignment, greedy, 1.0, CAPS)
        before = ledger.counter
        with pytest.raises(LedgerError, match="was not admitted"):
            reply_once(
                ledger,
                outbox,
                charge(assignment, 1, spend=replace(greedy, steps=1)),
                CAPS,
                lambda: trained.append(1) or b"update",
                bytes,
            )
        assert trained == []
        assert ledger.counter == before == 1
    assert not (tmp_path / "outbox").exists()


def test_the_lifetime_cap_survives_a_restart_a_new_run_a_new_name_and_a_new_network(
    tmp_path: Path,
) -> None:
    """A study's name and network are in its digest, so that a new one is a new digest."""
    spend = Spend(0.05, 1.0, 400)
    standalone = epsilon_of([spend], 1e-5)
    caps = Caps(
        lifetime_epsilon=1.5 * standalone, lifetime_delta=1e-5, study_epsilon=1.2 * standalone
    )
    assert epsilon_of([spend, spend], 1e-5) < 1.5 * standalone, "two fit"
    assert epsilon_of([spend] * 3, 1e-5) > 1.5 * standalone, "three do not"
    for study in (STUDY, OTHER):
        with PrivacyLedger.open(tmp_path) as ledger:
            assignment = assign(ledger, study)
            ledger.admit(assignment, spend, 1.0, caps)
            ledger.reserve(charge(assignment, 1, spend=spend), caps)
    for study, run in (("c" * 64, "run-1"), ("d" * 64, "run-2")):
        with (
            PrivacyLedger.open(tmp_path) as ledger,
            pytest.raises(BudgetError, match="lifetime cap"),
        ):
            ledger.admit(assign(ledger, study, run), spend, 1.0, caps)
    with PrivacyLedger.open(tmp_path) as ledger, pytest.raises(BudgetError, match="study cap"):
        ledger.admit(assign(ledger, OTHER, "run-9"), spend, 1.0, caps)


def test_the_cap_is_hard_where_crashes_repeat_a_round(tmp_path: Path, cheap: None) -> None:
    caps = Caps(linear_epsilon([PLAN], 1e-5), 1e-5, 100.0)
    with PrivacyLedger.open(tmp_path) as ledger:
        assignment = assign(ledger)
        ledger.admit(assignment, PLAN, 1.0, caps)
        for attempt in range(ROUNDS):
            ledger.reserve(charge(assignment, 1, attempt), caps)
        with pytest.raises(BudgetError, match="lifetime cap"):
            ledger.reserve(charge(assignment, 2), caps)


def test_a_resumed_run_plans_only_what_is_left_and_a_new_run_all_again(
    tmp_path: Path, cheap: None
) -> None:
    caps = Caps(linear_epsilon([PLAN], 1e-5), 1e-5, 100.0)
    with PrivacyLedger.open(tmp_path) as ledger:
        assignment = assign(ledger)
        ledger.admit(assignment, PLAN, 1.0, caps)
        for number in (1, 2):
            ledger.reserve(charge(assignment, number), caps)
    with PrivacyLedger.open(tmp_path) as ledger:
        assignment = assign(ledger)
        ledger.admit(assignment, PLAN, 1.0, replace(caps, study_epsilon=50.0))
        with pytest.raises(BudgetError):
            ledger.admit(assign(ledger, run="run-2"), PLAN, 1.0, caps)
        for number in (3, 4):
            ledger.reserve(charge(assignment, number), caps)


def test_a_run_that_a_crash_made_dearer_goes_on_until_the_cap(tmp_path: Path, cheap: None) -> None:
    caps = Caps(linear_epsilon([PLAN], 1e-5), 1e-5, 100.0)
    numbers = iter((1, 1, 2, 3, 4))  # the first round crashed once
    with PrivacyLedger.open(tmp_path) as ledger:
        for number in numbers:
            assignment = assign(ledger, patients=f"xy{number}")
            ledger.admit(assignment, PLAN, 1.0, caps)
            if number == ROUNDS:
                with pytest.raises(BudgetError):
                    ledger.reserve(charge(assignment, number), caps)
            else:
                ledger.reserve(charge(assignment, number), caps)
        with pytest.raises(BudgetError):
            ledger.admit(assignment, PLAN, 1.0, replace(caps, lifetime_epsilon=0.5))


def test_a_study_makes_as_many_steps_as_were_approved_over_all_runs_attempts_and_restarts(
    tmp_path: Path, cheap: None
) -> None:
    approved = replace(CAPS, study_steps=PLAN.steps)
    with PrivacyLedger.open(tmp_path) as ledger:
        assignment = assign(ledger)
        ledger.admit(assignment, PLAN, 1.0, approved)
        for number, attempt in ((1, 0), (1, 1), (2, 0)):
            ledger.reserve(charge(assignment, number, attempt), approved)
    with PrivacyLedger.open(tmp_path) as ledger:
        later = assign(ledger, run="run-2")
        before = ledger.counter
        for _ in range(3):
            with pytest.raises(ApprovalError, match="140 steps over all its runs, and 80"):
                ledger.admit(later, PLAN, 1.0, approved)
        assert ledger.counter == before
        ledger.reserve(charge(assignment, 3), approved)
        with pytest.raises(ApprovalError, match="site approve aaaa"):
            ledger.reserve(charge(assignment, 4), approved)
        ledger.admit(assign(ledger, OTHER), PLAN, 1.0, approved)
        twice = replace(approved, study_steps=2 * PLAN.steps)
        ledger.admit(later, PLAN, 1.0, twice)
        for number in range(1, ROUNDS + 1):
            ledger.reserve(charge(later, number), twice)


def test_where_caps_bind_rounds_alone_a_run_that_cannot_begin_is_not_written_down(
    tmp_path: Path, cheap: None
) -> None:
    approved = replace(CAPS, study_steps=STEP.steps, bind_plans=False)
    with PrivacyLedger.open(tmp_path) as ledger:
        ledger.admit(assign(ledger), PLAN, 1.0, approved)
        ledger.reserve(charge(assign(ledger), 1), approved)
        before = ledger.counter
        for number in range(5):
            with pytest.raises(ApprovalError):
                ledger.admit(assign(ledger, run=f"another-{number}"), PLAN, 1.0, approved)
        assert ledger.counter == before


def test_a_cap_that_was_lowered_holds_at_the_next_round(tmp_path: Path, cheap: None) -> None:
    with PrivacyLedger.open(tmp_path) as ledger:
        assignment = assign(ledger)
        ledger.admit(assignment, PLAN, 1.0, CAPS)
        ledger.reserve(charge(assignment, 1), CAPS)
        with pytest.raises(BudgetError):
            ledger.reserve(charge(assignment, 2), replace(CAPS, lifetime_epsilon=0.6))


def test_where_caps_bind_rounds_alone_a_study_begins_and_ends_at_the_cap(
    tmp_path: Path, cheap: None
) -> None:
    two_rounds = linear_epsilon([STEP, STEP], 1e-5)
    caps = Caps(two_rounds, 1e-5, 100.0, bind_plans=False)
    with PrivacyLedger.open(tmp_path) as ledger:
        assignment = assign(ledger)
        with pytest.raises(BudgetError):
            ledger.admit(assignment, PLAN, 1.0, replace(caps, bind_plans=True))
        ledger.admit(assignment, PLAN, 1.0, caps)
        for number in (1, 2):
            ledger.reserve(charge(assignment, number), caps)
        with pytest.raises(BudgetError, match="above the lifetime cap"):
            ledger.reserve(charge(assignment, 3), caps)
        assert ledger.spent(1e-5) <= two_rounds
        raised = replace(caps, lifetime_epsilon=100.0)
        ledger.admit(assignment, PLAN, 1.0, raised)
        ledger.reserve(charge(assignment, 3), raised)


def test_a_round_with_less_noise_than_its_plan_is_refused(tmp_path: Path, cheap: None) -> None:
    with PrivacyLedger.open(tmp_path) as ledger:
        assignment = assign(ledger)
        ledger.admit(assignment, PLAN, 1.0, CAPS)
        weak = charge(assignment, 1, spend=replace(STEP, noise_multiplier=1.0))
        with pytest.raises(LedgerError, match="train as planned"):
            ledger.reserve(weak, CAPS)


def test_a_round_of_an_admitted_study_needs_no_accounting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def counted(spends: object, delta: float) -> float:
        calls.append(spends)
        return linear_epsilon(spends, delta)

    monkeypatch.setattr(ledger_budget, "epsilon_of", counted)
    with PrivacyLedger.open(tmp_path) as ledger:
        assignment = assign(ledger)
        ledger.admit(assignment, PLAN, 1.0, CAPS)
        before = len(calls)
        for number in range(1, ROUNDS + 1):
            ledger.reserve(charge(assignment, number), CAPS)
        assert len(calls) == before


@pytest.mark.parametrize("numbers", [(0.0, 1e-5, 8.0), (8.0, 1.0, 8.0), (8.0, 1e-5, float("nan"))])
def test_caps_that_bound_nothing_are_refused(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(LedgerError, match="bound nothing"):
        Caps(*numbers)


def test_without_noise_nothing_fits(tmp_path: Path) -> None:
    with PrivacyLedger.open(tmp_path) as ledger, pytest.raises(BudgetError, match="epsilon inf"):
        ledger.admit(assign(ledger), Spend(0.05, 0.0, 1), 1.0, CAPS)


def test_a_study_that_goes_on_adds_to_what_its_parent_spent_also_on_patients_who_came_since(
    tmp_path: Path,
) -> None:
    """A child has another digest and more patients: neither buys a new budget."""
    with PrivacyLedger.open(tmp_path) as ledger:
        for study, patients in ((STUDY, "xyz"), (OTHER, "xyzabc")):
            assignment = assign(ledger, study, f"run of {study[:1]}", patients)
            ledger.admit(assignment, PLAN, 1.0, CAPS)
            for number in range(1, ROUNDS + 1):
                ledger.reserve(charge(assignment, number), CAPS)
        both = [replace(PLAN, steps=PLAN.steps)] * 2
        spent = ledger.spent(CAPS.lifetime_delta)
        assert spent == pytest.approx(epsilon_of(both, CAPS.lifetime_delta), rel=1e-3)
        assert spent > epsilon_of([PLAN], CAPS.lifetime_delta)
        third = assign(ledger, "c" * 64, "run of c", "xyzabcd")
        tight = replace(CAPS, lifetime_epsilon=spent * 1.01)
        with pytest.raises(BudgetError):
            ledger.admit(third, PLAN, 1.0, tight)
