"""The contract with Flower's SuperLink: instructions, replies, and what is removed after them."""
# ruff: noqa: TID251 - a contract with internals names them

from collections.abc import Callable

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from tests.support.link.site_on_link import Site, instruction_for, only, post, start_run

from wardround.common.flower.error_codes import is_transient
from wardround.common.flower.superlink.link_state import LinkState


def test_an_instruction_goes_there_and_its_reply_back_and_nothing_of_either_is_left(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    instruction = instruction_for(site, run_id)
    taken = only(site.pull())
    site.confirm(taken)
    assert state.get_message_res({instruction.metadata.message_id}, run_id) == []
    reply = site.reply(taken)
    reply = only(state.get_message_res({instruction.metadata.message_id}, run_id))
    assert reply.metadata.message_id == reply.metadata.message_id
    state.delete_messages({instruction.metadata.message_id})
    state.object_store.delete(reply.metadata.message_id)
    assert len(state.object_store) == 0
    assert state.num_message_ins() == state.num_message_res() == 0


def test_an_instruction_that_is_half_there_is_not_handed_out(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    message = Message(RecordDict({"a": ConfigRecord({"n": 1})}), site.node_id, "train")
    post(state, message, run_id, parts=1)
    assert site.pull() == []


def test_what_a_site_took_and_never_confirmed_is_handed_out_again(
    join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    instruction = instruction_for(site, run_id)
    assert only(site.pull()).metadata.message_id == instruction.metadata.message_id
    assert only(site.pull()).metadata.message_id == instruction.metadata.message_id
    site.confirm(instruction)
    assert site.pull() == []


def test_what_a_killed_site_had_confirmed_is_reported_lost_as_soon_as_it_is_back(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    instruction = instruction_for(site, run_id)
    site.confirm(only(site.pull()))
    state.deactivate_node(site.node_id)
    site.activate()
    lost = only(state.get_message_res({instruction.metadata.message_id}, run_id))
    assert lost.has_error()
    assert is_transient(lost.error.code)
    assert site.pull() == []


def test_a_reply_that_is_there_counts_though_its_site_has_left(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    instruction = instruction_for(site, run_id)
    site.reply(only(site.pull()))
    state.deactivate_node(site.node_id)
    assert only(state.get_message_res({instruction.metadata.message_id}, run_id)).has_content()


def test_an_instruction_that_nobody_knows_is_reported_and_raises_nothing(
    state: LinkState, run_id: int
) -> None:
    unknown = only(state.get_message_res({"f" * 64}, run_id))
    assert unknown.error.code == ErrorCode.MESSAGE_UNAVAILABLE


def test_an_instruction_for_a_site_that_stays_away_leaves_nothing_behind(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    state.deactivate_node(site.node_id)
    instruction = instruction_for(site, run_id)
    word = only(state.get_message_res({instruction.metadata.message_id}, run_id))
    state.delete_messages({instruction.metadata.message_id})
    state.object_store.delete(word.metadata.message_id)
    assert len(state.object_store) == 0


def test_a_run_of_the_same_name_ends_the_one_before_and_an_unknown_run_has_ended(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    instruction_for(site, run_id)
    other, again = start_run(state, "other"), start_run(state)
    stand = state.get_run_status({run_id, other, again, 77})
    assert [stand[n].status for n in (run_id, other, again, 77)] == [
        "finished",
        "pending",
        "pending",
        "finished",
    ]
    assert len(state.object_store) == 0


def test_the_end_of_a_task_removes_all_that_its_run_left(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    instruction_for(site, run_id)
    task = state.get_run_info(run_ids=[run_id])[0].primary_task_id
    assert task is not None
    assert state.claim_task(task)
    assert state.activate_task(task)
    assert state.finish_task(task, "completed", "")
    assert len(state.object_store) == 0
    assert state.num_message_ins() == 0
