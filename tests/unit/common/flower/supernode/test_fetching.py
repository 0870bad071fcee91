"""The contract with what a site uses of Flower: how an instruction is fetched."""

import threading
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, Message
from tests.support.link.fleet_in_memory import Fleet
from tests.support.models_as_messages import LIMIT, make_message, message_file_of

from wardround.common.flower.messages.message_loading import read_message
from wardround.common.flower.messages.prefetch import AT_ONCE
from wardround.common.flower.supernode.fleet_client import FleetError
from wardround.common.flower.supernode.supernode import SuperNode
from wardround.common.flower.supernode.transfers import LostError, TooLargeError


def test_an_instruction_is_fetched_whole_and_confirmed(
    fleet: Fleet, node: SuperNode, message: Message, tmp_path: Path
) -> None:
    envelope, fleet.objects = message_file_of(message, tmp_path)
    fleet.refusals = [FleetError("no-connection"), FleetError("server-busy")]
    node.transfers.fetch(envelope, tmp_path / "instruction.message", LIMIT)
    assert fleet.called[-1] == "ConfirmMessageReceived"
    read = read_message(tmp_path / "instruction.message", LIMIT)
    assert read.content.config_records["instruction"]["round"] == 3


def test_an_instruction_that_is_too_large_is_left_with_the_server(
    fleet: Fleet, node: SuperNode, tmp_path: Path
) -> None:
    large = make_message(Array(np.random.default_rng(0).random(3_000_000)))  # 24 MB, five pieces
    envelope, fleet.objects = message_file_of(large, tmp_path)
    with pytest.raises(TooLargeError):
        node.transfers.fetch(envelope, tmp_path / "instruction.message", 6_000_000)
    assert fleet.called.count("PullObject") <= 3 + AT_ONCE  # a small one comes first
    assert not (tmp_path / "instruction.message").exists()
    assert not (tmp_path / "instruction.part").exists()


def test_an_object_that_the_server_has_lost_ends_the_fetching(
    fleet: Fleet, node: SuperNode, message: Message, tmp_path: Path
) -> None:
    envelope, fleet.objects = message_file_of(message, tmp_path)
    fleet.objects.popitem()
    with pytest.raises(LostError):
        node.transfers.fetch(envelope, tmp_path / "instruction.message", LIMIT)


LARGE = [Array(np.random.default_rng(n).random(100_000)) for n in range(8)]  # 0.8 MB each


def test_an_instruction_that_was_interrupted_is_fetched_on_from_there_by_the_next_process(
    fleet: Fleet, node: SuperNode, tmp_path: Path
) -> None:
    envelope, contents = message_file_of(make_message(*LARGE), tmp_path)
    half = envelope.object_ids[: len(contents) // 2]
    fleet.objects = {one: contents[one] for one in half}  # then the server is gone
    with pytest.raises(LostError):
        node.transfers.fetch(envelope, tmp_path / "instruction.message", LIMIT)
    again, fleet.objects = message_file_of(make_message(*LARGE), tmp_path)  # under another name
    assert again.message_id != envelope.message_id
    fleet.called.clear()
    other = SuperNode(fleet, tmp_path, threading.Event(), lambda _: None)  # type: ignore[arg-type]
    other.transfers.fetch(again, tmp_path / "instruction.message", LIMIT)
    asked = fleet.called.count("PullObject")
    assert asked == len([one for one in again.object_ids if one not in half])
    assert asked < len(contents) * 0.6
    read = read_message(tmp_path / "instruction.message", LIMIT)
    for n, array in enumerate(LARGE):
        assert read.content.array_records["model"][f"w{n}"].data == array.data


@pytest.mark.parametrize("torn", [3, 25, 400, 1_000_000, -1, -500_000])
def test_what_a_power_cut_tore_of_an_interrupted_instruction_is_fetched_again(
    fleet: Fleet, node: SuperNode, tmp_path: Path, torn: int
) -> None:
    envelope, contents = message_file_of(make_message(*LARGE), tmp_path)
    fleet.objects = {one: contents[one] for one in envelope.object_ids[:14]}
    with pytest.raises(LostError):
        node.transfers.fetch(envelope, tmp_path / "instruction.message", LIMIT)
    part = tmp_path / "instruction.part"
    written = bytearray(part.read_bytes())
    written[torn] ^= 1
    part.write_bytes(written)
    fleet.objects = contents
    node.transfers.fetch(envelope, tmp_path / "instruction.message", LIMIT)
    read = read_message(tmp_path / "instruction.message", LIMIT)
    for n, array in enumerate(LARGE):
        assert read.content.array_records["model"][f"w{n}"].data == array.data


def test_what_is_left_of_another_model_takes_no_room_in_the_next_instruction(
    fleet: Fleet, node: SuperNode, message: Message, tmp_path: Path
) -> None:
    envelope, contents = message_file_of(make_message(*LARGE), tmp_path)
    fleet.objects = {one: contents[one] for one in envelope.object_ids[:-1]}
    with pytest.raises(LostError):
        node.transfers.fetch(envelope, tmp_path / "instruction.message", LIMIT)
    assert (tmp_path / "instruction.part").stat().st_size > 5_000_000
    small, fleet.objects = message_file_of(message, tmp_path)
    node.transfers.fetch(small, tmp_path / "instruction.message", LIMIT)
    assert (tmp_path / "instruction.message").stat().st_size < 10_000
    assert not (tmp_path / "instruction.part").exists()


def test_what_was_fetched_before_counts_for_the_largest_message(
    fleet: Fleet, node: SuperNode, tmp_path: Path
) -> None:
    envelope, contents = message_file_of(make_message(*LARGE), tmp_path)
    fleet.objects = {one: contents[one] for one in envelope.object_ids[:-1]}
    with pytest.raises(LostError):
        node.transfers.fetch(envelope, tmp_path / "instruction.message", LIMIT)
    fleet.objects, fleet.called = contents, []
    with pytest.raises(TooLargeError):
        node.transfers.fetch(envelope, tmp_path / "instruction.message", 1_000_000)
    assert "PullObject" not in fleet.called
    assert not (tmp_path / "instruction.part").exists()
