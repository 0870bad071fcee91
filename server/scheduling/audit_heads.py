"""What a server remembers of its sites' audit logs, and the receipts that it signs for them.

A site whose log is cut at its end cannot hide that from whoever has a receipt for what was there.
The reports come with the answers, and the receipts go with what is asked next.
"""

import logging
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import astuple
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from flwr.app import Message, RecordDict

from wardround.common.errors import InputError
from wardround.common.flower.serverapp.grid import LinkGrid
from wardround.common.flower.site_grid import PassingGrid
from wardround.common.messages.audit import RECEIPT_RECORD, receipt_record, unpack_report
from wardround.common.messages.instructions import TRAIN
from wardround.common.runtime.fields import FieldError
from wardround.common.security.audit_receipt import (
    AuditReport,
    Receipt,
    receipt_from_json,
    receipt_to_json,
    sign_receipt,
)
from wardround.server.identity.pki import Authority, open_authority
from wardround.server.scheduling.store import changing, reading

logger = logging.getLogger(__name__)


class ReceiptOffice:
    """Notes the reports of sites, and signs receipts for the latest of each.

    Args:
        folder: The server's.
        run: The run that is worked on.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self._folder, self._run = folder, run
        self._heard: dict[str, AuditReport] = {}
        self._group, self._receipts = "", dict[str, Receipt]()

    def note(self, site: str, report: AuditReport) -> None:
        """Note how a site's log stands; it is kept with the next instruction to train."""
        before = self._latest.get(site)
        if before is None or report.entries > before.entries:
            self._latest[site] = self._heard[site] = report
        elif report.entries < before.entries:
            logger.warning(
                "site=%s: its audit log has %d entries and had %d: an answer was late, or the log "
                "was cut",
                site,
                report.entries,
                before.entries,
            )

    def receipt_for(self, site: str, kind: str, group: str) -> Receipt | None:
        """Return the receipt that goes with a question to a site; None if it has said nothing yet.

        With the same instruction to train goes the same receipt, byte for byte, however often it is
        sent: a site knows by that that it has answered it before.

        Args:
            kind: Of the message.
            group: How the messages of the round are called.

        Raises:
            RunError: The database cannot be used.
        """
        if kind == TRAIN:
            if group != self._group:
                self._receipts, self._group = self._receipts_of(group), group
            return self._receipts.get(site)
        latest = self._latest.get(site)
        return None if latest is None else self._sign(site, latest)

    def _receipts_of(self, group: str) -> dict[str, Receipt]:
        """Return the receipts of a round, for all sites; they are signed when it begins."""
        if not self._latest:
            return {}
        with changing(self._folder) as connection:
            question = "SELECT site, receipt FROM audit_receipts WHERE run = ? AND round = ?"
            rows = connection.execute(question, (self._run, group)).fetchall()
            if rows:
                return {site: receipt_from_json(line) for site, line in rows}
            signed = {site: self._sign(site, report) for site, report in self._latest.items()}
            receipts = {site: receipt for site, receipt in signed.items() if receipt is not None}
            for site, receipt in receipts.items():
                _keep(connection, site, receipt.report)
                connection.execute(
                    "INSERT OR REPLACE INTO audit_receipts VALUES (?, ?, ?, ?)",
                    (site, self._run, group, receipt_to_json(receipt)),
                )
        return receipts

    def keep(self) -> None:
        """Keep what was heard last, for the next run.

        Raises:
            RunError: The database cannot be used.
        """
        if self._heard:
            with changing(self._folder) as connection:
                for site, report in self._heard.items():
                    _keep(connection, site, report)

    @cached_property
    def _latest(self) -> dict[str, AuditReport]:
        """What each site has ever said of its log, here or in an earlier run."""
        with reading(self._folder) as connection:
            rows = connection.execute("SELECT site, entries, mark, signature FROM audit_heads")
            return {site: AuditReport(*report) for site, *report in rows}

    def _sign(self, site: str, report: AuditReport) -> Receipt | None:
        authority = self._authority
        if authority is None:
            return None
        name = authority.certificate.fingerprint(hashes.SHA256()).hex()
        return sign_receipt(authority.key, name, site, report, int(time.time()))

    @cached_property
    def _authority(self) -> Authority | None:
        try:
            return open_authority(self._folder)
        except InputError as error:  # its key is kept elsewhere, say: the study goes on
            logger.warning("no audit log is countersigned: %s", error)
            return None


class ReceiptedGrid(PassingGrid):
    """A link's grid, whose questions carry receipts and whose answers are looked at for reports."""

    def __init__(self, grid: LinkGrid, office: ReceiptOffice) -> None:
        super().__init__(grid)
        self._link, self._office = grid, office
        self._names: dict[int, str] = {}

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message for a site, with the receipt for its audit log."""
        site = self._site(dst_node_id)
        receipt = self._office.receipt_for(site, message_type, group_id) if site else None
        if receipt is not None:
            content = RecordDict({**content, RECEIPT_RECORD: receipt_record(receipt)})
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages that are there."""
        for reply in self._grid.pull_messages(message_ids):
            self._note(reply)
            yield reply

    def _note(self, reply: Message) -> None:
        site = self._site(reply.metadata.src_node_id)
        if not site or not reply.has_content():
            return
        try:
            report = unpack_report(reply.content)
        except FieldError as error:
            logger.warning("site=%s: what it says of its audit log is not noted: %s", site, error)
            return
        if report is not None:
            self._office.note(site, report)

    def _site(self, node_id: int) -> str:
        """Return a node's site, by the certificate that it showed; "" where it is not known."""
        if node_id not in self._names:
            self._names.update(self._link.site_names())
        return self._names.get(node_id, "")


def _keep(connection: sqlite3.Connection, site: str, report: AuditReport) -> None:
    """Keep a site's report, if it is of more entries than the one that is kept."""
    connection.execute(
        "INSERT INTO audit_heads VALUES (?, ?, ?, ?) ON CONFLICT (site) DO UPDATE "
        "SET entries = excluded.entries, mark = excluded.mark, signature = excluded.signature "
        "WHERE excluded.entries > audit_heads.entries",
        (site, *astuple(report)),
    )
