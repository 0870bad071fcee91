"""What a server remembers of its sites' ledgers, and a ledger that was written anew."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import RecordDict
from tests.support.hospitals.hospital import (
    STUDY,
    ask,
    instruction_for,
    refusal_of,
    write_site,
)

from wardround.client.app import close_sessions
from wardround.client.privacy.ledger.entries import Released, Reserved, entry_after
from wardround.client.privacy.ledger.file import LEDGER_FILE, LEDGER_FOLDER, read_ledger
from wardround.common.files.json_lines import ChainHead
from wardround.common.messages.instructions import NO_LEDGER, TRAIN, new_run
from wardround.common.messages.replies import unpack_update
from wardround.common.study.loading import parse_study
from wardround.server.scheduling.ledger_heads import ServerLedgers
from wardround.server.sites.participation import LedgerMemory, RunLedgers

FIRST, OTHER, LATER = ChainHead(7, "a" * 64), ChainHead(7, "b" * 64), ChainHead(9, "c" * 64)


@pytest.mark.parametrize("durable", [False, True])
def test_the_latest_entry_of_each_ledger_is_remembered_and_an_equal_one_does_not_replace_it(
    durable: bool, tmp_path: Path
) -> None:
    memory: LedgerMemory = ServerLedgers(tmp_path) if durable else RunLedgers()
    assert memory.known("north") == NO_LEDGER
    for heard, known in (
        (NO_LEDGER, NO_LEDGER),
        (FIRST, FIRST),
        (OTHER, FIRST),
        (LATER, LATER),
        (FIRST, LATER),
    ):
        memory.note("north", heard)
        assert memory.known("north") == known
    assert memory.known("south") == NO_LEDGER
    if durable:
        assert ServerLedgers(tmp_path).known("north") == LATER, "over all runs"


def test_two_marks_contradict_each_other_only_at_the_same_place() -> None:
    assert FIRST.contradicts(OTHER)
    assert not any(mark.contradicts(FIRST) for mark in (FIRST, LATER, NO_LEDGER))


def write_anew(site: Path) -> None:
    """Write a ledger again with as many entries, each with a hash that is right."""
    entries = []
    for entry in read_ledger(site).entries:
        fact = entry.fact
        if isinstance(fact, Released):
            fact = Released(fact.reservation, "f" * 64)
        entries.append(entry_after(entries[-1] if entries else None, fact))
    path = site / LEDGER_FOLDER / LEDGER_FILE
    path.write_bytes(b"".join(entry.line() + b"\n" for entry in entries))


def test_a_site_whose_ledger_was_written_anew_refuses_to_train_and_nothing_is_charged(
    tmp_path: Path,
) -> None:
    content = STUDY.model_dump(exclude_defaults=True)
    privacy = {"mode": "patient", "noise_multiplier": 9.0, "sampling_rate": 0.1}
    study = parse_study({**content, "privacy": {**privacy, "expected_patients": 30}})
    folder = write_site(tmp_path / "north", approved=f'["{study.digest}"]')
    run, memory, rounds = new_run(), RunLedgers(), itertools.count(1)

    def train() -> RecordDict:
        instruction = instruction_for(folder, next(rounds), study)
        instruction = replace(instruction, run=run, ledger=memory.known("north"))
        return ask(folder, TRAIN, instruction, study)

    try:
        for _ in range(2):
            update = unpack_update(train(), study)
            charged = [e.hash for e in read_ledger(folder).entries if isinstance(e.fact, Reserved)]
            assert (len(charged), charged[-1]) == (update.ledger.entries, update.ledger.hash)
            memory.note("north", update.ledger)
        write_anew(folder)
        before = len(read_ledger(folder).entries)
        _, code, _ = refusal_of(train())
        assert code == "ledger"
        assert len(read_ledger(folder).entries) == before
    finally:
        close_sessions()
