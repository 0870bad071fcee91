"""Ledgers that more than one file of tests begins with."""

from pathlib import Path

import pytest
from tests.support.ledger_folder import CAPS, PLAN, assign, charge, linear_epsilon

from wardround.client.privacy.ledger import budget as ledger_budget
from wardround.client.privacy.ledger.ledger import PrivacyLedger


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_budget, "epsilon_of", linear_epsilon)


@pytest.fixture
def written(tmp_path: Path, cheap: None) -> Path:
    """A site folder with a ledger of 20 entries."""
    with PrivacyLedger.open(tmp_path, durable=False) as ledger:
        assignment = assign(ledger)
        ledger.admit(assignment, PLAN, 1.0, CAPS)
        for number in range(1, 7):
            reservation = ledger.reserve(charge(assignment, number), CAPS)
            ledger.release(reservation, f"{number:064x}")
            ledger.commit(reservation)
        assert ledger.counter == 20
    return tmp_path
