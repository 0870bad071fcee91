"""How a site's audit log is countersigned: its state goes out with each answer, receipts come in.

Nothing of a round hangs on it: a receipt that is not right is refused, and the work goes on.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from flwr.app import RecordDict

from wardround.client.site.folder import (
    AUDIT_FOLDER,
    CA_CERTIFICATE,
    KEY_FOLDER,
    Site,
    open_site,
)
from wardround.common.errors import WardroundError
from wardround.common.security.audit_log import AuditLog

if TYPE_CHECKING:
    from wardround.common.security.audit_receipt import Receipt

logger = logging.getLogger(__name__)


def add_report(content: RecordDict, log: AuditLog) -> None:
    """Add to an answer how the audit log stands; nothing while it is empty.

    Raises:
        AuditError: The log cannot be read.
    """
    from wardround.common.messages.audit import REPORT_RECORD, report_record

    report = log.report()
    if report is not None:
        content[REPORT_RECORD] = report_record(report)


def take_receipt(content: RecordDict, site: Site, log: AuditLog) -> None:
    """Keep the receipt that an instruction brings, if the site and its server signed it.

    That it is for more than the log holds is said at once: nobody may look for a long time.
    """
    from wardround.common.messages.audit import RECEIPT_RECORD, unpack_receipt

    certificate_path = site.key_folder / CA_CERTIFICATE
    if RECEIPT_RECORD not in content or not certificate_path.exists():
        return
    from wardround.common.security.audit_verification import check_receipts, keep_receipt
    from wardround.common.security.signing_key import open_key
    from wardround.common.security.tls_key_pair import read_certificate

    try:
        receipt = unpack_receipt(content)
        if receipt is None:
            return
        key = open_key(site.folder / KEY_FOLDER).public_key()
        authority = read_certificate(certificate_path)
        check_receipts([receipt], site.name, key, authority, only_its_own=True)
        keep_receipt(site.folder / AUDIT_FOLDER, receipt)
        report = log.report()
        if report is None or report.entries < receipt.report.entries:
            logger.error(
                "the audit log has fewer entries than the %d that the server countersigned: it was "
                "cut off or put back. Run 'wardround site audit verify'.",
                receipt.report.entries,
            )
    except (WardroundError, OSError) as error:
        logger.warning("a receipt for the audit log is not kept: %s", error)


def kept_receipts(folder: Path, key: Ed25519PublicKey) -> "tuple[Receipt, ...]":
    """Return the receipts that a site folder keeps, the newest last, once they are checked.

    Args:
        key: The site's.

    Raises:
        DataError: It is no site folder.
        RunError: One is damaged, or was not signed by the site and its server.
    """
    from wardround.common.security.audit_verification import check_receipts, read_receipts
    from wardround.common.security.tls_key_pair import read_certificate

    receipts = read_receipts(folder / AUDIT_FOLDER)
    if receipts:
        site = open_site(folder)
        path = site.key_folder / CA_CERTIFICATE
        authority = read_certificate(path) if path.exists() else None
        check_receipts(receipts, site.name, key, authority)
    return receipts
