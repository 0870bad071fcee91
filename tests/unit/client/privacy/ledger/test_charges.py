"""What the privacy ledger charges, and to whom (P2)."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.ledger_folder import (
    CAPS,
    OTHER,
    PLAN,
    STEP,
    STUDY,
    assign,
    charge,
    linear_epsilon,
)

from wardround.client.privacy.ledger.charges import Assignment
from wardround.client.privacy.ledger.entries import LedgerError
from wardround.client.privacy.ledger.file import read_ledger
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.client.privacy.ledger.report import report_ledger
from wardround.client.privacy.ledger.snapshot import snapshot_of
from wardround.common.privacy.accounting import Spend, epsilon_of


def test_every_reservation_is_charged_whether_or_not_anything_left(tmp_path: Path) -> None:
    with PrivacyLedger.open(tmp_path) as ledger:
        assignment = assign(ledger)
        ledger.admit(assignment, PLAN, 1.0, CAPS)
        for attempt in range(3):
            ledger.reserve(charge(assignment, 1, attempt), CAPS)
        expected = epsilon_of([replace(STEP, steps=3 * STEP.steps)], 1e-5)
        assert ledger.spent(1e-5) == pytest.approx(expected, abs=1e-9)


def test_rounds_studies_and_restarts_compose(tmp_path: Path) -> None:
    """P2: the published vector."""
    spends = (Spend(0.01, 1.0, 1000), Spend(0.05, 2.0, 500), Spend(0.02, 0.8, 100))
    for place, spend in enumerate(spends):
        with PrivacyLedger.open(tmp_path) as ledger:
            assignment = assign(ledger, study=f"{place:064x}", run=f"run-{place}")
            ledger.admit(assignment, spend, 1.0, CAPS)
            for number in range(10):
                part = replace(spend, steps=spend.steps // 10)
                ledger.reserve(charge(assignment, number + 1, spend=part), CAPS)
    with PrivacyLedger.open(tmp_path) as ledger:
        assert ledger.spent(1e-5) == pytest.approx(3.9284, abs=1e-3)


def test_patients_who_came_later_bring_no_new_budget(tmp_path: Path, cheap: None) -> None:
    with PrivacyLedger.open(tmp_path) as ledger:
        for study, patients in ((STUDY, "xyz"), (OTHER, "uvwxyz")):
            assignment = assign(ledger, study, patients=patients)
            ledger.admit(assignment, PLAN, 1.0, CAPS)
            ledger.reserve(charge(assignment, 1), CAPS)
        assert ledger.spent(1e-5) == linear_epsilon([STEP, STEP], 1e-5)
    run_report = report_ledger(read_ledger(tmp_path).entries).datasets[0].runs
    assert [run.snapshots for run in run_report] == [1, 1]


def test_the_same_patients_are_not_charged_under_another_name(tmp_path: Path, cheap: None) -> None:
    with PrivacyLedger.open(tmp_path) as ledger:
        assignment = assign(ledger)
        ledger.admit(assignment, PLAN, 1.0, CAPS)
        ledger.reserve(charge(assignment, 1), CAPS)
        renamed = replace(assignment, dataset="renamed", run="run-2")
        with pytest.raises(LedgerError, match="charged to the data set 'main'"):
            ledger.admit(renamed, PLAN, 1.0, CAPS)


def test_a_snapshot_tells_nothing_without_the_salt_and_ignores_order() -> None:
    patients = ["P-0001", "P-0002", "P-0002"]
    first = snapshot_of(patients, b"salt")
    assert first == snapshot_of(["P-0002", "P-0001"], b"salt")
    assert first != snapshot_of(patients, b"other")
    assert first != snapshot_of(["P-0001,P-0002"], b"salt")
    assert first != snapshot_of(["P-0001"], b"salt")


def test_no_patient_stands_in_the_ledger_and_only_the_owner_reads_it(
    tmp_path: Path, cheap: None
) -> None:
    with PrivacyLedger.open(tmp_path) as ledger:
        assignment = Assignment(STUDY, "run-1", ledger.snapshot(["CANARYPATIENT001"]))
        ledger.admit(assignment, PLAN, 1.0, CAPS)
    for path in (tmp_path / "ledger").iterdir():
        assert b"CANARY" not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "ledger").stat().st_mode & 0o077 == 0
