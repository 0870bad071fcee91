"""The contract with Flower's SuperLink: how large a reply may be, and of how many parts."""
# ruff: noqa: TID251 - a contract with internals names them

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from tests.support.link.site_on_link import Site, instruction_for, only, post

from wardround.common.flower.error_codes import is_transient
from wardround.common.flower.superlink.link_state import LinkState
from wardround.common.flower.superlink.object_store import DiskObjectStore


def test_a_reply_of_far_more_parts_than_its_instruction_is_refused(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    instruction_for(site, run_id)
    instruction = only(site.pull())
    empty = message_from_proto(message_to_proto(instruction))
    empty.metadata.__dict__["_message_id"] = instruction.metadata.message_id
    many = ArrayRecord({f"w{i}": Array(np.full(1, i, dtype=np.float32)) for i in range(400)})
    assert not post(state, Message(RecordDict({"m": many}), reply_to=empty), run_id)


@pytest.mark.parametrize("make", [np.zeros, np.arange], ids=["one piece named often", "many"])
def test_a_reply_far_larger_than_its_instruction_is_refused_and_never_made(
    state: LinkState, join: Callable[[str], Site], run_id: int, make: Callable[..., Any]
) -> None:
    site = join("north")
    site.activate()
    instruction_for(site, run_id)
    instruction = only(site.pull())
    empty = message_from_proto(message_to_proto(instruction))
    empty.metadata.__dict__["_message_id"] = instruction.metadata.message_id
    array = Array(make(10_000_000, dtype=np.int32))  # 40 MB, and the spare is 17
    reply = Message(RecordDict({"m": ArrayRecord({"w": array})}), reply_to=empty)
    assert post(state, reply, run_id)
    asked = {instruction.metadata.message_id}
    for _ in range(2):  # the study may ask again, where the first word was lost
        word = only(state.get_message_res(asked, run_id))
        assert not is_transient(word.error.code)
        assert "larger than its order" in word.error.reason
    state.delete_messages(asked)
    assert state.object_store.get(reply.object_id) is None, "it is kept though nobody will fetch it"


def test_a_reply_whose_objects_make_no_message_is_refused(
    state: LinkState, disk_store: DiskObjectStore, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    instruction_for(site, run_id)
    instruction = only(site.pull())
    site.reply(instruction)
    whole = [one for one in disk_store.store.values() if one.content.startswith(b"RecordDict ")]
    whole[-1].content = whole[-1].content.replace(b"}", b"]")
    word = only(state.get_message_res({instruction.metadata.message_id}, run_id))
    assert not is_transient(word.error.code)


def test_a_reply_as_large_as_its_instruction_is_taken(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    model = RecordDict({"m": ArrayRecord({"w": Array(np.zeros(6_000_000, dtype=np.float32))})})
    post(state, Message(model, site.node_id, "train"), run_id)
    instruction = only(site.pull())
    empty = message_from_proto(message_to_proto(instruction))
    empty.metadata.__dict__["_message_id"] = instruction.metadata.message_id
    post(state, Message(model, reply_to=empty), run_id)
    assert not only(state.get_message_res({instruction.metadata.message_id}, run_id)).has_error()
