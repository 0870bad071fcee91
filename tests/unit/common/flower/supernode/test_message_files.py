"""The contract with what a site uses of Flower: a message as a file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Message
from flwr.supercore.inflatable.inflatable_object import get_object_id  # noqa: TID251
from tests.support.models_as_messages import LIMIT, make_message, message_file_of

from wardround.common.errors import ModelError
from wardround.common.flower.messages.envelope import Envelope
from wardround.common.flower.messages.message_file import MessageFile
from wardround.common.flower.messages.message_file_writer import MessageFileWriter, write_message
from wardround.common.flower.messages.message_loading import read_message


def test_a_message_is_the_same_when_it_is_read_from_its_file(
    message: Message, tmp_path: Path
) -> None:
    write_message(tmp_path / "a.message", message)
    read = read_message(tmp_path / "a.message", LIMIT)
    assert read.metadata.group_id == "round 3"
    assert read.metadata.message_id == message.object_id
    assert read.content.config_records["instruction"] == ConfigRecord({"round": 3})
    np.testing.assert_array_equal(read.content.array_records["model"]["w0"].numpy(), np.arange(6))
    assert (tmp_path / "a.message").stat().st_mode & 0o077 == 0
    assert not list(tmp_path.glob("*.part"))


def test_a_large_array_travels_in_pieces_and_is_whole_again(tmp_path: Path) -> None:
    large = np.random.default_rng(0).random(2_000_000)  # 16 MB, more than three pieces
    write_message(tmp_path / "a.message", make_message(Array(large)))
    with MessageFile(tmp_path / "a.message") as message_file:
        sizes = [message_file.length(part) for part in message_file.envelope.object_ids]
    assert max(sizes) < 6 * 2**20
    read = read_message(tmp_path / "a.message", 20_000_000)
    np.testing.assert_array_equal(read.content.array_records["model"]["w0"].numpy(), large)


@pytest.mark.parametrize("kept", [0, 5, 30, 200, -1])
def test_a_file_that_was_cut_off_is_no_message(message: Message, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.message"
    write_message(path, message)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match="not a whole message"):
        read_message(path, LIMIT)


def test_a_message_larger_than_allowed_is_refused_before_it_is_made(
    message: Message, tmp_path: Path
) -> None:
    write_message(tmp_path / "a.message", message)
    with pytest.raises(ModelError, match="are allowed"):
        read_message(tmp_path / "a.message", 100)


def rewrite(path: Path, source: Path, change: Callable[[bytes], bytes]) -> None:
    """Write a parcel whose array object is another one; all names are made to fit."""
    with MessageFile(source) as message_file:
        contents = {one: message_file.content(one) for one in message_file.envelope.object_ids}
        envelope = message_file.envelope
    renamed: dict[str, str] = {}
    for old, content in contents.items():
        if content.startswith(b"Array "):
            content = change(content)
        for before, after in renamed.items():
            content = content.replace(before.encode(), after.encode())
        renamed[old] = get_object_id(content)
        contents[old] = content
    tree = envelope.tree.SerializeToString()
    for before, after in renamed.items():
        tree = tree.replace(before.encode(), after.encode())
    writer = MessageFileWriter(
        path, Envelope(envelope.message, type(envelope.tree).FromString(tree))
    )
    for old, content in contents.items():
        writer.add(renamed[old], content)
    writer.finish()


def test_an_array_that_names_one_piece_a_million_times_is_refused_before_it_is_made(
    tmp_path: Path,
) -> None:
    def repeat(content: bytes) -> bytes:
        head, _, body = content.partition(b"\x00")
        described = json.loads(body)
        described["arraychunk_ids"] = [0] * 1_000_000
        changed = json.dumps(described).encode()
        kind, children, _ = head.decode().split(" ")
        return f"{kind} {children} {len(changed)}".encode() + b"\x00" + changed

    write_message(tmp_path / "a.message", make_message(Array(np.zeros(250_000))))  # 2 MB
    rewrite(tmp_path / "b.message", tmp_path / "a.message", lambda content: content)
    read_message(tmp_path / "b.message", LIMIT)
    rewrite(tmp_path / "c.message", tmp_path / "a.message", repeat)
    with pytest.raises(ModelError, match="2e\\+06 MB"):
        read_message(tmp_path / "c.message", LIMIT)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"Array  5\x00{}{}{",
        lambda content: b"Array",
        lambda content: content.replace(b"arraychunk_ids", b"arraychunk_idz"),
        lambda content: content.replace(b"[0]", b"[7]"),
        lambda content: content.replace(b"Array ", b"Pickle ", 1),
    ],
)
def test_objects_that_make_no_message_are_refused_in_words(
    message: Message, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    write_message(tmp_path / "a.message", message)
    rewrite(tmp_path / "b.message", tmp_path / "a.message", change)
    with pytest.raises(ModelError, match="cannot be read"):
        read_message(tmp_path / "b.message", LIMIT)


@pytest.mark.parametrize(
    ("kind", "group", "plain"),
    [
        ("train", "round 3", True),
        ("train", "Runde 3 für Köln", True),
        ("train\x1b[2J", "round 3", False),
        ("train", "round 3\n2026-01-01 INFO all well", False),
        ("train", "\u202eround 3", False),
        ("train", "r" * 257, False),
    ],
)
def test_kind_and_group_are_short_words_that_a_screen_shows_as_they_are(
    message: Message, tmp_path: Path, kind: str, group: str, plain: bool
) -> None:
    envelope, _ = message_file_of(message, tmp_path)
    envelope.message.metadata.message_type = kind
    envelope.message.metadata.group_id = group
    assert envelope.is_plain == plain
