"""A server's receipt for a site's audit log: what shows later that its end was cut off.

With each answer a site says how many entries its log has, and a **mark** of the last of them. The
server signs that, and sends the receipt along with what it asks next. The site keeps its receipts
beside the log, and ``wardround site audit verify`` holds the log against them.

**What a mark tells.** It is the SHA-256 of the entry's signature, which nobody but the site can
make. The entry's own hash would tell more: all of an entry but its time and its verdict is known to
the server, which could try those out. The number of entries tells how many messages the site has
answered, and how often a torn line was mended.

**Who can make one.** A receipt holds two signatures: the site's, of the number and the mark, so
that no server can invent an entry and accuse a site of having cut it; and that of the consortium's
CA, whose certificate the site has known since it joined, so that nobody else can put one there.
"""

import hashlib
import json
from dataclasses import asdict, dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# A signature for one of these is none for anything else.
_REPORT, _RECEIPT = b"wardround audit report 1\n", b"wardround audit receipt 1\n"
_HASH = hashes.SHA384()


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a site says of its audit log.

    Attributes:
        entries: How many there are, at least 1.
        mark: Of the last of them, 64 hexadecimal digits.
        signature: The site's, of both.
    """

    entries: int
    mark: str
    signature: str

    def is_signed_by(self, key: Ed25519PublicKey) -> bool:
        """Whether a site's key signed it."""
        try:
            key.verify(bytes.fromhex(self.signature), _REPORT + _text(self.entries, self.mark))
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a server signs of it.

    Attributes:
        site: Whose log it is.
        time: When it was signed, in seconds since 1970, by the server's clock.
        authority: SHA-256 of the CA certificate, in hex: which consortium's receipt it is.
        signature: The CA's, of all the rest.
    """

    site: str
    report: AuditReport
    time: int
    authority: str
    signature: str

    def is_signed_by(self, key: ec.EllipticCurvePublicKey) -> bool:
        """Whether a CA's key signed it."""
        try:
            key.verify(bytes.fromhex(self.signature), _signed(self), ec.ECDSA(_HASH))
        except (InvalidSignature, ValueError):
            return False
        return True


def mark_of(signature: str) -> str:
    """Return the mark of an entry that has this signature, both in hex.

    Raises:
        ValueError: It is not hex.
    """
    return hashlib.sha256(bytes.fromhex(signature)).hexdigest()


def sign_report(key: Ed25519PrivateKey, entries: int, mark: str) -> AuditReport:
    """Return what a site says of its log."""
    return AuditReport(entries, mark, key.sign(_REPORT + _text(entries, mark)).hex())


def sign_receipt(
    key: ec.EllipticCurvePrivateKey, authority: str, site: str, report: AuditReport, time: int
) -> Receipt:
    """Return the receipt for what a site says."""
    unsigned = Receipt(site, report, time, authority, "")
    signature = key.sign(_signed(unsigned), ec.ECDSA(_HASH)).hex()
    return Receipt(site, report, time, authority, signature)


def receipt_to_json(receipt: Receipt) -> str:
    """Return a receipt as one line."""
    return json.dumps(asdict(receipt), sort_keys=True)


def receipt_from_json(line: str | bytes) -> Receipt:
    """Return the receipt of a line.

    Raises:
        ValueError: It is none.
    """
    try:
        said = json.loads(line)
        report = said["report"]
        return Receipt(
            str(said["site"]),
            AuditReport(int(report["entries"]), str(report["mark"]), str(report["signature"])),
            int(said["time"]),
            str(said["authority"]),
            str(said["signature"]),
        )
    except (KeyError, TypeError, RecursionError):
        msg = "not a receipt"
        raise ValueError(msg) from None


def _text(*values: object) -> bytes:
    return json.dumps(values).encode()


def _signed(receipt: Receipt) -> bytes:
    report = receipt.report
    return _RECEIPT + _text(
        receipt.site, report.entries, report.mark, report.signature, receipt.time, receipt.authority
    )
