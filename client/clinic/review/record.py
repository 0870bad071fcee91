"""What readers say, written down: a line each, in turn, on the disk before the next.

A mask is written before its line, under the hash of its content; a process that is killed between
the two leaves a file that nobody names, and one that is killed in the middle of a line a torn line
that never counted.
"""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from wardround.client.data.manifest.corrections import (
    KEY_BYTES,
    KEY_FILE,
    MASK_FOLDER,
    Correction,
    parse_corrections,
    read_case_key,
)
from wardround.client.site.folder import AUDIT_FOLDER, Site
from wardround.common.errors import DataError, InputError
from wardround.common.files.atomic import create_file, make_private_folder, open_or_make
from wardround.common.files.json_lines import ChainHead, append_line, to_line
from wardround.common.runtime.printable import is_plain
from wardround.common.runtime.system.files import lock

LONGEST_READER = 80
_LONGEST_LABEL = 1_000


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a reader says of a case, before it is written down.

    Attributes:
        case: Of the site's cases.
        column: ``label`` or ``mask``.
        new: A label, or the name that :func:`keep_mask` gave a mask.
        own: What the manifest itself says, in the form of ``old`` of a correction.
        origin: As in :class:`Correction`.
        dice: As in :class:`Correction`.
    """

    case: str
    column: str
    new: str
    own: str
    origin: str = ""
    dice: float | None = None


def case_key(site: Site) -> bytes:
    """Return the key by which the site's cases are named; the first who asks makes it.

    Raises:
        DataError: It is damaged, or gone while the table of corrections is there.
    """
    key = read_case_key(site)
    if key is not None:
        return key
    path = site.corrections_path.with_name(KEY_FILE)
    if site.corrections_path.exists():
        msg = f"{path} is gone, and corrections were made with it: put it back from a backup."
        raise DataError(msg)
    try:
        make_private_folder(path.parent)
        create_file(path, secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")
    except FileExistsError:
        pass  # another process made it just now
    except OSError as error:
        msg = f"cannot write {path} ({error.strerror}): make room, or make it writable."
        raise DataError(msg) from None
    return case_key(site)


def check_reader(name: str) -> str:
    """Return a reader's name without outer blanks.

    Raises:
        InputError: It is empty, too long, or holds signs that no name has.
    """
    name = " ".join(name.split())
    if not name or len(name) > LONGEST_READER or not is_plain(name):
        msg = f"a reader's name has 1 to {LONGEST_READER} letters on one line: give --reader NAME."
        raise InputError(msg)
    return name


def keep_mask(site: Site, content: bytes, kind: str) -> str:
    """Keep the file of a mask, and return the name by which a correction names it.

    Args:
        kind: Its ending, e.g. ``.nii.gz``.

    Raises:
        DataError: It cannot be written.
    """
    name = sha256(content).hexdigest() + kind
    folder = site.corrections_path.with_name(MASK_FOLDER)
    try:
        make_private_folder(folder)
        create_file(folder / name, content)
    except FileExistsError:
        pass  # the very same mask
    except OSError as error:
        msg = f"cannot write the mask of a correction ({error.strerror}): make room."
        raise DataError(msg) from None
    return name


def mask_mark(name: str) -> str:
    """Return how a mask is called among old labels: by its hash."""
    return "sha256:" + name.partition(".")[0]


def write_corrections(
    site: Site, reader: str, opinions: Sequence[Opinion], facts: Correction
) -> list[Correction]:
    """Append what a reader says; return it as it was written, with what counted before.

    Other processes wait meanwhile, so that each line's ``old`` is what counted just then.

    Args:
        facts: The classes, the queue and the source of all of them.

    Raises:
        DataError: The table is damaged, or cannot be written: what was written before stays.
        InputError: The name of the reader, or a label, cannot be one.
    """
    reader = check_reader(reader)
    for one in opinions:
        if len(one.new) > _LONGEST_LABEL or not is_plain(one.new):
            msg = f"a label has at most {_LONGEST_LABEL} letters on one line."
            raise InputError(msg)
    path = site.corrections_path
    try:
        make_private_folder(path.parent)
        descriptor = open_or_make(path, os.O_RDWR)
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        lock(descriptor, wait=True)
        return _append_all(descriptor, path, reader, opinions, facts)
    except OSError as error:
        raise _unusable(path, error) from None
    finally:
        os.close(descriptor)


def _append_all(
    descriptor: int, path: Path, reader: str, opinions: Sequence[Opinion], facts: Correction
) -> list[Correction]:
    table = parse_corrections(path.read_bytes(), path)
    os.ftruncate(descriptor, table.length)  # a torn line never counted
    head, length, written = table.head, table.length, list[Correction]()
    counts = {(one.case, one.column): one.new for one in table.lines}
    for one in opinions:
        before = counts.get((one.case, one.column))
        old = one.own if before is None else _as_old(before, one.column)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = replace(
            facts,
            time=now,
            reader=reader,
            case=one.case,
            column=one.column,
            old=old,
            new=one.new,
            origin=one.origin,
            dice=one.dice,
        )
        line, stated = to_line(entry.content(), head.entries + 1, head.hash)
        append_line(descriptor, line + b"\n", length, durable=True)
        head, length = ChainHead(head.entries + 1, stated), length + len(line) + 1
        counts[one.case, one.column] = one.new
        written.append(entry)
    return written


def write_down(site: Site, kind: str, verdict: str, sha256_of: str, study: str = "") -> None:
    """Sign an entry into the audit log; nothing has left the site.

    Raises:
        AuditError: It cannot be written.
    """
    from wardround.common.security.audit_log import AuditLog, Event
    from wardround.common.security.signing_key import open_key

    event = Event(kind=kind, verdict=verdict, study=study, sha256=sha256_of)
    AuditLog(site.folder / AUDIT_FOLDER, open_key(site.key_folder)).append(event)


def _as_old(new: str, column: str) -> str:
    return mask_mark(new) if column == "mask" else new


def _unusable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write {path} ({error.strerror}): make room, or make it writable for this account. "
        "What was written before stays."
    )
