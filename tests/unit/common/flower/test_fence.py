"""The contract with Flower's internals: an upgrade that breaks it fails here, and says where."""

import os
import subprocess
import sys

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

from wardround.common.flower.messages.content import from_bytes, to_bytes
from wardround.common.flower.site_grid import (
    SUPERLINK_NODE_ID,
    claim_identity,
    empty_run,
    rebuild,
    stamp,
)

SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@pytest.fixture
def content() -> RecordDict:
    array = Array(np.arange(3, dtype=np.float32))
    return RecordDict(
        {"instruction": ConfigRecord({"round": 3}), "model": ArrayRecord({"w": array})}
    )


@pytest.fixture
def message(content: RecordDict) -> Message:
    claim_identity(7)
    return Message(content, 11, "train", group_id="round-3")


def test_a_claimed_identity_lets_a_message_be_made_as_the_server_of_a_run(message: Message) -> None:
    assert message.metadata.run_id == 7
    assert message.metadata.src_node_id == SUPERLINK_NODE_ID
    assert message.metadata.dst_node_id == 11
    assert message.metadata.group_id == "round-3"


def test_a_content_that_was_written_is_the_same_when_it_is_read(content: RecordDict) -> None:
    content["facts"] = MetricRecord({"whole": 2, "real": 2.0, "several": [0.5, 1.0]})
    content["header"] = ConfigRecord({"flag": True, "one": 1, "text": "é", "raw": b"\x00\xff"})
    read = from_bytes(to_bytes(content))
    assert read == content
    assert list(read) == list(content)
    assert type(read["facts"]["whole"]) is int
    assert type(read["header"]["flag"]) is bool
    assert to_bytes(read) == to_bytes(content)


def test_without_an_identity_flower_makes_no_message() -> None:
    code = (
        "from flwr.app import Message, RecordDict\n"
        "try:\n    Message(RecordDict(), 11, 'train')\n"
        "except Exception: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n", "claim_identity is no longer needed"


def test_a_run_that_no_superlink_knows_has_its_number() -> None:
    assert empty_run(7).run_id == 7


def test_a_stamped_message_is_answered_under_its_id(message: Message) -> None:
    stamp(message, "message-1")
    assert message.metadata.message_id == "message-1"
    reply = Message(RecordDict(), reply_to=message)
    assert reply.metadata.reply_to_message_id == "message-1"
    assert reply.metadata.src_node_id == 11
    assert reply.metadata.dst_node_id == SUPERLINK_NODE_ID


def test_a_message_is_rebuilt_on_the_other_side_of_a_pipe(message: Message) -> None:
    stamp(message, "message-1")
    again = rebuild(message.metadata, message.content, None)
    assert again.metadata == message.metadata
    assert again.content == message.content
    failed = rebuild(message.metadata, None, Error(2, "why"))
    assert failed.has_error()
    assert failed.error.reason == "why"


def test_a_client_app_called_as_a_function_answers(message: Message) -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = int(str(message.content.config_records["instruction"]["round"]))
        reply = RecordDict({"seen": ConfigRecord({"round": number + 1})})
        return Message(reply, reply_to=message)

    stamp(message, "message-1")
    context = Context(7, 11, {}, RecordDict(), {})
    reply = app(message, context)
    assert reply.content.config_records["seen"]["round"] == 4


def test_importing_wardround_sets_the_switches_of_flower_and_ray() -> None:
    opposite = {name: str(1 - int(value)) for name, value in SWITCHES.items()}
    code = f"import os, wardround; print([os.environ[n] for n in {list(SWITCHES)}])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **opposite},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(list(SWITCHES.values()))


def test_flower_hears_the_switches() -> None:
    code = "import wardround, flwr.supercore.telemetry as t\nprint(t.FLWR_TELEMETRY_ENABLED)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0\n"
