"""A hospital's end of the link, and the post that is sent to it and by it."""
# ruff: noqa: TID251 - a contract with internals names them

from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.serde import (
    fab_to_proto,
    message_from_proto,
    message_to_proto,
    user_config_to_proto,
)
from flwr.proto.control_pb2 import StartRunRequest
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from wardround.common.flower.app_bundle import bundle, bundle_hash
from wardround.common.flower.superlink.link_state import LinkState
from wardround.common.flower.superlink.node_ids import node_id_of

HEARTBEAT = 30.0


class MemberLookup:
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

    def confirm(self, instruction: Message) -> None:
        self.state.object_store.delete(instruction.metadata.message_id)

    def reply(self, instruction: Message, parts: int | None = None) -> Message:
        """Answer with some parts of the answer's objects, or with all."""
        empty = message_from_proto(message_to_proto(instruction))
        empty.metadata.__dict__["_message_id"] = instruction.metadata.message_id
        reply = Message(RecordDict({"a": ConfigRecord({"n": 1})}), reply_to=empty)
        post(self.state, reply, instruction.metadata.run_id, parts)
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


def instruction_for(site: Site, run_id: int) -> Message:
    array = Array(np.arange(8, dtype=np.float32))
    message = Message(RecordDict({"m": ArrayRecord({"w": array})}), site.node_id, "train")
    assert post(site.state, message, run_id)
    return message


def only(found: list[Message]) -> Message:
    (message,) = found
    return message
