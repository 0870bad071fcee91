"""Where a model comes from, signed: one in-toto statement a round, and one of each site in it.

A line is a DSSE envelope (Dead Simple Signing Envelope 1.0) around an in-toto Statement v1. The
server signs what a round made: the model before and after it, the study, and what each site signed
of its own part: the model that it received, the update that it sent, and how its privacy ledger and
its audit log stood. Signatures are Ed25519; a key is named by its own 32 bytes in hex. Sites are
keys here, and not names: a model tells nobody which hospitals made it.

**Exact bytes.** JSON and base64 have one spelling, that of :func:`canonical`: a line that is spelt
otherwise is refused, whatever it says.
"""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from wardround.common.errors import ModelError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
ROUND_TYPE = "urn:wardround:lineage:round:1"
SITE_TYPE = "urn:wardround:lineage:site-round:1"
LINEAGE_FILE = "lineage.jsonl"
MOST_COUNTED = 10**9  # of a round's number and of its tries
LARGEST_BYTES = 16 * 2**20  # of all rounds; a longer one does not travel with the model


@dataclass(frozen=True, slots=True)
class SiteRound:
    """What a site signs at the end of its round.

    Attributes:
        model: Digest of the model that it received.
        update: Digest of the arrays that it sent, as they travelled.
        ledger: The hash of the last entry of its privacy ledger that was charged for this server;
            "" where it keeps none.
        audit: The mark of the last entry of its audit log before; "" where it was empty. How many
            entries there are is not said: it would tell whoever has the model how busy a site is.
    """

    study: str
    run: str
    round: int
    attempt: int
    model: str
    update: str
    ledger: str
    audit: str

    def statement(self) -> dict[str, Any]:
        """Return it as an in-toto statement about the update."""
        predicate = {
            "study": self.study,
            "run": self.run,
            "round": self.round,
            "attempt": self.attempt,
            "model": {"sha256": self.model},
            "ledger": {"head": self.ledger},
            "audit": {"mark": self.audit},
        }
        return statement_about("update", self.update, SITE_TYPE, predicate)


@dataclass(frozen=True, slots=True)
class SignedRound:
    """A site's part of a round with its signature, which may be wrong.

    Attributes:
        key: The site's public key, 64 hexadecimal digits.
        signature: 128 hexadecimal digits.
    """

    part: SiteRound
    key: str
    signature: str

    @property
    def is_signed(self) -> bool:
        """Whether the key signed exactly this."""
        payload = canonical(self.part.statement())
        return _is_signed(self.key, bytes.fromhex(self.signature), payload)

    def envelope(self) -> dict[str, Any]:
        """Return it as a DSSE envelope."""
        payload = canonical(self.part.statement())
        return _envelope(payload, self.key, bytes.fromhex(self.signature))


@dataclass(frozen=True, slots=True)
class RoundMade:
    """What a server signs of a round.

    Attributes:
        round: 0 is the model that training starts from.
        model: Digest of the model that the round made.
        before: Digest of the model before; "" for round 0.
        previous: SHA-256 of the line before; "" for round 0.
        sent: Digests of the models that sites were sent, usually that of ``before`` alone.
        code: What runs at the server: its version, and the digest of its code.
        strategy: How updates were combined.
        parts: Of the sites whose updates are in the model.
        unsigned: How many more updates are in it whose sites signed nothing that fits.
        mean: Digest of the mean of the models so far, where that is what is released; "" where the
            model itself is.
        parent: The study and the run of the line before, where a run goes on from another's commit
            because somebody left that one; None elsewhere.
    """

    study: str
    run: str
    round: int
    model: str
    before: str
    previous: str
    sent: tuple[str, ...]
    code: tuple[str, str]
    strategy: str
    parts: tuple[SignedRound, ...] = ()
    unsigned: int = 0
    mean: str = ""
    parent: tuple[str, str] | None = None

    def statement(self) -> dict[str, Any]:
        """Return it as an in-toto statement about the model."""
        predicate = {
            "study": self.study,
            "run": self.run,
            "round": self.round,
            "before": {"sha256": self.before},
            "previous": self.previous,
            "sent": sorted(self.sent),
            "wardround": self.code[0],
            "code": {"sha256": self.code[1]},
            "strategy": self.strategy,
            "sites": sorted(part.key for part in self.parts),
            "receipts": [p.envelope() for p in sorted(self.parts, key=lambda part: part.key)],
            "unsigned": self.unsigned,
        }
        if self.mean:
            predicate["mean"] = {"sha256": self.mean}
        if self.parent is not None:
            predicate["parent"] = {"study": self.parent[0], "run": self.parent[1]}
        return statement_about("model", self.model, ROUND_TYPE, predicate)


def canonical(value: object) -> bytes:
    """Return the one spelling of a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def sign_part(key: Ed25519PrivateKey, part: SiteRound) -> SignedRound:
    """Return a site's part of a round, signed."""
    signature = key.sign(_encoded(canonical(part.statement())))
    return SignedRound(part, key.public_key().public_bytes_raw().hex(), signature.hex())


def sign_round(key: Ed25519PrivateKey, made: RoundMade) -> bytes:
    """Return the line of a round, without a newline."""
    return sign_statement(key, made.statement())


def sign_statement(key: Ed25519PrivateKey, statement: dict[str, Any]) -> bytes:
    """Return a statement in a signed envelope, in its one spelling, without a newline."""
    payload = canonical(statement)
    public = key.public_key().public_bytes_raw().hex()
    return canonical(_envelope(payload, public, key.sign(_encoded(payload))))


def line_hash(line: bytes) -> str:
    """Return what the next line says of this one."""
    return hashlib.sha256(line).hexdigest()


def open_line(line: bytes) -> tuple[dict[str, Any], str]:
    """Return the statement of a line and the key that signed it.

    Raises:
        ModelError: It is not spelt as we spell it, or the signature does not fit.
    """
    try:
        envelope = json.loads(line)
        if canonical(envelope) != line:
            _refuse("is not spelt as it was written")
        return open_envelope(envelope)
    except (ValueError, RecursionError):
        _refuse("is not a signed statement")


def open_envelope(envelope: Any) -> tuple[dict[str, Any], str]:
    """Return the statement in an envelope and the key that signed it.

    Raises:
        ModelError: It is not spelt as we spell it, or the signature does not fit.
    """
    try:
        (signed,) = envelope["signatures"]
        payload = _bytes(envelope["payload"])
        key, signature = str(signed["keyid"]), _bytes(signed["sig"])
        statement = json.loads(payload)
        is_ours = _envelope(payload, key, signature) == envelope and bytes.fromhex(key).hex() == key
        if not is_ours or canonical(statement) != payload:
            _refuse("is not spelt as it was written")
    except (ValueError, KeyError, TypeError, RecursionError):
        _refuse("is not a signed statement")
    if not _is_signed(key, signature, payload):
        _refuse("does not fit its signature")
    return statement, key


def statement_about(name: str, digest: str, kind: str, predicate: dict[str, Any]) -> dict[str, Any]:
    """Return an in-toto statement about something that has a SHA-256."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}}],
        "predicateType": kind,
        "predicate": predicate,
    }


def _envelope(payload: bytes, key: str, signature: bytes) -> dict[str, Any]:
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": key, "sig": base64.b64encode(signature).decode()}],
    }


def _encoded(payload: bytes) -> bytes:
    """Return what DSSE signs: the type and the payload with their lengths."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _is_signed(key: str, signature: bytes, payload: bytes) -> bool:
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        public.verify(signature, _encoded(payload))
    except (InvalidSignature, ValueError):
        return False
    return True


def _bytes(text: object) -> bytes:
    """Return the bytes of a base64 text in its one spelling.

    Raises:
        ValueError: It is not in that.
    """
    found = base64.b64decode(str(text), validate=True)
    if base64.b64encode(found).decode() != text:
        raise binascii.Error
    return found


def _refuse(words: str) -> NoReturn:
    msg = f"a line of {LINEAGE_FILE} {words}: it was changed, or never written by wardround."
    raise ModelError(msg)
