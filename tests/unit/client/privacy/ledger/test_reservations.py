"""One answer a reservation, whatever is asked of the privacy ledger."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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

from wardround.client.privacy.ledger.budget import Caps
from wardround.client.privacy.ledger.charges import Reservation
from wardround.client.privacy.ledger.entries import LedgerError, Released, Reserved
from wardround.client.privacy.ledger.file import read_ledger
from wardround.client.privacy.ledger.ledger import PrivacyLedger


def test_one_reservation_lets_one_reply_out(tmp_path: Path, cheap: None) -> None:
    with PrivacyLedger.open(tmp_path) as ledger:
        assignment = assign(ledger)
        ledger.admit(assignment, PLAN, 1.0, CAPS)
        reservation = ledger.reserve(charge(assignment, 1), CAPS)
        ledger.release(reservation, "1" * 64)
        counter = ledger.counter
        ledger.release(reservation, "1" * 64)
        assert ledger.counter == counter, "the same bytes again are no new entry"
        with pytest.raises(LedgerError, match="reserve again"):
            ledger.release(reservation, "2" * 64)


def test_what_was_not_reserved_cannot_be_released_nor_committed(
    tmp_path: Path, cheap: None
) -> None:
    with PrivacyLedger.open(tmp_path) as ledger:
        assignment = assign(ledger)
        ledger.admit(assignment, PLAN, 1.0, CAPS)
        invented = Reservation(1, charge(assignment, 1))
        with pytest.raises(LedgerError, match="not in this ledger"):
            ledger.release(invented, "1" * 64)
        with pytest.raises(LedgerError, match="not in this ledger"):
            ledger.commit(invented)
        reservation = ledger.reserve(charge(assignment, 1), CAPS)
        with pytest.raises(LedgerError, match="nothing left"):
            ledger.commit(reservation)


class Site:
    """A site on which anything may be asked, in any order."""

    caps = Caps(
        6 * linear_epsilon([STEP], 1e-5), 1e-5, study_epsilon=4 * linear_epsilon([STEP], 1e-5)
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = PrivacyLedger.open(folder, durable=False)
        self.taken: list[Reservation] = []
        for choice in range(6):
            self.do("admit", choice, 0)

    def do(self, name: str, choice: int, number: int) -> None:
        run = f"run-{choice % 3}"
        assignment = assign(self.ledger, (STUDY, OTHER)[choice % 2], run)
        asked = charge(assignment, number)
        reservation = Reservation(choice, asked)
        if self.taken and name != "foreign":
            reservation = self.taken[choice % len(self.taken)]
        if name == "admit":
            self.ledger.admit(assignment, PLAN, 1.0, self.caps)
        elif name == "reserve":
            self.taken.append(self.ledger.reserve(asked, self.caps))
        elif name == "commit":
            self.ledger.commit(reservation)
        elif name == "restart":
            self.ledger.close()
            self.ledger = PrivacyLedger.open(self.folder, durable=False)
        else:
            self.ledger.release(reservation, f"{number:064x}")


ASKED = st.sampled_from(["reserve", "release", "commit", "restart", "admit", "foreign"])


@given(st.lists(st.tuples(ASKED, st.integers(0, 5), st.integers(1, 4)), max_size=30))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_asked_released_is_within_reserved_and_within_the_cap(
    tmp_path_factory: pytest.TempPathFactory, cheap: None, asked: list[tuple[str, int, int]]
) -> None:
    site = Site(tmp_path_factory.mktemp("site"))
    for words in asked:
        before = site.ledger.counter
        try:
            site.do(*words)
        except LedgerError:
            assert site.ledger.counter == before, "a refusal leaves no entry"
        charged = len(site.taken) * linear_epsilon([STEP], 1e-5)
        assert site.ledger.spent(1e-5) == pytest.approx(charged)
        assert charged <= site.caps.lifetime_epsilon + 1e-9
    site.ledger.close()
    facts = [entry.fact for entry in read_ledger(site.folder).entries]
    reserved = {place for place, fact in enumerate(facts) if isinstance(fact, Reserved)}
    released = [fact.reservation for fact in facts if isinstance(fact, Released)]
    assert len(reserved) == len(site.taken)
    assert set(released) <= reserved
    assert len(released) == len(set(released)), "a reservation lets one answer out"
