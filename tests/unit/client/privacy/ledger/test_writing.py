"""Who may write the privacy ledger, and what happens where the disk does not let it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.ledger_folder import CAPS, PLAN, assign, charge, ledger_path

from wardround.client.privacy.ledger.entries import LedgerError
from wardround.client.privacy.ledger.file import read_ledger
from wardround.client.privacy.ledger.ledger import PrivacyLedger


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
        "from wardround.client.privacy.ledger.ledger import PrivacyLedger\n"
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


@pytest.mark.parametrize("part", ["write", "fsync"])
def test_a_full_disk_stops_the_round_and_the_ledger_goes_on_when_there_is_room(
    written: Path, cheap: None, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    real = os.write

    def full(descriptor: int, data: bytes = b"") -> None:
        real(descriptor, data[:17])
        raise OSError(28, "No space left on device")

    with PrivacyLedger.open(written) as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(os, part, full)
            with pytest.raises(LedgerError, match="No space left"):
                ledger.reserve(charge(assign(ledger), 7), CAPS)
        assert ledger.counter == 20
        ledger.reserve(charge(assign(ledger), 7), CAPS)
    assert len(read_ledger(written).entries) == 21


def test_an_entry_is_on_the_disk_before_it_counts_and_a_simulation_does_not_wait(
    tmp_path: Path, cheap: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, sync = os.write, os.fsync
    for durable in (True, False):
        done: list[str] = []
        with PrivacyLedger.open(tmp_path / str(durable), durable) as ledger:
            assignment = assign(ledger)
            with monkeypatch.context() as patch:
                patch.setattr(
                    os, "write", lambda *a, done=done: (done.append("write"), write(*a))[1]
                )
                patch.setattr(os, "fsync", lambda a, done=done: (sync(a), done.append("sync")))
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
