"""What travels of a site's audit log: its report in an answer, the receipt in an instruction."""

import re

from flwr.app import ConfigRecord, RecordDict

from wardround.common.flower.messages.content import configs_of
from wardround.common.runtime.fields import Fields
from wardround.common.security.audit_receipt import AuditReport, Receipt

REPORT_RECORD, RECEIPT_RECORD = "audit", "receipt"
_HASH, _SIGNATURE = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{2,512}")
_LATEST = 2**40  # seconds since 1970


def report_record(report: AuditReport) -> ConfigRecord:
    """Return the record of an answer that says how the site's log stands."""
    said = {"entries": report.entries, "mark": report.mark, "signature": report.signature}
    return ConfigRecord(said)  # type: ignore[arg-type] # its values may be of several types


def receipt_record(receipt: Receipt) -> ConfigRecord:
    """Return the record of an instruction that is a receipt."""
    record = report_record(receipt.report)
    record["site"], record["time"] = receipt.site, receipt.time
    record["authority"], record["receipt-signature"] = receipt.authority, receipt.signature
    return record


def unpack_report(content: RecordDict) -> AuditReport | None:
    """Return what an answer says of its site's log, None if nothing.

    Raises:
        FieldError: It cannot be true.
    """
    record = configs_of(content).get(REPORT_RECORD)
    return None if record is None else _report(Fields(record, REPORT_RECORD))


def unpack_receipt(content: RecordDict) -> Receipt | None:
    """Return the receipt in an instruction, None if there is none.

    Raises:
        FieldError: It is not one.
    """
    record = configs_of(content).get(RECEIPT_RECORD)
    if record is None:
        return None
    fields = Fields(record, RECEIPT_RECORD)
    return Receipt(
        fields.text("site"),
        _report(fields),
        fields.whole("time", most=_LATEST),
        fields.match("authority", _HASH, "64 hexadecimal digits"),
        fields.match("receipt-signature", _SIGNATURE, "a signature"),
    )


def _report(fields: Fields) -> AuditReport:
    return AuditReport(
        fields.whole("entries", least=1),
        fields.match("mark", _HASH, "64 hexadecimal digits"),
        fields.match("signature", _SIGNATURE, "a signature"),
    )
