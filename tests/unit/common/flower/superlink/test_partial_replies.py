"""The contract with Flower's SuperLink: replies that came in part, and large parts on disk."""
# ruff: noqa: TID251 - a contract with internals names them

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from tests.support.link.site_on_link import Site, instruction_for, only, post

from wardround.common.flower.error_codes import is_transient
from wardround.common.flower.superlink.link_state import LinkState
from wardround.common.flower.superlink.object_store import DiskObjectStore


def test_a_reply_that_is_half_there_is_not_shown_and_lost_with_its_site(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    instruction = instruction_for(site, run_id)
    site.reply(only(site.pull()), parts=1)
    asked = {instruction.metadata.message_id}
    assert state.get_message_res(asked, run_id) == []
    state.deactivate_node(site.node_id)
    assert only(state.get_message_res(asked, run_id)).error.code == ErrorCode.NODE_UNAVAILABLE


def large_reply(instruction: Message, models: int = 1) -> Message:
    """An answer to an order with the same large arrays each time, and a word that differs."""
    empty = message_from_proto(message_to_proto(instruction))
    empty.metadata.__dict__["_message_id"] = instruction.metadata.message_id
    arrays = [np.random.default_rng(n).random(100_000) for n in range(8)]
    model = ArrayRecord({f"w{n}": Array(array + models) for n, array in enumerate(arrays)})
    word = ConfigRecord({"order": instruction.metadata.message_id})
    return Message(RecordDict({"model": model, "word": word}), reply_to=empty)


def offer(state: LinkState, message: Message, run_id: int) -> tuple[str, list[str]]:
    message.metadata.__dict__["_message_id"] = message.object_id
    session = state.start_session(run_id)
    stored, missing = state.store_message_and_object_tree(
        message, get_object_tree(message), session
    )
    assert stored
    return session, missing


def test_what_came_of_a_reply_that_was_given_up_is_not_asked_for_again_and_not_kept_for_ever(
    state: LinkState, join: Callable[[str], Site], run_id: int, tmp_path: Path
) -> None:
    site = join("north")
    site.activate()
    instruction = instruction_for(site, run_id)
    site.confirm(only(site.pull()))
    first = large_reply(instruction)
    post(state, first, run_id, parts=10)
    state.deactivate_node(site.node_id)  # it is killed, and comes back
    site.activate()
    asked = {instruction.metadata.message_id}
    lost = only(state.get_message_res(asked, run_id))
    assert is_transient(lost.error.code)
    state.delete_messages(asked)
    state.object_store.delete(lost.metadata.message_id)
    again = instruction_for(site, run_id)
    site.confirm(only(site.pull()))
    second = large_reply(again)
    session, missing = offer(state, second, run_id)
    contents = get_all_nested_objects(second)
    large = [one for one in missing if len(contents[one].deflate()) > 100_000]
    assert len(large) == 3  # ten parts have come: five arrays, and what their pieces make
    for one in missing:
        assert state.store_object(run_id, session, one, contents[one].deflate())
    reply = only(state.get_message_res({again.metadata.message_id}, run_id))
    state.delete_messages({again.metadata.message_id})
    for object_id, item in contents.items():
        assert state.get_object(run_id, object_id) == item.deflate()
    state.object_store.delete(reply.metadata.message_id)
    assert len(state.object_store) == 0
    assert list((tmp_path / "spool").iterdir()) == []


def test_half_a_reply_goes_when_another_comes_and_with_its_run(
    state: LinkState, join: Callable[[str], Site], run_id: int, tmp_path: Path
) -> None:
    site = join("north")
    site.activate()
    for models in (1, 2):
        instruction = instruction_for(site, run_id)
        site.confirm(only(site.pull()))
        post(state, large_reply(instruction, models), run_id, parts=10)
        assert len(list((tmp_path / "spool").iterdir())) == 5
        state.delete_messages({instruction.metadata.message_id})
    state.cleanup_run(run_id)
    assert len(state.object_store) == 0
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_reply_goes_on_after_a_silence_of_any_length(
    state: LinkState, join: Callable[[str], Site], run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = join("north")
    site.activate()
    reply = large_reply(instruction_for(site, run_id))
    session, missing = offer(state, reply, run_id)
    contents = get_all_nested_objects(reply)
    for one in missing:
        assert state.store_object(run_id, session, one, contents[one].deflate())
        later = now() + timedelta(days=len(missing))
        monkeypatch.setattr("flwr.supercore.corestate.in_memory_corestate.now", lambda at=later: at)


def test_what_two_sites_are_sent_lies_with_the_link_once(
    state: LinkState, join: Callable[[str], Site], run_id: int, tmp_path: Path
) -> None:
    model = ArrayRecord({"w": Array(np.random.default_rng(0).random(100_000))})
    for name in ("north", "south"):
        site = join(name)
        site.activate()
        own = ConfigRecord({"progress": name})
        post(state, Message(RecordDict({"m": model, "o": own}), site.node_id, "train"), run_id)
    (large,) = (tmp_path / "spool").iterdir()
    assert large.stat().st_size < 810_000


def test_large_parts_lie_on_disk_for_their_owner_alone_until_they_are_done_with(
    state: LinkState,
    disk_store: DiskObjectStore,
    join: Callable[[str], Site],
    run_id: int,
    tmp_path: Path,
) -> None:
    site = join("north")
    site.activate()
    (tmp_path / "spool" / "left").write_bytes(b"by a process that was killed")
    array = Array(np.arange(40_000, dtype=np.float32))
    message = Message(RecordDict({"m": ArrayRecord({"w": array})}), site.node_id, "train")
    post(state, message, run_id)
    large = [path for path in (tmp_path / "spool").iterdir() if path.name != "left"]
    assert len(large) == 1
    assert large[0].stat().st_mode & 0o077 == 0
    assert sum(len(entry.content) for entry in disk_store.store.values()) < 10_000
    for object_id, item in get_all_nested_objects(message).items():
        assert disk_store.get(object_id) == item.deflate()
    state.delete_messages({message.metadata.message_id})
    assert not large[0].exists()
    DiskObjectStore(tmp_path / "spool")
    assert list((tmp_path / "spool").iterdir()) == []
