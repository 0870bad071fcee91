"""The contract with Flower's SuperLink: its handlers on the wire."""
# ruff: noqa: TID251 - a contract with internals names them

import asyncio
import base64
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Error, Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest, AcquireTaskResponse
from flwr.supercore.date import now
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.primitives.asymmetric import sign_message
from tests.support.link.site_on_link import (
    HEARTBEAT,
    MemberLookup,
    Site,
    instruction_for,
    only,
    start_run,
)

from wardround.common.flower.site_grid import claim_identity
from wardround.common.flower.superlink import http_app as superlink
from wardround.common.flower.superlink.http_app import SuperLink
from wardround.common.flower.superlink.link_state import LinkState
from wardround.common.flower.superlink.long_polling import Wakeups
from wardround.common.flower.superlink.object_store import DiskObjectStore
from wardround.common.flower.superlink.routes import FLEET


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
    site, link = join("north"), SuperLink(state, Wakeups())
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
    site, link = join("north"), SuperLink(state, Wakeups())
    status, _ = asyncio.run(ask(link, "/v1/fleet/activate-node", activation(site), spoil(site)))
    assert status == 401


@pytest.mark.parametrize(
    ("ahead_seconds", "expected"), [(290, 200), (-290, 200), (310, 401), (-310, 401)]
)
def test_a_site_whose_clock_differs_by_less_than_five_minutes_is_taken_either_way(
    state: LinkState, join: Callable[[str], Site], ahead_seconds: int, expected: int
) -> None:
    site, link = join("north"), SuperLink(state, Wakeups())
    headers = headers_of(site, ahead_seconds)
    status, _ = asyncio.run(ask(link, "/v1/fleet/activate-node", activation(site), headers))
    assert status == expected


def test_a_site_can_neither_ask_nor_answer_for_another(
    state: LinkState, join: Callable[[str], Site], run_id: int
) -> None:
    north, south, link = join("north"), join("south"), SuperLink(state, Wakeups())
    north.activate()
    south.activate()
    status, _ = asyncio.run(
        ask(link, "/v1/fleet/pull-messages", question(south), headers_of(north))
    )
    assert status == 401
    instruction_for(south, run_id)
    instruction = only(south.pull())
    empty = message_from_proto(message_to_proto(instruction))
    empty.metadata.__dict__["_message_id"] = instruction.metadata.message_id
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
    site, link = join("north"), SuperLink(state, Wakeups())
    status, body = asyncio.run(
        ask(link, "/v1/fleet/pull-messages", b"\xff\xff\xff", headers_of(site))
    )
    assert status == 400
    assert json.loads(body) == {"detail": "Invalid protobuf payload"}


def test_a_question_for_messages_is_answered_the_moment_there_is_one(
    members: MemberLookup, disk_store: DiskObjectStore
) -> None:
    wakeups = Wakeups()
    state = LinkState(members, disk_store, wakeups.notify)
    site = Site(ec.generate_private_key(ec.SECP384R1()), state)
    members.members[site.public] = "north"
    site.activate()
    number = start_run(state)
    claim_identity(number)

    async def scene() -> tuple[float, bytes]:
        link = SuperLink(state, wakeups)
        path, headers = "/v1/fleet/pull-messages", headers_of(site)
        asked = asyncio.create_task(ask(link, path, question(site), headers))
        await asyncio.sleep(0.1)
        assert not asked.done()
        began = time.monotonic()
        await asyncio.to_thread(instruction_for, site, number)
        _, body = await asked
        return time.monotonic() - began, body

    seconds, body = asyncio.run(scene())
    assert len(PullMessagesResponse.FromString(body).messages_list) == 1
    assert seconds < superlink.HELD_SECONDS / 2


def test_a_question_for_messages_is_not_held_for_ever(
    state: LinkState, join: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superlink, "HELD_SECONDS", 0.05)
    site, link = join("north"), SuperLink(state, Wakeups())
    site.activate()
    status, body = asyncio.run(
        ask(link, "/v1/fleet/pull-messages", question(site), headers_of(site))
    )
    assert (status, body) == (200, b"")


def test_a_study_without_a_task_token_is_nobody(state: LinkState, run_id: int) -> None:
    link = SuperLink(state, Wakeups())
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


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("stopped", ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED),
        ("completed", ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED),
        ("failed", ApiErrorCode.FLEET_GET_RUN_FAILED),  # its process fell: another takes it up
        ("begun anew", ApiErrorCode.FLEET_GET_RUN_FAILED),
        ("unknown", ApiErrorCode.FLEET_GET_RUN_FAILED),
    ],
)
def test_a_site_hears_whether_a_run_has_come_to_its_end_or_only_fell(
    state: LinkState, join: Callable[[str], Site], run_id: int, ending: str, code: ApiErrorCode
) -> None:
    site = join("north")
    asked = run_id + 1 if ending == "unknown" else run_id
    call = FLEET["/v1/fleet/get-run"]
    request = GetRunRequest(node=Node(node_id=site.node_id), run_id=asked)
    (run,) = state.get_run_info(run_ids=[run_id])
    if ending == "begun anew":
        start_run(state)
    elif ending != "unknown":
        assert run.primary_task_id is not None
        if ending == "completed":
            assert state.claim_task(run.primary_task_id)
            assert state.activate_task(run.primary_task_id)
        assert state.finish_task(run.primary_task_id, ending, "")
    with pytest.raises(FlowerError) as refused:
        call.reply(request, state, site.node_id)
    assert refused.value.code == code
