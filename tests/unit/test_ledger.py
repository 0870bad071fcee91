"""The privacy ledger: what is charged, what is refused, and what is found."""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wardround.client.outbox import Outbox
from wardround.client.privacy import ledger_budget, ledger_file
from wardround.client.privacy.ledger import PrivacyLedger
from wardround.client.privacy.ledger_answer import answer_once
from wardround.client.privacy.ledger_budget import BudgetError, Caps
from wardround.client.privacy.ledger_chain import check_held, read_chain
from wardround.client.privacy.ledger_charges import Assignment, Charge, Reservation
from wardround.client.privacy.ledger_entries import (
    Admitted,
    LedgerError,
    Opened,
    Released,
    Reserved,
    entry_after,
)
from wardround.client.privacy.ledger_file import read_ledger
from wardround.client.privacy.ledger_report import report_ledger, to_csv, to_json
from wardround.client.privacy.ledger_snapshot import snapshot_of
from wardround.common.accounting import Spend, epsilon_of

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


def ledger_path(site: Path) -> Path:
    return site / "ledger" / "ledger.jsonl"


# --- What is charged -------------------------------------------------------------------------


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


# --- P3: the caps ----------------------------------------------------------------------------


def test_a_study_whose_plan_does_not_fit_is_refused_before_its_first_batch(tmp_path: Path) -> None:
    trained: list[int] = []
    with PrivacyLedger.open(tmp_path) as ledger:
        assignment, outbox = assign(ledger), Outbox(tmp_path)
        greedy = Spend(0.05, 0.8, 2000)
        with pytest.raises(BudgetError, match=r"above the study cap of 8"):
            ledger.admit(assignment, greedy, 1.0, CAPS)
        before = ledger.counter
        with pytest.raises(LedgerError, match="was not admitted"):
            answer_once(
                ledger,
                outbox,
                charge(assignment, 1, spend=replace(greedy, steps=1)),
                CAPS,
                lambda: trained.append(1) or b"update",
            )
        assert trained == []
        assert ledger.counter == before == 1
    assert not (tmp_path / "outbox").exists()


def test_the_lifetime_cap_survives_a_restart_a_new_run_a_new_name_and_a_new_network(
    tmp_path: Path,
) -> None:
    """A study's name and network are in its digest, so that a new one is a new digest."""
    spend = Spend(0.05, 1.0, 400)
    alone = epsilon_of([spend], 1e-5)
    caps = Caps(lifetime_epsilon=1.5 * alone, lifetime_delta=1e-5, study_epsilon=1.2 * alone)
    assert epsilon_of([spend, spend], 1e-5) < 1.5 * alone, "two fit"
    assert epsilon_of([spend] * 3, 1e-5) > 1.5 * alone, "three do not"
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


# --- One answer a reservation ----------------------------------------------------------------


def test_one_reservation_lets_one_answer_out(tmp_path: Path, cheap: None) -> None:
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


# --- What is found ---------------------------------------------------------------------------


def is_found(mutated: bytes, entries: int, head: str) -> bool:
    """Whether a reader who knows the counter finds a change, or nothing was lost by it."""
    try:
        chain = read_chain(mutated)
        check_held(chain.entries, entries, head)
    except LedgerError:
        return True
    return bool(chain.torn or chain.unended)


def flip(content: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(content))
    other = bytes([content[place] ^ generator.randrange(1, 256)])
    return content[:place] + other + content[place + 1 :]


def delete_line(content: bytes, generator: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    lines.pop(generator.randrange(len(lines)))
    return b"".join(lines)


def move_line(content: bytes, generator: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    a, b = generator.sample(range(len(lines)), 2)
    lines.insert(b, lines.pop(a))
    return b"".join(lines)


def truncate(content: bytes, generator: random.Random) -> bytes:
    return content[: generator.randrange(len(content))]


def delete_bytes(content: bytes, generator: random.Random) -> bytes:
    begin = generator.randrange(len(content))
    return content[:begin] + content[begin + generator.randint(1, 700) :]


def insert_byte(content: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(content) + 1)
    return content[:place] + bytes([generator.randrange(256)]) + content[place:]


MUTATIONS = (flip, delete_line, move_line, truncate, delete_bytes, insert_byte)


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_a_thousand_mutations_are_all_found(
    written: Path, mutate: Callable[[bytes, random.Random], bytes]
) -> None:
    content = ledger_path(written).read_bytes()
    chain = read_chain(content)
    generator = random.Random(mutate.__name__)
    mutated = [mutate(content, generator) for _ in range(1000)]
    missed = [
        data
        for data in mutated
        if data != content and not is_found(data, len(chain.entries), chain.entries[-1].hash)
    ]
    assert not missed


def test_every_byte_of_the_last_line_is_watched(written: Path) -> None:
    """A changed end must not pass for a torn one, or a charge would be cut off."""
    lines = ledger_path(written).read_bytes().splitlines(keepends=True)
    content = b"".join(lines[:3])  # the last is a reservation
    begin = len(content) - len(lines[2])
    for place in range(begin, len(content)):
        for bit in range(8):
            changed = bytes([content[place] ^ (1 << bit)])
            mutated = content[:place] + changed + content[place + 1 :]
            try:
                chain = read_chain(mutated)
            except LedgerError:
                continue
            assert len(chain.entries) == 3, "a charge was lost"


@pytest.mark.parametrize("mutate", [flip, delete_line, move_line])
def test_a_site_with_an_edited_ledger_does_not_train(
    written: Path, mutate: Callable[[bytes, random.Random], bytes]
) -> None:
    path = ledger_path(written)
    whole = path.read_bytes()
    head, _, last = whole[:-1].rpartition(b"\n")
    edited = mutate(head + b"\n", random.Random(1)) + last + b"\n"
    path.write_bytes(edited)
    with pytest.raises(LedgerError, match="is not what was written there"):
        PrivacyLedger.open(written)
    assert path.read_bytes() == edited, "what was edited is left as it is"


def test_an_entry_that_was_written_anew_with_its_own_hash_breaks_the_chain(written: Path) -> None:
    lines = ledger_path(written).read_bytes().splitlines(keepends=True)
    entries = read_chain(b"".join(lines)).entries
    cheaper = replace(entries[2].fact, steps=1)  # type: ignore[type-var]
    lines[2] = entry_after(entries[1], cheaper).line() + b"\n"
    assert read_chain(b"".join(lines[:3])).entries[2].fact == cheaper
    with pytest.raises(LedgerError, match="line 4"):
        read_chain(b"".join(lines))


def test_an_entry_of_a_newer_version_says_so(written: Path) -> None:
    content = ledger_path(written).read_bytes()
    last = read_chain(content).entries[-1]
    line = entry_after(last, Released(2, "1" * 64)).line()
    body = json.loads(line)
    del body["hash"]
    body["kind"] = "shared"
    ours = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    body["hash"] = hashlib.sha256(ours).hexdigest()
    line = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(LedgerError, match="update wardround"):
        read_chain(content + line + b"\n")


def test_a_torn_last_line_is_cut_off_and_noted(written: Path) -> None:
    path = ledger_path(written)
    whole = path.read_bytes()
    begin = whole[:-1].rindex(b"\n") + 1
    for cut in range(begin + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with PrivacyLedger.open(written, durable=False) as ledger:
            assert ledger.counter == 20  # 19 are left, and the note
        noted = json.loads(path.read_bytes().splitlines()[-1])
        assert noted["kind"] == "repaired"
        assert noted["fact"]["dropped_bytes"] == cut - begin
        assert path.read_bytes().startswith(whole[:begin])


@pytest.mark.parametrize("filler", [b"", b"\0", b"\0" * 500])
def test_a_last_line_without_its_end_is_kept(written: Path, filler: bytes) -> None:
    path = ledger_path(written)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + filler)
    with PrivacyLedger.open(written, durable=False) as ledger:
        assert ledger.counter == 21
    assert path.read_bytes().startswith(whole)
    assert len(read_ledger(written).entries) == 21


def test_a_ledger_torn_in_its_first_line_begins_anew(written: Path) -> None:
    path = ledger_path(written)
    path.write_bytes(path.read_bytes()[:30])
    with PrivacyLedger.open(written, durable=False) as ledger:
        assert ledger.counter == 1
        with pytest.raises(LedgerError, match="has seen 20"):
            ledger.check_counter(20)


def test_a_ledger_put_back_from_a_copy_is_refused_by_the_counter(
    written: Path, cheap: None
) -> None:
    path = ledger_path(written)
    copy = path.read_bytes()
    with PrivacyLedger.open(written, durable=False) as ledger:
        ledger.check_counter(0)
        ledger.check_counter(20)
        for number in (7, 8):
            ledger.reserve(charge(assign(ledger), number), CAPS)
        counter, head = ledger.counter, ledger.head
    path.write_bytes(copy)
    with PrivacyLedger.open(written, durable=False) as ledger:
        with pytest.raises(LedgerError, match="20 entries and the server has seen 22"):
            ledger.check_counter(counter)
        # Trained elsewhere, it grows past the counter; the hash still tells.
        for number in (9, 10, 11):
            ledger.reserve(charge(assign(ledger), number), CAPS)
        ledger.check_counter(counter)
        with pytest.raises(LedgerError, match="another ledger"):
            ledger.check_counter(counter, head)


def test_a_deleted_ledger_is_refused_by_the_counter(written: Path) -> None:
    ledger_path(written).unlink()
    with (
        PrivacyLedger.open(written, durable=False) as ledger,
        pytest.raises(LedgerError, match="1 entries and the server has seen 20"),
    ):
        ledger.check_counter(20)


# --- One writer ------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_told_who_has_it(written: Path) -> None:
    with (
        PrivacyLedger.open(written),
        pytest.raises(LedgerError, match=f"in use by process {os.getpid()}"),
    ):
        PrivacyLedger.open(written)
    PrivacyLedger.open(written).close()


def test_a_writer_in_another_process_is_seen_and_its_death_gives_the_lock_back(
    written: Path,
) -> None:
    code = (
        "import sys, pathlib\n"
        "from wardround.client.privacy.ledger import PrivacyLedger\n"
        "ledger = PrivacyLedger.open(pathlib.Path(sys.argv[1]))\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(written)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        with pytest.raises(LedgerError, match=f"in use by process {child.pid}"):
            PrivacyLedger.open(written)
    finally:
        child.kill()
        child.communicate()
    PrivacyLedger.open(written).close()


def test_a_ledger_that_is_forgotten_is_closed(written: Path) -> None:
    PrivacyLedger.open(written)
    PrivacyLedger.open(written).close()


def test_a_forked_process_cannot_write(written: Path, cheap: None) -> None:
    with PrivacyLedger.open(written) as ledger:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                ledger.reserve(charge(assign(ledger), 9), CAPS)
            except LedgerError:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert ledger.counter == 20


def test_a_closed_ledger_takes_no_entry(written: Path, cheap: None) -> None:
    with PrivacyLedger.open(written) as ledger:
        later = charge(assign(ledger), 9)
    with pytest.raises(LedgerError, match="not open"):
        ledger.reserve(later, CAPS)


@pytest.mark.parametrize("change", ["append", "truncate", "remove"])
def test_a_file_that_another_changes_under_an_open_ledger_is_found(
    written: Path, cheap: None, change: str
) -> None:
    path = ledger_path(written)
    with PrivacyLedger.open(written) as ledger:
        if change == "append":
            path.write_bytes(path.read_bytes() + b"x")
        elif change == "truncate":
            path.write_bytes(path.read_bytes()[:-200])
        else:
            path.unlink()
        with pytest.raises(LedgerError, match="changed while it was open"):
            ledger.reserve(charge(assign(ledger), 9), CAPS)


# --- The disk --------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["_write", "_sync"])
def test_a_full_disk_stops_the_round_and_the_ledger_goes_on_when_there_is_room(
    written: Path, cheap: None, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def full(descriptor: int, data: bytes = b"") -> None:
        os.write(descriptor, data[:17])
        raise OSError(28, "No space left on device")

    with PrivacyLedger.open(written) as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(ledger_file, part, full)
            with pytest.raises(LedgerError, match="No space left"):
                ledger.reserve(charge(assign(ledger), 7), CAPS)
        assert ledger.counter == 20
        ledger.reserve(charge(assign(ledger), 7), CAPS)
    assert len(read_ledger(written).entries) == 21


def test_an_entry_is_on_the_disk_before_it_counts_and_a_simulation_does_not_wait(
    tmp_path: Path, cheap: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for durable in (True, False):
        done: list[str] = []
        with PrivacyLedger.open(tmp_path / str(durable), durable) as ledger:
            assignment = assign(ledger)
            with monkeypatch.context() as patch:
                write, sync = ledger_file._write, ledger_file._sync
                patch.setattr(
                    ledger_file,
                    "_write",
                    lambda *a, write=write, done=done: (write(*a), done.append("write")),
                )
                patch.setattr(
                    ledger_file,
                    "_sync",
                    lambda *a, sync=sync, done=done: (sync(*a), done.append("sync")),
                )
                ledger.admit(assignment, PLAN, 1.0, CAPS)
                ledger.reserve(charge(assignment, 1), CAPS)
        assert done == (["write", "sync"] * 2 if durable else ["write"] * 2)


def test_a_folder_that_cannot_be_written_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("a file where the folder should be")
    with pytest.raises(LedgerError, match="cannot write the ledger"):
        PrivacyLedger.open(tmp_path)


def test_a_damaged_salt_is_refused_with_its_remedy(written: Path) -> None:
    (written / "ledger" / "salt").write_bytes(b"short")
    with pytest.raises(LedgerError, match="holds 5 bytes and not 32"):
        PrivacyLedger.open(written)


# --- The report ------------------------------------------------------------------------------


@pytest.fixture
def reported(tmp_path: Path) -> Path:
    with PrivacyLedger.open(tmp_path, durable=False) as ledger:
        for study, run in ((STUDY, "run-1"), (OTHER, "run-2")):
            assignment = assign(ledger, study, run)
            ledger.admit(assignment, PLAN, 0.7, CAPS)
            reservation = ledger.reserve(charge(assignment, 1), CAPS)
            ledger.reserve(charge(assignment, 1, 1), CAPS)
            ledger.release(reservation, "1" * 64)
    return tmp_path


def test_the_report_says_all_that_an_auditor_needs_and_can_be_recomputed(reported: Path) -> None:
    report = json.loads(to_json(report_ledger(read_ledger(reported).entries)))
    assert report["unit"] == "patient"
    assert report["adjacency"] == "one patient added or removed"
    assert report["accountant"].startswith("PLD (dp-accounting ")
    (dataset,) = report["datasets"]
    assert (dataset["cap"], dataset["delta"]) == (8.0, 1e-5)
    assert [run["reservations"] for run in dataset["runs"]] == [2, 2]
    assert [run["released"] for run in dataset["runs"]] == [1, 1]
    assert [run["clip_norm"] for run in dataset["runs"]] == [0.7, 0.7]
    spends = [
        Spend(run["sampling_rate"], run["noise_multiplier"], run["steps"])
        for run in dataset["runs"]
    ]
    assert dataset["epsilon"] == pytest.approx(epsilon_of(spends, dataset["delta"]), abs=1e-3)
    assert dataset["epsilon"] == pytest.approx(_from_opacus(spends, 1e-5), abs=0.1)
    assert dataset["remaining"] == pytest.approx(8.0 - dataset["epsilon"])


def _from_opacus(spends: list[Spend], delta: float) -> float:
    """Return an independent accountant's epsilon."""
    opacus = pytest.importorskip("opacus.accountants")
    accountant = opacus.PRVAccountant()
    accountant.history = [(s.noise_multiplier, s.sampling_rate, s.steps) for s in spends]
    return float(accountant.get_epsilon(delta))


def test_the_table_has_a_row_a_run_and_one_for_all(reported: Path) -> None:
    lines = to_csv(report_ledger(read_ledger(reported).entries)).splitlines()
    names = lines[0].split(",")
    assert {"unit", "adjacency", "accountant", "delta", "cap", "remaining"} <= set(names)
    assert {"noise_multiplier", "sampling_rate", "steps", "clip_norm", "epsilon"} <= set(names)
    assert len(lines) == 4
    assert ",all,all," in lines[-1]


def test_a_run_that_reserved_nothing_stands_in_the_report(tmp_path: Path, cheap: None) -> None:
    with PrivacyLedger.open(tmp_path, durable=False) as ledger:
        ledger.admit(assign(ledger), PLAN, 1.0, CAPS)
    (dataset,) = report_ledger(read_ledger(tmp_path).entries).datasets
    assert dataset.epsilon == 0.0
    assert [run.steps for run in dataset.runs] == [0]


def test_an_unbounded_spend_is_exported_as_a_word(tmp_path: Path) -> None:
    caps = Caps(1e9, 1e-5, 1e9)
    bare = Spend(0.05, 0.0, 5)
    with PrivacyLedger.open(tmp_path, durable=False) as ledger:
        assignment = assign(ledger)
        ledger.admit(assignment, bare, 1.0, caps)
        ledger.reserve(charge(assignment, 1, spend=bare), caps)
        assert ledger.spent(1e-5) == float("inf")
    text = to_json(report_ledger(read_ledger(tmp_path).entries))
    assert json.loads(text)["datasets"][0]["epsilon"] == "infinite"


def test_the_first_entry_names_the_ledger_and_admissions_keep_their_caps(reported: Path) -> None:
    facts = [entry.fact for entry in read_ledger(reported).entries]
    assert isinstance(facts[0], Opened)
    assert facts[0].format == 1
    admitted = [fact for fact in facts if isinstance(fact, Admitted)]
    assert [fact.lifetime_epsilon for fact in admitted] == [8.0, 8.0]


def test_an_auditor_can_check_the_file_with_the_few_lines_of_the_documentation(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "ledger.md"
    lines = page.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(written)
    exec(compile(lines, "docs/ledger.md", "exec"), {})
    path = ledger_path(written)
    path.write_bytes(path.read_bytes().replace(b'"round":3', b'"round":4'))
    with pytest.raises(AssertionError):
        exec(compile(lines, "docs/ledger.md", "exec"), {})
