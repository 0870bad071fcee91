"""What a site signs of its round, as it travels in an update."""

import re

from flwr.app import ConfigRecord, RecordDict

from wardround.common.flower.messages.content import arrays_of, configs_of, fingerprint_of
from wardround.common.runtime.fields import Fields
from wardround.common.security.lineage import MOST_COUNTED, SignedRound, SiteRound

LINEAGE_RECORD = "lineage"
_DIGEST, _SIGNATURE = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{128}")
_MARK, _RUN = re.compile("([0-9a-f]{64})?"), re.compile("[0-9a-f]{32}")
_ARRAYS = ("auxiliary", "model")


def signed_record(signed: SignedRound) -> ConfigRecord:
    """Return the record that an update brings: what stands elsewhere in it is not said twice."""
    part = signed.part
    return ConfigRecord(
        {
            "model": part.model,
            "update": part.update,
            "audit": part.audit,
            "key": signed.key,
            "signature": signed.signature,
        }
    )


def arrays_digest(content: RecordDict) -> str:
    """Return the digest of an update's arrays as they travel, of its metrics not."""
    arrays = arrays_of(content)
    return fingerprint_of(RecordDict({n: arrays[n] for n in _ARRAYS if n in arrays})).sha256


def unpack_signed(content: RecordDict) -> SignedRound | None:
    """Return what a site signed of the update in a message, unverified; None if nothing.

    Raises:
        FieldError: It cannot be true.
    """
    record = configs_of(content).get(LINEAGE_RECORD)
    if record is None:
        return None
    fields = Fields(record, LINEAGE_RECORD)
    audit = fields.match("audit", _MARK, "64 hexadecimal digits or none")
    part = _part_of(content, fields.match("model", _DIGEST, "64 hexadecimal digits"), audit)
    said = fields.match("update", _DIGEST, "64 hexadecimal digits")
    signature = fields.match("signature", _SIGNATURE, "128 hexadecimal digits")
    key = fields.match("key", _DIGEST, "64 hexadecimal digits")
    signed = SignedRound(part, key, signature)
    return signed if said == part.update and signed.is_signed else None


def _part_of(content: RecordDict, model: str, audit: str) -> SiteRound:
    """Return what a site signed, in which nothing may stand that no reader of the record takes.

    One word of another form would make the whole run's record one that nobody can verify.
    """
    said = configs_of(content).get("header")
    header = Fields(said, "header")
    ledger = ""
    if said is not None and "ledger-head" in said:
        ledger = header.match("ledger-head", _MARK, "64 hexadecimal digits or none")
    return SiteRound(
        header.match("digest", _DIGEST, "64 hexadecimal digits"),
        header.match("run", _RUN, "32 hexadecimal digits"),
        header.whole("round", most=MOST_COUNTED),
        header.whole("attempt", most=MOST_COUNTED),
        model,
        arrays_digest(content),
        ledger,
        audit,
    )
