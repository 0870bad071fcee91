"""A study's messages to its link and back, before a link in memory."""
# ruff: noqa: TID251, N802 - a contract with Flower's client names what it names

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PushAppMessagesRequest, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

from wardround.common.flower.error_codes import is_transient
from wardround.common.flower.messages.prefetch import AT_ONCE
from wardround.common.flower.serverapp.transfers import Transfers
from wardround.common.flower.site_grid import claim_identity

PIECES = 12


class Link:
    """The part of the Runtime API that moves objects; it counts what is asked."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.pulled: list[str] = []
        self.confirmed: list[str] = []
        self.keeps = True
        self.lock = threading.Lock()

    def PushMessages(self, request: PushAppMessagesRequest) -> PushAppMessagesResponse:
        self.trees = list(request.message_object_trees)
        wanted = {one for tree in self.trees for one in ids_of(tree)} - self.objects.keys()
        ids = [tree.object_id for tree in self.trees]
        return PushAppMessagesResponse(message_ids=ids, objects_to_push=sorted(wanted))

    def PushObject(self, request: PushObjectRequest) -> PushObjectResponse:
        assert request.object_id not in self.objects
        self.objects[request.object_id] = request.object_content
        return PushObjectResponse(stored=self.keeps)

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:
        with self.lock:
            self.pulled.append(request.object_id)
        content = self.objects.get(request.object_id)
        return PullObjectResponse(
            object_found=content is not None,
            object_available=content is not None,
            object_content=content or b"",
        )

    def ConfirmMessageReceived(self, request: ConfirmMessageReceivedRequest) -> None:
        self.confirmed.append(request.message_object_id)


def ids_of(tree: ObjectTree) -> Iterator[str]:
    yield tree.object_id
    for child in tree.children:
        yield from ids_of(child)


def make_messages(*nodes: int, zeros: int = 0) -> list[Message]:
    claim_identity(7)
    generator = np.random.default_rng(0)
    arrays = {f"w{n}": Array(generator.random(1_000)) for n in range(PIECES)}
    arrays |= {f"z{n}": Array(np.zeros(1_000)) for n in range(zeros)}
    model, made = ArrayRecord(arrays), list[Message]()
    for node in nodes:
        own = ConfigRecord({"progress": node})
        message = Message(RecordDict({"model": model, "own": own}), node, "train")
        message.metadata.__dict__["_message_id"] = message.object_id
        made.append(message)
    return made


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def post(link: Link) -> Transfers:
    return Transfers(link, Node(node_id=1), 7)  # type: ignore[arg-type] # what it uses of it


def test_what_two_sites_are_sent_is_pushed_once_and_comes_back_as_it_was(
    link: Link, post: Transfers
) -> None:
    north, south = make_messages(11, 12, zeros=3)
    with no_object_id_recompute():
        ids = post.push([north, south])
    assert ids == [north.object_id, south.object_id]
    assert link.objects == {
        one: item.deflate()
        for message in (north, south)
        for one, item in get_all_nested_objects(message).items()
    }
    for message in (north, south):
        read = post.pull(message_to_proto(message), get_object_tree(message))
        assert read.metadata.message_id == message.object_id
        assert read.content.array_records["model"] == message.content.array_records["model"]
        assert read.content.config_records["own"] == message.content.config_records["own"]
    assert link.confirmed == ids


def test_an_object_is_written_when_it_is_its_turn_and_not_before(
    link: Link, post: Transfers, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    (message,) = make_messages(11)

    def note(request: PushObjectRequest) -> PushObjectResponse:
        ahead.append(len(written) - len(link.objects))
        return Link.PushObject(link, request)

    def deflate(item: Array) -> bytes:
        written.append(1)
        return whole(item)

    ahead, whole = list[int](), Array.deflate
    with no_object_id_recompute():
        get_object_tree(message)
        monkeypatch.setattr(link, "PushObject", note)
        monkeypatch.setattr(Array, "deflate", deflate)
        post.push([message])
    assert len(written) >= PIECES
    assert max(ahead) <= 1 + AT_ONCE


def test_an_object_that_the_link_does_not_keep_is_said(link: Link, post: Transfers) -> None:
    link.keeps = False
    with no_object_id_recompute(), pytest.raises(ObjectPushError):
        post.push(make_messages(11))


def test_a_reply_of_which_the_link_has_lost_a_part_is_asked_for_again(
    link: Link, post: Transfers
) -> None:
    (message,) = make_messages(11)
    link.objects = contents_of(message)
    link.objects.popitem()
    read = post.pull(message_to_proto(message), get_object_tree(message))
    assert read.has_error()
    assert is_transient(read.error.code)
    assert link.confirmed == [message.object_id]


@pytest.mark.parametrize("spoilt", [b"Array", b"Pickle  2\x00{}", b"Array  2\x00{}", b"\xff\x00"])
def test_a_reply_that_cannot_be_read_is_an_error_of_its_site_and_ends_no_study(
    link: Link, post: Transfers, spoilt: bytes
) -> None:
    (message,) = make_messages(11)
    link.objects = contents_of(message)
    array = message.content.array_records["model"]["w3"]
    link.objects[array.object_id] = spoilt
    read = post.pull(message_to_proto(message), get_object_tree(message))
    assert read.has_error()
    assert not is_transient(read.error.code)


def contents_of(message: Message) -> dict[str, bytes]:
    items: dict[str, InflatableObject] = get_all_nested_objects(message)
    return {one: item.deflate() for one, item in items.items()}
