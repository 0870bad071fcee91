"""The contract with what a site uses of Flower: how a reply is sent."""

from pathlib import Path

import pytest
from flwr.app import Message
from tests.support.link.fleet_in_memory import Fleet
from tests.support.models_as_messages import message_file_of

from wardround.common.flower.error_codes import is_transient
from wardround.common.flower.messages.prefetch import AT_ONCE
from wardround.common.flower.supernode.supernode import SuperNode
from wardround.common.flower.supernode.transfers import LostError


def test_a_reply_that_was_half_sent_is_sent_on_from_there(
    fleet: Fleet, node: SuperNode, message: Message, tmp_path: Path
) -> None:
    envelope, contents = message_file_of(message, tmp_path)
    fleet.wanted = [set(envelope.object_ids)] * 2
    fleet.room = [1]  # then the session has ended
    node.transfers.push(tmp_path / "source.message")
    assert fleet.taken == contents
    assert fleet.called.count("PushMessages") == 2
    refused = fleet.called.count("PushObject") - len(contents)
    assert 1 <= refused <= 1 + AT_ONCE  # those that were under way


def test_a_reply_that_the_server_never_keeps_is_given_up(
    fleet: Fleet, node: SuperNode, message: Message, tmp_path: Path
) -> None:
    envelope, _ = message_file_of(message, tmp_path)
    fleet.wanted = [set(envelope.object_ids)] * 9
    fleet.room = [0] * 9
    with pytest.raises(LostError):
        node.transfers.push(tmp_path / "source.message")


def test_an_excuse_is_an_error_that_means_send_it_again(
    fleet: Fleet, node: SuperNode, message: Message, tmp_path: Path
) -> None:
    envelope, _ = message_file_of(message, tmp_path)
    node.transfers.excuse(envelope)
    node.transfers.fail(envelope, "internal")
    excuse, failure = fleet.pushed
    assert is_transient(excuse.error.code)  # type: ignore[attr-defined]
    assert not is_transient(failure.error.code)  # type: ignore[attr-defined]
    assert excuse.metadata.reply_to_message_id == envelope.message_id  # type: ignore[attr-defined]
