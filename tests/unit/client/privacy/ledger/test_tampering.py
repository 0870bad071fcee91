"""What is found of a privacy ledger that was changed, torn, put back or deleted."""

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.ledger_folder import CAPS, assign, charge, ledger_path

from wardround.client.privacy.ledger.entries import LedgerError, Released, entry_after
from wardround.client.privacy.ledger.file import check_held, read_chain, read_ledger
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.common.files.json_lines import ChainHead

NOBODY = ""  # the server of a site that has joined none


def is_found(mutated: bytes, entries: int, head: str) -> bool:
    """Whether a reader who knows the counter finds a change, or nothing was lost by it."""
    try:
        chain = read_chain(mutated)
        check_held(chain.entries, entries, head)
    except LedgerError:
        return True
    return bool(chain.torn or chain.unended)


def flip(content: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(content))
    other = bytes([content[place] ^ generator.randrange(1, 256)])
    return content[:place] + other + content[place + 1 :]


def delete_line(content: bytes, generator: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    lines.pop(generator.randrange(len(lines)))
    return b"".join(lines)


def move_line(content: bytes, generator: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    a, b = generator.sample(range(len(lines)), 2)
    lines.insert(b, lines.pop(a))
    return b"".join(lines)


def truncate(content: bytes, generator: random.Random) -> bytes:
    return content[: generator.randrange(len(content))]


def delete_bytes(content: bytes, generator: random.Random) -> bytes:
    begin = generator.randrange(len(content))
    return content[:begin] + content[begin + generator.randint(1, 700) :]


def insert_byte(content: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(content) + 1)
    return content[:place] + bytes([generator.randrange(256)]) + content[place:]


MUTATIONS = (flip, delete_line, move_line, truncate, delete_bytes, insert_byte)


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_a_thousand_mutations_are_all_found(
    written: Path, mutate: Callable[[bytes, random.Random], bytes]
) -> None:
    content = ledger_path(written).read_bytes()
    chain = read_chain(content)
    generator = random.Random(mutate.__name__)
    mutated = [mutate(content, generator) for _ in range(1000)]
    missed = [
        data
        for data in mutated
        if data != content and not is_found(data, len(chain.entries), chain.entries[-1].hash)
    ]
    assert not missed


def test_every_byte_of_the_last_line_is_watched(written: Path) -> None:
    """A changed end must not pass for a torn one, or a charge would be cut off."""
    lines = ledger_path(written).read_bytes().splitlines(keepends=True)
    content = b"".join(lines[:3])  # the last is a reservation
    begin = len(content) - len(lines[2])
    for place in range(begin, len(content)):
        for bit in range(8):
            changed = bytes([content[place] ^ (1 << bit)])
            mutated = content[:place] + changed + content[place + 1 :]
            try:
                chain = read_chain(mutated)
            except LedgerError:
                continue
            assert len(chain.entries) == 3, "a charge was lost"


@pytest.mark.parametrize("mutate", [flip, delete_line, move_line])
def test_a_site_with_an_edited_ledger_does_not_train(
    written: Path, mutate: Callable[[bytes, random.Random], bytes]
) -> None:
    path = ledger_path(written)
    whole = path.read_bytes()
    head, _, last = whole[:-1].rpartition(b"\n")
    edited = mutate(head + b"\n", random.Random(1)) + last + b"\n"
    path.write_bytes(edited)
    with pytest.raises(LedgerError, match="is not what was written there"):
        PrivacyLedger.open(written)
    assert path.read_bytes() == edited, "what was edited is left as it is"


def test_an_entry_that_was_written_anew_with_its_own_hash_breaks_the_chain(written: Path) -> None:
    lines = ledger_path(written).read_bytes().splitlines(keepends=True)
    entries = read_chain(b"".join(lines)).entries
    cheaper = replace(entries[2].fact, steps=1)  # type: ignore[type-var]
    lines[2] = entry_after(entries[1], cheaper).line() + b"\n"
    assert read_chain(b"".join(lines[:3])).entries[2].fact == cheaper
    with pytest.raises(LedgerError, match="line 4"):
        read_chain(b"".join(lines))


def test_an_entry_of_a_newer_version_says_so(written: Path) -> None:
    content = ledger_path(written).read_bytes()
    last = read_chain(content).entries[-1]
    line = entry_after(last, Released(2, "1" * 64)).line()
    body = json.loads(line)
    del body["hash"]
    body["kind"] = "shared"
    ours = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    body["hash"] = hashlib.sha256(ours).hexdigest()
    line = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(LedgerError, match="update wardround"):
        read_chain(content + line + b"\n")


def test_a_torn_last_line_is_cut_off_and_noted(written: Path) -> None:
    path = ledger_path(written)
    whole = path.read_bytes()
    begin = whole[:-1].rindex(b"\n") + 1
    for cut in range(begin + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with PrivacyLedger.open(written, durable=False) as ledger:
            assert ledger.counter == 20  # 19 are left, and the note
        noted = json.loads(path.read_bytes().splitlines()[-1])
        assert noted["kind"] == "repaired"
        assert noted["fact"]["dropped_bytes"] == cut - begin
        assert path.read_bytes().startswith(whole[:begin])


@pytest.mark.parametrize("filler", [b"", b"\0", b"\0" * 500])
def test_a_last_line_without_its_end_is_kept(written: Path, filler: bytes) -> None:
    path = ledger_path(written)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + filler)
    with PrivacyLedger.open(written, durable=False) as ledger:
        assert ledger.counter == 21
    assert path.read_bytes().startswith(whole)
    assert len(read_ledger(written).entries) == 21


def test_a_ledger_torn_in_its_first_line_begins_anew(written: Path) -> None:
    path = ledger_path(written)
    path.write_bytes(path.read_bytes()[:30])
    with PrivacyLedger.open(written, durable=False) as ledger:
        assert ledger.counter == 1
        with pytest.raises(LedgerError, match=r"0 charges for this server .* has seen 6"):
            ledger.check_head(NOBODY, ChainHead(6))


def test_a_ledger_put_back_from_a_copy_is_refused_by_the_counter(
    written: Path, cheap: None
) -> None:
    path = ledger_path(written)
    copy = path.read_bytes()
    with PrivacyLedger.open(written, durable=False) as ledger:
        ledger.check_head(NOBODY, ChainHead())
        ledger.check_head(NOBODY, ledger.head(NOBODY))
        charged = len(ledger.marks(NOBODY))
        for number in (7, 8):
            ledger.reserve(charge(assign(ledger), number), CAPS)
        head = ledger.head(NOBODY)
        assert head.entries == charged + 2
    path.write_bytes(copy)
    with PrivacyLedger.open(written, durable=False) as ledger:
        with pytest.raises(LedgerError, match=f"{charged} charges .* has seen {charged + 2}"):
            ledger.check_head(NOBODY, head)
        # Trained elsewhere, it grows past the counter; the hash still tells.
        for number in (9, 10, 11):
            ledger.reserve(charge(assign(ledger), number), CAPS)
        ledger.check_head(NOBODY, ChainHead(head.entries))
        with pytest.raises(LedgerError, match="another ledger"):
            ledger.check_head(NOBODY, head)


def test_a_deleted_ledger_is_refused_by_the_counter(written: Path) -> None:
    ledger_path(written).unlink()
    with (
        PrivacyLedger.open(written, durable=False) as ledger,
        pytest.raises(LedgerError, match=r"0 charges for this server .* has seen 6"),
    ):
        ledger.check_head(NOBODY, ChainHead(6))
