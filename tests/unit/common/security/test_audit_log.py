"""A site's audit log: whatever is changed in it is found (G1)."""

import hashlib
import json
import multiprocessing
import os
import random
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Self

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.common.errors import AuditError, InputError, RunError
from wardround.common.files.json_lines import ChainHead
from wardround.common.security import audit_log as audit
from wardround.common.security.audit_log import EMPTY, LOG_FILE, AuditLog, Event
from wardround.common.security.audit_receipt import Receipt, mark_of, sign_receipt, sign_report
from wardround.common.security.audit_verification import (
    RECEIPTS_FILE,
    check_receipts,
    keep_receipt,
    read_log,
    read_receipts,
    verify_log,
)
from wardround.common.security.signing_key import KEY_FILE, PUBLIC_FILE, open_key, open_public_key
from wardround.server.identity.pki import Authority, make_authority

ENTRIES = 5
MUTATIONS = 1000


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def event(number: int) -> Event:
    return Event(
        kind="update",
        study="ab" * 32,
        run="cd" * 16,
        round=number,
        bytes=1000 + number,
        sha256=f"{number:064x}",
    )


def write(folder: Path, key: Ed25519PrivateKey, first: int = 1) -> ChainHead:
    log = AuditLog(folder, key, durable=False)
    return [log.append(event(number)) for number in range(first, first + ENTRIES)][-1]


def flip_a_bit(content: bytes, drawn: random.Random) -> bytes:
    place = drawn.randrange(len(content))
    changed = content[place] ^ (1 << drawn.randrange(8))
    return content[:place] + bytes([changed]) + content[place + 1 :]


def change_a_byte(content: bytes, drawn: random.Random) -> bytes:
    place = drawn.randrange(len(content))
    return content[:place] + bytes([drawn.randrange(256)]) + content[place + 1 :]


def delete_a_byte(content: bytes, drawn: random.Random) -> bytes:
    place = drawn.randrange(len(content))
    return content[:place] + content[place + 1 :]


def insert_a_byte(content: bytes, drawn: random.Random) -> bytes:
    place = drawn.randrange(len(content) + 1)
    return content[:place] + bytes([drawn.randrange(256)]) + content[place:]


def cut_off(content: bytes, drawn: random.Random) -> bytes:
    return content[: drawn.randrange(len(content))]


def delete_lines(content: bytes, drawn: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    first = drawn.randrange(len(lines))
    last = drawn.randrange(first, len(lines))
    return b"".join(lines[:first] + lines[last + 1 :])


def swap_lines(content: bytes, drawn: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    one, other = drawn.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def repeat_a_line(content: bytes, drawn: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    lines.insert(drawn.randrange(len(lines) + 1), drawn.choice(lines))
    return b"".join(lines)


KINDS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_a_bit,
    change_a_byte,
    delete_a_byte,
    insert_a_byte,
    cut_off,
    delete_lines,
    swap_lines,
    repeat_a_line,
)


def is_found(folder: Path, key: Ed25519PrivateKey, countersigned: ChainHead) -> bool:
    try:
        verify_log(folder, key.public_key(), countersigned)
    except RunError:
        return True
    return False


def test_g1_every_one_of_1000_mutations_is_found(key: Ed25519PrivateKey, tmp_path: Path) -> None:
    head = write(tmp_path, key)
    path = tmp_path / LOG_FILE
    whole, drawn = path.read_bytes(), random.Random(0)
    assert verify_log(tmp_path, key.public_key(), head) == head
    tried = found = 0
    while tried < MUTATIONS:
        changed = KINDS[tried % len(KINDS)](whole, drawn)
        if changed == whole:
            continue
        path.write_bytes(changed)
        tried += 1
        found += is_found(tmp_path, key, head)
    assert (found, tried) == (MUTATIONS, MUTATIONS)


def test_a_log_may_grow_beyond_the_head_that_was_countersigned(
    key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    kept = write(tmp_path, key)
    grown = AuditLog(tmp_path, key, durable=False).append(event(99))
    assert grown.entries == ENTRIES + 1
    assert verify_log(tmp_path, key.public_key(), kept) == grown


def test_what_is_cut_off_after_the_last_countersigned_head_is_not_found(
    key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    kept = write(tmp_path, key)
    path = tmp_path / LOG_FILE
    whole = path.read_bytes()
    AuditLog(tmp_path, key, durable=False).append(event(99))
    path.write_bytes(whole)
    assert not is_found(tmp_path, key, kept)


def test_a_log_that_was_written_anew_with_another_key_is_found(
    key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    write(tmp_path, Ed25519PrivateKey.generate())
    assert is_found(tmp_path, key, EMPTY)


def test_a_log_that_was_written_anew_with_the_same_key_is_found_by_the_head(
    key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    head = write(tmp_path / "old", key)
    write(tmp_path / "new", key, first=50)
    assert not is_found(tmp_path / "new", key, EMPTY)
    assert is_found(tmp_path / "new", key, head)


def test_a_torn_last_line_is_cut_off_before_the_next_entry_and_that_is_written_down(
    key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    write(tmp_path, key)
    path = tmp_path / LOG_FILE
    path.write_bytes(path.read_bytes() + b'{"attempt":0,"by')
    AuditLog(tmp_path, key, durable=False).append(event(8))
    verify_log(tmp_path, key.public_key())
    kinds = [entry.event.kind for entry in read_log(tmp_path)]
    assert kinds == ["update"] * ENTRIES + ["repair", "update"]


def append_many(folder: Path, pem_folder: Path, count: int) -> None:
    log = AuditLog(folder, open_key(pem_folder, durable=False), durable=False)
    for number in range(count):
        log.append(event(number))


def test_two_processes_write_one_chain(tmp_path: Path) -> None:
    key = open_key(tmp_path / "keys", durable=False)
    spawn = multiprocessing.get_context("fork")
    arguments = (tmp_path / "audit", tmp_path / "keys", 40)
    writers = [spawn.Process(target=append_many, args=arguments) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    assert verify_log(tmp_path / "audit", key.public_key()).entries == 80


def test_an_entry_that_cannot_be_written_is_an_error_and_leaves_the_log_whole(
    key: Ed25519PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = write(tmp_path, key)
    log = AuditLog(tmp_path, key)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(audit.os, "fsync", fail)
        with pytest.raises(AuditError, match="make room"):
            log.append(event(9))
    verify_log(tmp_path, key.public_key(), head)
    assert log.append(event(10)).entries == head.entries + 1


@pytest.fixture
def authority() -> Authority:
    return make_authority("lab")


def receipt_for(log: AuditLog, authority: Authority, site: str = "north") -> Receipt:
    report = log.report()
    assert report is not None
    name = authority.certificate.fingerprint(hashes.SHA256()).hex()
    return sign_receipt(authority.key, name, site, report, 1_800_000_000)


def test_a_log_that_grew_holds_what_its_receipts_are_for_and_one_that_was_cut_does_not(
    key: Ed25519PrivateKey, authority: Authority, tmp_path: Path
) -> None:
    log, lengths = AuditLog(tmp_path, key), [0]
    assert log.report() is None
    for number in range(5):
        log.append(event(number))
        keep_receipt(tmp_path, receipt_for(log, authority))
        lengths.append((tmp_path / LOG_FILE).stat().st_size)
    log.append(event(9))
    receipts = read_receipts(tmp_path)
    check_receipts(receipts, "north", key.public_key(), authority.certificate)
    assert verify_log(tmp_path, key.public_key(), receipts=receipts).entries == 6
    whole = (tmp_path / LOG_FILE).read_bytes()
    for length in lengths[:5]:
        (tmp_path / LOG_FILE).write_bytes(whole[:length])
        with pytest.raises(RunError, match="its end was cut off"):
            verify_log(tmp_path, key.public_key(), receipts=receipts)
        for number in range(20, 30):  # and it has grown again
            AuditLog(tmp_path, key).append(event(number))
        with pytest.raises(RunError, match="its end was cut off"):
            verify_log(tmp_path, key.public_key(), receipts=receipts)


def test_only_a_later_receipt_is_added_and_none_is_replaced(
    key: Ed25519PrivateKey, authority: Authority, tmp_path: Path
) -> None:
    log = AuditLog(tmp_path, key)
    made = []
    for number in range(3):
        log.append(event(number))
        made.append(receipt_for(log, authority))
    for receipt in (made[1], made[0], made[1], made[2]):
        keep_receipt(tmp_path, receipt)
    assert read_receipts(tmp_path) == (made[1], made[2])
    with (tmp_path / RECEIPTS_FILE).open("ab") as stream:
        stream.write(b"torn")
    assert read_receipts(tmp_path) == (made[1], made[2])
    log.append(event(3))
    keep_receipt(tmp_path, receipt_for(log, authority))
    assert len(read_receipts(tmp_path)) == 3
    (tmp_path / RECEIPTS_FILE).write_text("{}\n")
    with pytest.raises(RunError, match="no receipt"):
        read_receipts(tmp_path)


def test_a_receipt_that_another_signed_or_that_was_changed_is_refused(
    key: Ed25519PrivateKey, authority: Authority, tmp_path: Path
) -> None:
    log = AuditLog(tmp_path, key)
    log.append(event(1))
    right = receipt_for(log, authority)
    other, stranger = make_authority("lab"), Ed25519PrivateKey.generate()
    name = authority.certificate.fingerprint(hashes.SHA256()).hex()
    invented = sign_receipt(
        authority.key, name, "north", sign_report(stranger, 9, "ab" * 32), right.time
    )
    wrong = [
        replace(right, time=right.time + 1),
        replace(right, site="south"),
        replace(right, signature=""),
        replace(right, signature="zz"),
        replace(right, report=replace(right.report, entries=2)),
        replace(right, report=replace(right.report, mark="ab" * 32)),
        sign_receipt(other.key, name, "north", right.report, right.time),
        sign_receipt(authority.key, name, "south", right.report, right.time),
        invented,  # no server can accuse a site of having cut what it never wrote
    ]
    check_receipts([right], "north", key.public_key(), authority.certificate, only_its_own=True)
    for receipt in wrong:
        with pytest.raises(RunError, match="was not signed"):
            check_receipts([receipt], "north", key.public_key(), authority.certificate)
    foreign = receipt_for(log, other)
    check_receipts([foreign], "north", key.public_key(), authority.certificate)
    with pytest.raises(RunError, match="was not signed"):
        check_receipts(
            [foreign], "north", key.public_key(), authority.certificate, only_its_own=True
        )


def test_a_mark_says_nothing_of_an_entry_to_whoever_can_guess_it(
    key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    log = AuditLog(tmp_path, key)
    head = log.append(event(1))
    report = log.report()
    assert report is not None
    assert report.mark not in (head.hash, hashlib.sha256(bytes.fromhex(head.hash)).hexdigest())
    line = json.loads((tmp_path / LOG_FILE).read_bytes())
    assert report.mark == mark_of(line["signature"])


def test_a_site_s_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        key = open_key(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert open_key(tmp_path).sign(b"x") == key.sign(b"x")
    open_public_key(tmp_path / PUBLIC_FILE).verify(key.sign(b"x"), b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [KEY_FILE, PUBLIC_FILE]


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    open_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(InputError, match="chmod 600"):
        open_key(tmp_path)


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    open_key(tmp_path)
    (tmp_path / KEY_FILE).write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n")
    with pytest.raises(InputError, match="not an Ed25519 key"):
        open_key(tmp_path)
    (tmp_path / PUBLIC_FILE).write_bytes(b"nothing")
    with pytest.raises(InputError, match="not an Ed25519 public key"):
        open_public_key(tmp_path / PUBLIC_FILE)


# As the first version wrote them, with the key below, at noon.
FIRST_LINE = (
    '{"attempt":0,"bytes":0,"hash":"6ab2b2ceb76f6711cf54504d6bccdd8a85f469371f3614e2cbbdcd316'
    '9e24f68","kind":"site_info","number":1,"previous":"0000000000000000000000000000000000000'
    '000000000000000000000000000","round":0,"run":"","sha256":"","signature":"c8dc7d009e5a07c'
    "6ff4beb9c0f660d6b9c2eeda18ac26516aae4b8965ae04647fa8f095df9ab5ca1834a899812622580b846611"
    '0d432d03f9ab933f6e0e02306","study":"abababab","time":"2026-11-28T12:00:00+00:00","verdic'
    't":"allow"}'
)
SECOND_LINE = (
    '{"attempt":0,"bytes":17,"hash":"6848e4fbe9821c223f3a0b4b46ab3110052787a52b5ad4f686b54586'
    '411439f6","kind":"update","number":2,"previous":"6ab2b2ceb76f6711cf54504d6bccdd8a85f4693'
    '71f3614e2cbbdcd3169e24f68","round":2,"run":"","sha256":"cd","signature":"1c6225a20f2fd90'
    "4273e7d0cb9088c60b7286f641f0647ef52206abc047a2c17c18e987a344e99c35f4f3155c2932653249ffc8"
    'd6a140bfb8cc7c2402276fa09","study":"","time":"2026-11-28T12:00:00+00:00","verdict":"deny'
    ': \\u201c\\u00e4\\u201d"}'
)


class Noon(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls(2026, 11, 28, 12, 0, 0, tzinfo=tz)


def test_a_log_is_written_byte_for_byte_as_it_always_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    monkeypatch.setattr(audit, "datetime", Noon)
    log = AuditLog(tmp_path, key)
    log.append(Event(kind="site_info", study="abababab"))
    head = log.append(Event(kind="update", verdict="deny: “ä”", round=2, bytes=17, sha256="cd"))
    assert (tmp_path / LOG_FILE).read_text() == f"{FIRST_LINE}\n{SECOND_LINE}\n"
    assert verify_log(tmp_path, key.public_key()) == head
    assert head.entries == 2
