"""The contract with Flower's SuperLink: its state, its handlers on the wire, its grid."""
# ruff: noqa: TID251 - a contract with internals names them

import asyncio
import base64
import http.server
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.common.config import get_fab_config, get_fused_config_from_fab
from flwr.common.constant import ErrorCode
from flwr.common.serde import (
    fab_to_proto,
    message_from_proto,
    message_to_proto,
    user_config_to_proto,
)
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest, AcquireTaskResponse
from flwr.supercore.date import now
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.run import Run
from flwr.superlink.grid import HttpGrid

from wardround.common.errors import RunError
from wardround.common.flower import superlink, surroundings
from wardround.common.flower.bells import HELD_HEADER, Bells
from wardround.common.flower.bundle import bundle, bundle_hash
from wardround.common.flower.errors import is_transient
from wardround.common.flower.link_client import Entrance, LinkLostError, Persistence
from wardround.common.flower.link_state import LinkState
from wardround.common.flower.local import claim_identity
from wardround.common.flower.node_ids import node_id_of
from wardround.common.flower.object_spool import ObjectSpool
from wardround.common.flower.serverapp import LinkGrid
from wardround.common.flower.superlink import SuperLink

HEARTBEAT = 30.0


class Roll:
    def __init__(self) -> None:
        self.members: dict[bytes, str] = {}

    def site_of(self, node_key: bytes) -> str | None:
        return self.members.get(node_key)


@dataclass
class Site:
    """A hospital's end of the wire, as far as the state goes."""

    key: ec.EllipticCurvePrivateKey
    state: LinkState

    @property
    def public(self) -> bytes:
        return public_key_to_bytes(self.key.public_key())

    @property
    def node_id(self) -> int:
        return node_id_of(self.public)

    def activate(self) -> bool:
        assert self.state.get_node_id_by_public_key(self.public) == self.node_id
        return self.state.activate_node(self.node_id, HEARTBEAT)

    def pull(self) -> list[Message]:
        return self.state.get_message_ins(self.node_id, 1)

    def confirm(self, order: Message) -> None:
        self.state.object_store.delete(order.metadata.message_id)

    def answer(self, order: Message, parts: int | None = None) -> Message:
        """Answer with some parts of the answer's objects, or with all."""
        empty = message_from_proto(message_to_proto(order))
        empty.metadata.__dict__["_message_id"] = order.metadata.message_id
        reply = Message(RecordDict({"a": ConfigRecord({"n": 1})}), reply_to=empty)
        post(self.state, reply, order.metadata.run_id, parts)
        return reply


def post(state: LinkState, message: Message, run_id: int, parts: int | None = None) -> bool:
    message.metadata.__dict__["_message_id"] = message.object_id
    session = state.start_session(run_id)
    stored, _ = state.store_message_and_object_tree(message, get_object_tree(message), session)
    for object_id, item in list(get_all_nested_objects(message).items())[:parts]:
        state.store_object(run_id, session, object_id, item.deflate())
    return stored


def start_run(state: LinkState, name: str = "one") -> int:
    from flwr.supercore.auth.typing import AccountInfo
    from flwr.superlink.servicer.control.control_handlers import start_run as start

    request = StartRunRequest(
        fab=fab_to_proto(Fab(bundle_hash(), bundle(), {})),
        override_config=user_config_to_proto({"study": "{}", "run": name}),
    )
    return int(start(request, AccountInfo("<id:none>", "<name:none>"), state, None).run_id)


@pytest.fixture
def roll() -> Roll:
    return Roll()


@pytest.fixture
def spool(tmp_path: Path) -> ObjectSpool:
    return ObjectSpool(tmp_path / "spool")


@pytest.fixture
def state(roll: Roll, spool: ObjectSpool) -> LinkState:
    return LinkState(roll, spool)


@pytest.fixture
def join(roll: Roll, state: LinkState) -> Callable[[str], Site]:
    def joined(name: str) -> Site:
        site = Site(ec.generate_private_key(ec.SECP384R1()), state)
        roll.members[site.public] = name
        return site

    return joined


@pytest.fixture
def run_id(state: LinkState) -> int:
    number = start_run(state)
    claim_identity(number)
    return number


def order_for(site: Site, run_id: int) -> Message:
    array = Array(np.arange(8, dtype=np.float32))
    message = Message(RecordDict({"m": ArrayRecord({"w": array})}), site.node_id, "train")
    assert post(site.state, message, run_id)
    return message


def only(found: list[Message]) -> Message:
    (message,) = found
    return message


# --- Who is there ---------------------------------------------------------------------------------


def test_a_node_is_who_the_roll_says_and_keeps_its_number_over_a_restart(
    roll: Roll, spool: ObjectSpool, state: LinkState, join: Callable[[str], Site]
) -> None:
    site = join("north")
    assert site.activate()
    assert [node.name for node in state.connected_sites()] == ["north"]
    assert LinkState(roll, spool).get_node_id_by_public_key(site.public) == site.node_id
    stranger = public_key_to_bytes(ec.generate_private_key(ec.SECP384R1()).public_key())
    assert state.get_node_id_by_public_key(stranger) is None


def test_a_second_process_of_a_site_is_not_let_in_while_the_first_is_there(
    join: Callable[[str], Site],
) -> None:
    site = join("north")
    assert site.activate()
    assert not site.activate()
    site.state.deactivate_node(site.node_id)
    assert site.activate()


def test_a_site_that_asks_for_post_is_there_without_a_new_activation(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    state.get_node_id_by_public_key(site.public)  # as after a restart of the link
    assert state.get_nodes(run_id) == set()
    state.note_presence(site.node_id)
    assert state.get_nodes(run_id) == {site.node_id}


# --- The post -------------------------------------------------------------------------------------


def test_an_order_goes_there_and_its_answer_back_and_nothing_of_either_is_left(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    order = order_for(site, run_id)
    taken = only(site.pull())
    site.confirm(taken)
    assert state.get_message_res({order.metadata.message_id}, run_id) == []
    reply = site.answer(taken)
    answer = only(state.get_message_res({order.metadata.message_id}, run_id))
    assert answer.metadata.message_id == reply.metadata.message_id
    state.delete_messages({order.metadata.message_id})
    state.object_store.delete(reply.metadata.message_id)
    assert len(state.object_store) == 0
    assert state.num_message_ins() == state.num_message_res() == 0


def test_an_order_that_is_half_there_is_not_handed_out(
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
    order = order_for(site, run_id)
    assert only(site.pull()).metadata.message_id == order.metadata.message_id
    assert only(site.pull()).metadata.message_id == order.metadata.message_id
    site.confirm(order)
    assert site.pull() == []


def test_what_a_killed_site_had_confirmed_is_reported_lost_as_soon_as_it_is_back(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    order = order_for(site, run_id)
    site.confirm(only(site.pull()))
    state.deactivate_node(site.node_id)
    site.activate()
    lost = only(state.get_message_res({order.metadata.message_id}, run_id))
    assert lost.has_error()
    assert is_transient(lost.error.code)
    assert site.pull() == []


def test_an_answer_that_is_there_counts_though_its_site_has_left(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    order = order_for(site, run_id)
    site.answer(only(site.pull()))
    state.deactivate_node(site.node_id)
    assert only(state.get_message_res({order.metadata.message_id}, run_id)).has_content()


def test_an_answer_that_is_half_there_is_not_shown_and_lost_with_its_site(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    order = order_for(site, run_id)
    site.answer(only(site.pull()), parts=1)
    asked = {order.metadata.message_id}
    assert state.get_message_res(asked, run_id) == []
    state.deactivate_node(site.node_id)
    assert only(state.get_message_res(asked, run_id)).error.code == ErrorCode.NODE_UNAVAILABLE


def large_answer(order: Message, models: int = 1) -> Message:
    """An answer to an order with the same large arrays each time, and a word that differs."""
    empty = message_from_proto(message_to_proto(order))
    empty.metadata.__dict__["_message_id"] = order.metadata.message_id
    arrays = [np.random.default_rng(n).random(100_000) for n in range(8)]
    model = ArrayRecord({f"w{n}": Array(array + models) for n, array in enumerate(arrays)})
    word = ConfigRecord({"order": order.metadata.message_id})
    return Message(RecordDict({"model": model, "word": word}), reply_to=empty)


def offer(state: LinkState, message: Message, run_id: int) -> tuple[str, list[str]]:
    message.metadata.__dict__["_message_id"] = message.object_id
    session = state.start_session(run_id)
    stored, missing = state.store_message_and_object_tree(
        message, get_object_tree(message), session
    )
    assert stored
    return session, missing


def test_what_came_of_an_answer_that_was_given_up_is_not_asked_for_again_and_not_kept_for_ever(
    state: LinkState, join: Callable[[str], Site], run_id: int, tmp_path: Path
) -> None:
    site = join("north")
    site.activate()
    order = order_for(site, run_id)
    site.confirm(only(site.pull()))
    first = large_answer(order)
    post(state, first, run_id, parts=10)
    state.deactivate_node(site.node_id)  # it is killed, and comes back
    site.activate()
    asked = {order.metadata.message_id}
    lost = only(state.get_message_res(asked, run_id))
    assert is_transient(lost.error.code)
    state.delete_messages(asked)
    state.object_store.delete(lost.metadata.message_id)
    again = order_for(site, run_id)
    site.confirm(only(site.pull()))
    second = large_answer(again)
    session, missing = offer(state, second, run_id)
    contents = get_all_nested_objects(second)
    large = [one for one in missing if len(contents[one].deflate()) > 100_000]
    assert len(large) == 3  # ten parts have come: five arrays, and what their pieces make
    for one in missing:
        assert state.store_object(run_id, session, one, contents[one].deflate())
    answer = only(state.get_message_res({again.metadata.message_id}, run_id))
    state.delete_messages({again.metadata.message_id})
    for object_id, item in contents.items():
        assert state.get_object(run_id, object_id) == item.deflate()
    state.object_store.delete(answer.metadata.message_id)
    assert len(state.object_store) == 0
    assert list((tmp_path / "spool").iterdir()) == []


def test_half_an_answer_goes_when_another_comes_and_with_its_run(
    state: LinkState, join: Callable[[str], Site], run_id: int, tmp_path: Path
) -> None:
    site = join("north")
    site.activate()
    for models in (1, 2):
        order = order_for(site, run_id)
        site.confirm(only(site.pull()))
        post(state, large_answer(order, models), run_id, parts=10)
        assert len(list((tmp_path / "spool").iterdir())) == 5
        state.delete_messages({order.metadata.message_id})
    state.cleanup_run(run_id)
    assert len(state.object_store) == 0
    assert list((tmp_path / "spool").iterdir()) == []


def test_an_answer_goes_on_after_a_silence_of_any_length(
    state: LinkState, join: Callable[[str], Site], run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = join("north")
    site.activate()
    reply = large_answer(order_for(site, run_id))
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
        own = ConfigRecord({"standing": name})
        post(state, Message(RecordDict({"m": model, "o": own}), site.node_id, "train"), run_id)
    (large,) = (tmp_path / "spool").iterdir()
    assert large.stat().st_size < 810_000


def test_an_order_that_nobody_knows_is_reported_and_raises_nothing(
    state: LinkState, run_id: int
) -> None:
    unknown = only(state.get_message_res({"f" * 64}, run_id))
    assert unknown.error.code == ErrorCode.MESSAGE_UNAVAILABLE


def test_an_order_for_a_site_that_stays_away_leaves_nothing_behind(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    state.deactivate_node(site.node_id)
    order = order_for(site, run_id)
    word = only(state.get_message_res({order.metadata.message_id}, run_id))
    state.delete_messages({order.metadata.message_id})
    state.object_store.delete(word.metadata.message_id)
    assert len(state.object_store) == 0


def test_an_answer_of_far_more_parts_than_its_order_is_refused(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    order_for(site, run_id)
    order = only(site.pull())
    empty = message_from_proto(message_to_proto(order))
    empty.metadata.__dict__["_message_id"] = order.metadata.message_id
    many = ArrayRecord({f"w{i}": Array(np.full(1, i, dtype=np.float32)) for i in range(400)})
    assert not post(state, Message(RecordDict({"m": many}), reply_to=empty), run_id)


@pytest.mark.parametrize("make", [np.zeros, np.arange], ids=["one piece named often", "many"])
def test_an_answer_far_larger_than_its_order_is_refused_and_never_made(
    state: LinkState, join: Callable[[str], Site], run_id: int, make: Callable[..., Any]
) -> None:
    site = join("north")
    site.activate()
    order_for(site, run_id)
    order = only(site.pull())
    empty = message_from_proto(message_to_proto(order))
    empty.metadata.__dict__["_message_id"] = order.metadata.message_id
    array = Array(make(10_000_000, dtype=np.int32))  # 40 MB, and the spare is 17
    reply = Message(RecordDict({"m": ArrayRecord({"w": array})}), reply_to=empty)
    assert post(state, reply, run_id)
    asked = {order.metadata.message_id}
    for _ in range(2):  # the study may ask again, where the first word was lost
        word = only(state.get_message_res(asked, run_id))
        assert not is_transient(word.error.code)
        assert "larger than its order" in word.error.reason
    state.delete_messages(asked)
    assert state.object_store.get(reply.object_id) is None, "it is kept though nobody will fetch it"


def test_an_answer_whose_objects_make_no_message_is_refused(
    state: LinkState, spool: ObjectSpool, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    order_for(site, run_id)
    order = only(site.pull())
    site.answer(order)
    whole = [one for one in spool.store.values() if one.content.startswith(b"RecordDict ")]
    whole[-1].content = whole[-1].content.replace(b"}", b"]")
    word = only(state.get_message_res({order.metadata.message_id}, run_id))
    assert not is_transient(word.error.code)


def test_an_answer_as_large_as_its_order_is_taken(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    model = RecordDict({"m": ArrayRecord({"w": Array(np.zeros(6_000_000, dtype=np.float32))})})
    post(state, Message(model, site.node_id, "train"), run_id)
    order = only(site.pull())
    empty = message_from_proto(message_to_proto(order))
    empty.metadata.__dict__["_message_id"] = order.metadata.message_id
    post(state, Message(model, reply_to=empty), run_id)
    assert not only(state.get_message_res({order.metadata.message_id}, run_id)).has_error()


def test_a_run_of_the_same_name_ends_the_one_before_and_an_unknown_run_has_ended(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    site = join("north")
    site.activate()
    order_for(site, run_id)
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
    order_for(site, run_id)
    task = state.get_run_info(run_ids=[run_id])[0].primary_task_id
    assert task is not None
    assert state.claim_task(task)
    assert state.activate_task(task)
    assert state.finish_task(task, "completed", "")
    assert len(state.object_store) == 0
    assert state.num_message_ins() == 0


def test_large_parts_lie_on_disk_for_their_owner_alone_until_they_are_done_with(
    state: LinkState, spool: ObjectSpool, join: Callable[[str], Site], run_id: int, tmp_path: Path
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
    assert sum(len(entry.content) for entry in spool.store.values()) < 10_000
    for object_id, item in get_all_nested_objects(message).items():
        assert spool.get(object_id) == item.deflate()
    state.delete_messages({message.metadata.message_id})
    assert not large[0].exists()
    ObjectSpool(tmp_path / "spool")
    assert list((tmp_path / "spool").iterdir()) == []


# --- On the wire ----------------------------------------------------------------------------------


def headers_of(site: Site, ahead_seconds: float = 0.0, **changes: str) -> dict[str, str]:
    moment = (now() + timedelta(seconds=ahead_seconds)).isoformat()
    return {
        "flwr-public-key": base64.b64encode(site.public).decode(),
        "flwr-timestamp": moment,
        "flwr-signature": base64.b64encode(sign_message(site.key, moment.encode())).decode(),
    } | changes


async def ask(
    link: SuperLink, path: str, body: bytes, headers: dict[str, str], is_site: bool = True
) -> tuple[int, bytes]:
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "path": path,
        "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
    }
    given = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        message = next(given, None)
        if message is None:
            await asyncio.Event().wait()
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    await (link.answer_site if is_site else link.answer_study)(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


def activation(site: Site) -> bytes:
    return bytes(
        ActivateNodeRequest(
            public_key=site.public, heartbeat_interval=HEARTBEAT
        ).SerializeToString()
    )


def question(site: Site) -> bytes:
    request = PullMessagesRequest(node=Node(node_id=site.node_id))
    return bytes(request.SerializeToString())


def test_a_site_is_activated_over_the_wire_and_an_error_is_a_number(
    state: LinkState, join: Callable[[str], Site]
) -> None:
    site, link = join("north"), SuperLink(state, Bells())
    path = "/v1/fleet/activate-node"
    status, body = asyncio.run(ask(link, path, activation(site), headers_of(site)))
    assert status == 200
    assert ActivateNodeResponse.FromString(body).node_id == site.node_id
    status, body = asyncio.run(ask(link, path, activation(site), headers_of(site)))
    assert status == 412
    assert json.loads(body)["code"] == 2004


@pytest.mark.parametrize(
    "spoil",
    [
        lambda site: headers_of(site, **{"flwr-timestamp": "2020-01-01T00:00:00+00:00"}),
        lambda site: headers_of(site, **{"flwr-timestamp": "2020-01-01T00:00:00"}),
        lambda site: headers_of(site, **{"flwr-signature": base64.b64encode(b"no").decode()}),
        lambda site: headers_of(site, **{"flwr-signature": "%"}),
        lambda site: {},
    ],
)
def test_a_request_that_its_node_did_not_sign_now_is_refused(
    state: LinkState, join: Callable[[str], Site], spoil: Callable[[Site], dict[str, str]]
) -> None:
    site, link = join("north"), SuperLink(state, Bells())
    status, _ = asyncio.run(ask(link, "/v1/fleet/activate-node", activation(site), spoil(site)))
    assert status == 401


@pytest.mark.parametrize(
    ("ahead_seconds", "expected"), [(290, 200), (-290, 200), (310, 401), (-310, 401)]
)
def test_a_site_whose_clock_differs_by_less_than_five_minutes_is_taken_either_way(
    state: LinkState, join: Callable[[str], Site], ahead_seconds: int, expected: int
) -> None:
    site, link = join("north"), SuperLink(state, Bells())
    headers = headers_of(site, ahead_seconds)
    status, _ = asyncio.run(ask(link, "/v1/fleet/activate-node", activation(site), headers))
    assert status == expected


def test_a_site_can_neither_ask_nor_answer_for_another(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    north, south, link = join("north"), join("south"), SuperLink(state, Bells())
    north.activate()
    south.activate()
    status, _ = asyncio.run(
        ask(link, "/v1/fleet/pull-messages", question(south), headers_of(north))
    )
    assert status == 401
    order_for(south, run_id)
    order = only(south.pull())
    empty = message_from_proto(message_to_proto(order))
    empty.metadata.__dict__["_message_id"] = order.metadata.message_id
    forged = Message(Error(0, ""), reply_to=empty)
    forged.metadata.__dict__["_message_id"] = forged.object_id
    request = PushMessagesRequest(
        node=Node(node_id=north.node_id),
        messages_list=[message_to_proto(forged)],
        message_object_trees=[get_object_tree(forged)],
    )
    status, _ = asyncio.run(
        ask(link, "/v1/fleet/push-messages", request.SerializeToString(), headers_of(north))
    )
    assert status == 401
    assert state.num_message_res() == 0


def test_a_body_that_is_no_message_is_refused_in_a_word(
    state: LinkState, join: Callable[[str], Site]
) -> None:
    site, link = join("north"), SuperLink(state, Bells())
    status, body = asyncio.run(
        ask(link, "/v1/fleet/pull-messages", b"\xff\xff\xff", headers_of(site))
    )
    assert status == 400
    assert json.loads(body) == {"detail": "Invalid protobuf payload"}


def test_a_question_for_post_is_answered_the_moment_there_is_some(
    roll: Roll, spool: ObjectSpool
) -> None:
    bells = Bells()
    state = LinkState(roll, spool, bells.ring)
    site = Site(ec.generate_private_key(ec.SECP384R1()), state)
    roll.members[site.public] = "north"
    site.activate()
    number = start_run(state)
    claim_identity(number)

    async def scene() -> tuple[float, bytes]:
        link = SuperLink(state, bells)
        path, headers = "/v1/fleet/pull-messages", headers_of(site)
        asked = asyncio.create_task(ask(link, path, question(site), headers))
        await asyncio.sleep(0.1)
        assert not asked.done()
        began = time.monotonic()
        await asyncio.to_thread(order_for, site, number)
        _, body = await asked
        return time.monotonic() - began, body

    seconds, body = asyncio.run(scene())
    assert len(PullMessagesResponse.FromString(body).messages_list) == 1
    assert seconds < superlink.HELD_SECONDS / 2


def test_a_question_for_post_is_not_held_for_ever(
    state: LinkState, join: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superlink, "HELD_SECONDS", 0.05)
    site, link = join("north"), SuperLink(state, Bells())
    site.activate()
    status, body = asyncio.run(
        ask(link, "/v1/fleet/pull-messages", question(site), headers_of(site))
    )
    assert (status, body) == (200, b"")


def test_a_study_without_a_task_token_is_nobody(state: LinkState, run_id: int) -> None:
    link = SuperLink(state, Bells())
    status, body = asyncio.run(
        ask(
            link,
            "/v1/runtime/acquire-task",
            AcquireTaskRequest(supported_task_types=["flwr-serverapp"]).SerializeToString(),
            {},
            is_site=False,
        )
    )
    assert status == 200
    assert AcquireTaskResponse.FromString(body).task.run_id == run_id
    status, _ = asyncio.run(
        ask(link, "/v1/runtime/get-nodes", b"", {"flwr-task-token": "guess"}, is_site=False)
    )
    assert status == 401


# --- The bundle, and the version ------------------------------------------------------------------


def test_the_bundle_is_the_same_everywhere_holds_no_code_and_flower_takes_it() -> None:
    assert bundle_hash() == GOLDEN_BUNDLE
    with zipfile.ZipFile(BytesIO(bundle())) as archive:
        assert sorted(archive.namelist()) == [".info/CONTENT", "LICENSE", "pyproject.toml"]
    assert get_fab_config(bundle())["tool"]["flwr"]["app"]["config"] == {"study": "", "run": ""}
    run = Run.create_empty(1)
    run.override_config = {"study": "{}"}
    assert get_fused_config_from_fab(bundle(), run) == {"study": "{}", "run": ""}


def test_another_version_of_flower_is_refused_with_both_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    surroundings.require_flower()
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1.42.3")
    with pytest.raises(RunError, match=r"flwr 1\.41.*flwr 1\.42\.3 is installed"):
        surroundings.require_flower()


def test_a_process_that_calls_this_machine_alone_knows_no_proxy() -> None:
    given = {"HTTPS_PROXY": "http://proxy", "http_proxy": "http://proxy", "PATH": "/bin"}
    assert surroundings.without_proxies(given) == {"PATH": "/bin"}


# --- A study's end --------------------------------------------------------------------------------


@contextmanager
def answering(*statuses: int) -> Iterator[tuple[Entrance, list[dict[str, str]]]]:
    """Serve HTTP with these statuses in turn, the last one again and again."""
    left, seen = list(statuses), list[dict[str, str]]()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append({key.lower(): value for key, value in self.headers.items()})
            self.send_response(left.pop(0) if len(left) > 1 else left[0])
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_address[1]}"
    try:
        yield Entrance(address, ("x-secret", "s3"), lambda: True, Path("unused")), seen
    finally:
        server.shutdown()
        server.server_close()


def test_a_study_shows_the_links_secret_and_its_own_token_and_asks_again_when_it_is_busy() -> None:
    with answering(503, 503, 200) as (entrance, seen):
        assert LinkGrid(entrance, "token").site_names() == {}
    assert len(seen) == 3
    assert (seen[-1]["x-secret"], seen[-1]["flwr-task-token"]) == ("s3", "token")


@pytest.mark.parametrize(
    ("status", "error"), [(401, LinkLostError), (403, LinkLostError), (500, RunError)]
)
def test_a_link_that_knows_nothing_of_the_run_is_lost_and_one_that_fails_is_said(
    status: int, error: type[Exception]
) -> None:
    with answering(status) as (entrance, _), pytest.raises(error):
        LinkGrid(entrance, "token").site_names()


def test_a_link_that_is_gone_is_lost_at_once_and_one_that_stays_silent_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with answering(200) as (entrance, _):
        pass
    gone = Entrance(entrance.host_and_port, entrance.header, lambda: False, Path("unused"))
    with pytest.raises(LinkLostError):
        LinkGrid(gone, "token").site_names()
    monkeypatch.setattr("wardround.common.flower.link_client._PATIENCE_SECONDS", 0.3)
    with pytest.raises(RunError, match="does not answer"):
        LinkGrid(entrance, "token").site_names()


def test_flowers_grid_retries_through_an_object_with_invoke_alone() -> None:
    grid = HttpGrid("127.0.0.1:1", insecure=True, token="t")
    assert callable(grid._retry_invoker.invoke)
    assert callable(Persistence(Entrance("", ("", ""), lambda: False, Path())).invoke)
    assert grid._client is None


GOLDEN_BUNDLE = "bc8230f2b2c6ab8ac0a0c71fbed9c5f9cfa1f424b4658571f58869f89e00b7c7"


def test_who_asks_for_the_same_answers_again_may_be_kept_waiting_and_who_looks_is_not() -> None:
    with answering(200) as (entrance, seen):
        grid = LinkGrid(entrance, "token")
        grid.set_run(Run.create_empty(1))
        for ids in (["a"], ["a"], ["b"], ["a"]):
            assert list(grid.pull_messages(ids)) == []
    assert [HELD_HEADER in headers for headers in seen] == [False, True, False, False]
