"""What a server remembers of audit logs, and which receipt goes with which question."""

import logging
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Message, RecordDict

from wardround.common.flower.site_grid import SiteGrid, begin_local_run, stamp
from wardround.common.messages.audit import (
    REPORT_RECORD,
    report_record,
    unpack_receipt,
)
from wardround.common.security.audit_receipt import AuditReport, sign_report
from wardround.server.identity.pki import CA_FOLDER, CA_KEY, open_authority
from wardround.server.scheduling.audit_heads import ReceiptedGrid, ReceiptOffice
from wardround.server.service.installation import init_server

NAMES = {11: "north", 12: "south"}
KEY = Ed25519PrivateKey.generate()


def report_of(entries: int) -> AuditReport:
    return sign_report(KEY, entries, f"{entries:064x}")


@pytest.fixture
def server(tmp_path: Path) -> Path:
    init_server(tmp_path / "server", "lab", ["localhost"], "127.0.0.1", 8443)
    return tmp_path / "server"


def entries_for(office: ReceiptOffice, kind: str, group: str = "round 1") -> int | None:
    receipt = office.receipt_for("north", kind, group)
    return None if receipt is None else receipt.report.entries


def test_a_receipt_is_for_the_latest_report_and_signed_by_the_authority(server: Path) -> None:
    office = ReceiptOffice(server, "run")
    assert entries_for(office, "evaluate") is None
    for entries in (4, 7, 5):
        office.note("north", report_of(entries))
    receipt = office.receipt_for("north", "evaluate", "validation")
    assert receipt is not None
    assert (receipt.site, receipt.report) == ("north", report_of(7))
    assert receipt.is_signed_by(open_authority(server).certificate.public_key())  # type: ignore[arg-type]
    assert office.receipt_for("south", "evaluate", "validation") is None


def test_an_instruction_that_is_sent_again_has_the_same_receipt_byte_for_byte(
    server: Path,
) -> None:
    """Else a site would not know that it has answered it, and train again."""
    office = ReceiptOffice(server, "run")
    office.note("north", report_of(4))
    first = office.receipt_for("north", "train", "round 1")
    office.note("north", report_of(6))
    office.keep()
    again = ReceiptOffice(server, "run")  # the server was started again
    again.note("north", report_of(8))
    assert entries_for(again, "query.describe") == 8
    assert entries_for(again, "evaluate") == 8
    assert entries_for(ReceiptOffice(server, "other-run"), "train") == 6
    assert again.receipt_for("north", "train", "round 1") == first
    assert entries_for(again, "train", "round 2") == 8


def test_a_log_that_got_shorter_is_said_and_what_was_known_stays(
    server: Path, caplog: pytest.LogCaptureFixture
) -> None:
    office = ReceiptOffice(server, "run")
    office.note("north", report_of(9))
    office.keep()
    later = ReceiptOffice(server, "later")
    with caplog.at_level(logging.WARNING):
        later.note("north", report_of(3))
    assert "its audit log has 3 entries and had 9" in caplog.text
    assert entries_for(later, "query.describe") == 9


def test_a_server_without_its_ca_key_signs_nothing_and_goes_on(
    server: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (server / CA_FOLDER / CA_KEY).unlink()
    office = ReceiptOffice(server, "run")
    office.note("north", report_of(1))
    assert entries_for(office, "train") is None
    assert "no audit log is countersigned" in caplog.text


class Link(SiteGrid):
    """A link in memory, whose sites answer with what they are given."""

    def __init__(self, *answers: RecordDict) -> None:
        super().__init__(begin_local_run(1))
        self.answers, self.sent = list(answers), list[Message]()

    def site_names(self) -> dict[int, str]:
        return NAMES

    def get_node_ids(self) -> Iterable[int]:
        return list(NAMES)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for message in messages:
            stamp(message, f"message-{len(self.sent)}")
            self.sent.append(message)
        return [message.metadata.message_id for message in self.sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [Message(self.answers.pop(0), reply_to=self.sent[-1]) for _ in message_ids]


@pytest.mark.parametrize(
    "hostile",
    [
        {"entries": 0, "mark": "ab" * 32, "signature": "ab"},
        {"entries": 2.0, "mark": "ab" * 32, "signature": "ab"},
        {"entries": 2, "mark": "\x1b[2J", "signature": "ab"},
        {"entries": 2, "mark": "ab" * 32, "signature": "ab" * 1000},
        {"entries": 2**40, "mark": "ab" * 32, "signature": "ab" * 64},
        {},
    ],
)
def test_answers_are_looked_at_and_questions_carry_receipts_whatever_a_site_says(
    server: Path, hostile: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    said = RecordDict({REPORT_RECORD: report_record(report_of(3)), "more": ConfigRecord({"a": 1})})
    lied = RecordDict({REPORT_RECORD: ConfigRecord(hostile)})  # type: ignore[arg-type]
    office = ReceiptOffice(server, "run")
    grid = ReceiptedGrid(Link(said, lied), office)  # type: ignore[arg-type]
    content = RecordDict({"instruction": ConfigRecord({"digest": "x"})})
    for _ in range(2):
        message = grid.create_message(content, "query.describe", 11, "site-info")
        ids = list(grid.push_messages([message]))
        (reply,) = grid.pull_messages(ids[-1:])
        assert reply.has_content()
    receipt = unpack_receipt(message.content)
    assert receipt is not None
    assert receipt.report == report_of(3)
    assert "receipt" not in content  # what all sites are sent is not what one is sent
    assert "is not noted" in caplog.text
    assert "\x1b" not in caplog.text
    assert entries_for(office, "evaluate") == 3
    other = grid.create_message(content, "query.describe", 12, "site-info")
    assert unpack_receipt(other.content) is None
