"""Somebody at a hospital who cuts off the end of its audit log, or a server that lies about it.

A real server countersigns what two hospitals say of their logs; each test attacks a copy of the
folder of one.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from flwr.app import ConfigRecord, Message, RecordDict
from tests.faults.stage import SITES, write_manifest
from tests.support.hospitals.hospital import ask, context_of
from tests.support.hospitals.private_tables import DELTA, private_study
from tests.support.studies.tiny_study import Said

from wardround.client.app import app, close_sessions
from wardround.client.policy.approvals import decide
from wardround.common.flower.site_grid import claim_identity, stamp
from wardround.common.messages.audit import RECEIPT_RECORD, receipt_record, unpack_report
from wardround.common.security.audit_log import LOG_FILE, AuditLog, Event
from wardround.common.security.audit_receipt import (
    AuditReport,
    Receipt,
    sign_receipt,
    sign_report,
)
from wardround.common.security.audit_verification import RECEIPTS_FILE, read_log, read_receipts
from wardround.common.security.signing_key import open_key
from wardround.common.study.study import Study
from wardround.server.identity.pki import Authority, make_authority, open_authority
from wardround.server.operators.client import server_at
from wardround.server.operators.messages import Submission
from wardround.server.scheduling.audit_heads import ReceiptOffice
from wardround.simulations.local_federation.processes import LocalFederation
from wardround.simulations.sites.preparation import prepare_sites

pytestmark = [
    pytest.mark.attacks,
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
ROUNDS, PATIENCE_SECONDS = 3, 120.0
NORTH = SITES[0]
Command = Callable[..., Said]


@dataclass(frozen=True, slots=True)
class Consortium:
    """A server and hospitals whose study has ended, with copies of what they had before."""

    folder: Path
    server: Path
    early: Path  # the first site's audit folder, after the first study
    outbox: tuple[Path, ...]
    study: Study

    @property
    def north(self) -> Path:
        return self.folder / "sites" / NORTH


def run_study(federation: LocalFederation, folder: Path, study: Study) -> None:
    for name in SITES:
        decide(folder / "sites" / name, study.digest, "approved")
    with server_at(str(federation.server)) as line:
        run = line.submit(Submission(study.to_toml(), "toml", SITES)).run
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        federation.require_alive()
        with server_at(str(federation.server)) as line:
            summary = line.show(run).summary
        if summary.is_over:
            assert summary.state == "finished", summary
            return
        assert time.monotonic() < until, f"hangs: {summary}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    folder = tmp_path_factory.mktemp("consortium") / "c"
    manifest = write_manifest(folder / "data")
    studies = [private_study(manifest, name, ROUNDS) for name in ("first", "second")]
    prepare_sites(studies[0], folder)
    with LocalFederation(folder, {"OMP_NUM_THREADS": "1"}) as federation:
        federation.make_server()
        federation.start_server()
        for name in SITES:
            site = folder / "sites" / name
            federation.join(site)
            (site / "policy.toml").write_text(
                f"lifetime_epsilon = 1000.0\nstudy_epsilon = 100.0\nlifetime_delta = {DELTA}\n"
                "smallest_cohort = 10\nsmallest_cell = 5\nanswer_step_seconds = 0\n"
            )
            federation.start_site(site)
        north = folder / "sites" / NORTH
        run_study(federation, folder, studies[0])
        early = folder / "early"
        shutil.copytree(north / "audit", early)
        run_study(federation, folder, studies[1])
        outbox = tuple((north / "outbox").iterdir())
        yield Consortium(folder, federation.server, early, outbox, studies[1])


@pytest.fixture
def site(consortium: Consortium, tmp_path: Path) -> Iterator[Path]:
    """A copy of the first hospital, which nobody serves."""
    close_sessions()
    copy = tmp_path / NORTH
    ignored = shutil.ignore_patterns("site.sock", "site.lock")
    shutil.copytree(consortium.north, copy, ignore=ignored)
    yield copy
    close_sessions()


def cut(site: Path, lines: int) -> int:
    """Cut off the last lines of a log; return how many are left."""
    log = site / "audit" / LOG_FILE
    left = log.read_bytes().splitlines(keepends=True)[:-lines]
    log.write_bytes(b"".join(left))
    return len(left)


def newest(site: Path) -> Receipt:
    return read_receipts(site / "audit")[-1]


def unsigned_entries(site: Path) -> int:
    """Return how many entries came after what the newest receipt is for."""
    return len(list(read_log(site / "audit"))) - newest(site).report.entries


def ask_with(site: Path, receipt: Receipt, study: Study) -> RecordDict:
    """Ask a site as its server does, with a receipt; the answer may be a refusal."""

    claim_identity(1)
    content = RecordDict({"instruction": ConfigRecord(), RECEIPT_RECORD: receipt_record(receipt)})
    message = Message(content, 7, "query.describe")
    stamp(message, "message-1")
    return app(message, context_of(site, study)).content


def test_a_whole_log_is_what_the_server_countersigned(site: Path, wardround: Command) -> None:
    said = wardround("site", "audit", "verify", site)
    assert said.code == 0
    assert f"The server countersigned the first {newest(site).report.entries} of them" in said.out
    # All that the site said before the last question was countersigned with it.
    assert unsigned_entries(site) <= 3
    assert len(read_receipts(site / "audit")) >= ROUNDS


def test_an_end_that_was_cut_off_is_found(site: Path, wardround: Command) -> None:
    left = cut(site, unsigned_entries(site) + 1)
    said = wardround("site", "audit", "verify", site)
    assert said.code != 0
    assert f"has {left} entries" in said.err
    assert "its end was cut off" in said.err


def test_a_log_that_was_cut_and_has_grown_again_is_found(site: Path, wardround: Command) -> None:
    lines = unsigned_entries(site) + 2
    cut(site, lines)
    log = AuditLog(site / "audit", open_key(site / "keys"))
    for number in range(lines + 10):
        log.append(Event(kind="update", round=number))
    said = wardround("site", "audit", "verify", site)
    assert said.code != 0
    assert "its end was cut off, or it was written anew" in said.err


def test_a_log_that_was_removed_is_found_by_verify_and_doctor(
    site: Path, wardround: Command
) -> None:
    (site / "audit" / LOG_FILE).unlink()
    assert "its end was cut off" in wardround("site", "audit", "verify", site).err
    doctor = wardround("site", "doctor", site)
    assert doctor.code != 0
    assert "its end was cut off" in " ".join((doctor.out + doctor.err).split())


def test_an_old_log_put_back_with_its_old_receipts_is_found_at_the_next_question(
    consortium: Consortium, site: Path, wardround: Command, caplog: pytest.LogCaptureFixture
) -> None:
    kept = newest(site)
    shutil.rmtree(site / "audit")
    shutil.copytree(consortium.early, site / "audit")
    assert wardround("site", "audit", "verify", site).code == 0  # nobody here knows better
    ask_with(site, kept, consortium.study)
    assert "the audit log has fewer entries than" in caplog.text
    said = wardround("site", "audit", "verify", site)
    assert said.code != 0
    assert "its end was cut off" in said.err
    ask_with(site, read_receipts(consortium.early)[-1], consortium.study)  # an old one
    assert newest(site) == kept
    assert wardround("site", "audit", "verify", site).code != 0


def test_the_server_still_knows_what_a_site_has_cut(consortium: Consortium, site: Path) -> None:
    office = ReceiptOffice(consortium.server, "another-run")
    cut(site, 8)
    report = AuditLog(site / "audit", open_key(site / "keys")).report()
    assert report is not None
    office.note(NORTH, report)
    receipt = office.receipt_for(NORTH, "query.describe", "site-info")
    assert receipt is not None
    assert receipt.report.entries >= newest(site).report.entries > report.entries


def forgeries(site: Path, authority: Authority) -> list[Receipt]:
    """Return receipts for what never was, by those who have some of the keys."""
    real, other = newest(site), make_authority("lab")
    more = real.report.entries + 50
    name = authority.certificate.fingerprint(hashes.SHA256()).hex()
    own = sign_report(open_key(site / "keys"), more, "ab" * 32)
    invented = AuditReport(more, "ab" * 32, "ab" * 64)
    return [
        replace(real, report=replace(real.report, entries=more)),
        sign_receipt(other.key, name, NORTH, own, real.time),
        sign_receipt(other.key, real.authority[::-1], NORTH, own, real.time),
        # Even the true server cannot accuse a site of having cut what it never reported.
        sign_receipt(authority.key, name, NORTH, invented, real.time),
        sign_receipt(authority.key, name, "another-site", own, real.time),
    ]


@pytest.mark.parametrize("number", range(5))
def test_a_forged_receipt_is_refused_and_hides_nothing(
    number: int, consortium: Consortium, site: Path, wardround: Command
) -> None:
    forged = forgeries(site, open_authority(consortium.server))[number]
    before = (site / "audit" / RECEIPTS_FILE).read_bytes()
    ask_with(site, forged, consortium.study)
    assert (site / "audit" / RECEIPTS_FILE).read_bytes() == before
    assert wardround("site", "audit", "verify", site).code == 0


def test_a_receipt_that_was_changed_on_the_disk_is_refused(site: Path, wardround: Command) -> None:
    """Who cuts the log lowers the numbers in its receipts too."""
    left = cut(site, unsigned_entries(site) + 1)
    path = site / "audit" / RECEIPTS_FILE
    lines = []
    for line in path.read_text().splitlines():
        said = json.loads(line)
        said["report"]["entries"] = min(said["report"]["entries"], left)
        lines.append(json.dumps(said))
    path.write_text("\n".join(lines) + "\n")
    said = wardround("site", "audit", "verify", site)
    assert said.code != 0
    assert "was not signed" in said.err


def test_what_leaves_of_a_log_is_a_number_of_messages_and_nothing_of_an_entry(
    consortium: Consortium, site: Path
) -> None:
    before = len(list(read_log(site / "audit")))
    content = ask(site, "query.describe", study=consortium.study)
    report = unpack_report(content)
    assert report is not None
    assert report.entries == before + 1  # the decision about this very question
    hashes_inside = [entry.hash for entry in read_log(site / "audit")]
    assert not any(one in repr(content) for one in hashes_inside)


def test_no_answer_stays_in_the_outbox_once_the_server_has_counted_it(
    consortium: Consortium,
) -> None:
    # What was measured last has no later round that would say so: kept_answer_days ends it.
    assert {path.name.rpartition("-")[2] for path in consortium.outbox} <= {"validation.answer"}
    assert len(consortium.outbox) <= len(SITES)
