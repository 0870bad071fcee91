"""What a hospital signs of its round: which model it received, and which update it sent.

The server puts it into the signed record that travels with the finished model. Nothing in it is
free: each field follows from the update, the instruction and the logs, and the guard computes them
anew before the update leaves.
"""

from pathlib import Path

from flwr.app import ConfigRecord, RecordDict

from wardround.client.site.folder import KEY_FOLDER
from wardround.common.errors import GuardError
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.lineage import (
    LINEAGE_RECORD,
    arrays_digest,
    signed_record,
    unpack_signed,
)
from wardround.common.parameters.arithmetic import digest
from wardround.common.runtime.fields import FieldError
from wardround.common.security.audit_log import AuditLog
from wardround.common.security.lineage import SiteRound, sign_part
from wardround.common.security.signing_key import open_key


def sign_update(
    content: RecordDict, instruction: Instruction, ledger: str, folder: Path, log: AuditLog
) -> RecordDict:
    """Return an update with what the site signs of it.

    Args:
        content: The update, packed.
        ledger: The hash of the last entry of the privacy ledger for this server, "" without one.
        folder: The site's.

    Raises:
        InputError: The site's key cannot be used.
        AuditError: The log cannot be read.
    """
    report = log.report()
    part = SiteRound(
        instruction.digest,
        instruction.run,
        instruction.round,
        instruction.attempt,
        digest(instruction.parameters),
        arrays_digest(content),
        ledger,
        report.mark if report else "",
    )
    content[LINEAGE_RECORD] = signed_record(sign_part(open_key(folder / KEY_FOLDER), part))
    return content


def received_model(content: RecordDict) -> str:
    """Return the digest of the model that a signed update says it was trained from.

    Raises:
        TypeError: The site's own message holds something else there.
    """
    record = content[LINEAGE_RECORD]
    if not isinstance(record, ConfigRecord):
        msg = f"{LINEAGE_RECORD} is no record of a signed update"
        raise TypeError(msg)
    return str(record["model"])


def without_receipt(content: RecordDict, folder: Path) -> RecordDict:
    """Return an update without what the site signed of it, once that is exactly right.

    Raises:
        GuardError: It is not what this site signs of this update; or it stands in another message.
    """
    record = content[LINEAGE_RECORD]
    try:
        signed = unpack_signed(content) if "model" in content else None
    except FieldError:
        signed = None
    own = open_key(folder / KEY_FOLDER).public_key().public_bytes_raw().hex()
    is_right = (
        type(record) is ConfigRecord
        and signed is not None
        and signed.key == own
        and record == signed_record(signed)
    )
    if not is_right:
        msg = f"{LINEAGE_RECORD} is not what this site signs of this update: nothing leaves."
        raise GuardError(msg)
    return RecordDict({name: one for name, one in content.items() if name != LINEAGE_RECORD})
