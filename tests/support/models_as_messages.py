"""Messages that carry models, and the parts that they travel in."""

from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from wardround.common.flower.messages.envelope import Envelope
from wardround.common.flower.messages.message_file import MessageFile
from wardround.common.flower.messages.message_file_writer import write_message
from wardround.common.flower.site_grid import claim_identity

LIMIT = 10_000_000


def make_message(*arrays: Array) -> Message:
    claim_identity(7)
    model = ArrayRecord({f"w{n}": array for n, array in enumerate(arrays)})
    content = RecordDict({"instruction": ConfigRecord({"round": 3}), "model": model})
    return Message(content, 11, "train", group_id="round 3")


def message_file_of(message: Message, tmp_path: Path) -> tuple[Envelope, dict[str, bytes]]:
    write_message(tmp_path / "source.message", message)
    with MessageFile(tmp_path / "source.message") as message_file:
        envelope = message_file.envelope
        return envelope, {one: message_file.content(one) for one in envelope.object_ids}
