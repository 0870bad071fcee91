"""What a hospital signs of its round: nothing in it is free, and the guard computes it anew."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict

from wardround.client.egress.round_receipt import sign_update, without_receipt
from wardround.client.site.folder import KEY_FOLDER
from wardround.common.errors import GuardError
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.lineage import LINEAGE_RECORD, unpack_signed
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.array_records import to_array_record
from wardround.common.security.audit_log import AuditLog, Event
from wardround.common.security.signing_key import open_key

STUDY, RUN = "a" * 64, "b" * 32
MODEL = {"w": torch.zeros(4)}
Change = Callable[[RecordDict, ConfigRecord], None]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    log = AuditLog(tmp_path / "audit", open_key(tmp_path / KEY_FOLDER), durable=False)
    log.append(Event(kind="site-info"))
    return tmp_path


def signed(site: Path) -> RecordDict:
    header = {"site": "north", "digest": STUDY, "run": RUN, "round": 3, "attempt": 1}
    content = RecordDict(
        {
            "header": ConfigRecord(header),  # type: ignore[arg-type]
            "model": to_array_record({"w": torch.ones(4)}),
        }
    )
    log = AuditLog(site / "audit", open_key(site / KEY_FOLDER), durable=False)
    return sign_update(content, Instruction(STUDY, RUN, 3, MODEL, attempt=1), "", site, log)


def test_a_hospital_signs_what_it_received_and_what_it_sends(site: Path) -> None:
    content = signed(site)
    found = unpack_signed(content)
    assert found is not None
    assert found.part.model == digest(MODEL)
    assert (found.part.study, found.part.run, found.part.round) == (STUDY, RUN, 3)
    assert found.part.attempt == 1
    assert len(found.part.audit) == 64
    assert LINEAGE_RECORD not in without_receipt(content, site)
    size = len(str(dict(content[LINEAGE_RECORD])))
    assert size < 600, "a few hashes, whatever the model's size"


CHANGES: dict[str, Change] = {
    "a field more": lambda _, record: record.update({"note": "CANARY"}),
    "a field less": lambda _, record: record.pop("audit"),
    "text for a hash": lambda _, record: record.update({"audit": "CANARYPATIENT"}),
    "another model": lambda _, record: record.update({"model": "c" * 64}),
    "another mark": lambda _, record: record.update({"audit": "c" * 64}),
    "another signature": lambda _, record: record.update({"signature": "0" * 128}),
    "another key": lambda _, record: record.update({"key": "d" * 64}),
    "another round": lambda content, _: content["header"].update({"round": 4}),
    "another update": lambda content, _: content.update(
        {"model": to_array_record({"w": torch.full((4,), 2.0)})}
    ),
    "bytes": lambda _, record: record.update({"audit": b"CANARY"}),
    "a list": lambda _, record: record.update({"update": ["CANARY"]}),
    "no update": lambda content, _: content.pop("model"),
    "arrays": lambda content, _: content.update(
        {LINEAGE_RECORD: to_array_record({"image": torch.ones(9)})}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_follow_from_the_update_does_not_leave(site: Path, change: str) -> None:
    content = signed(site)
    record = content[LINEAGE_RECORD]
    assert isinstance(record, ConfigRecord)
    CHANGES[change](content, record)
    with pytest.raises(GuardError) as refused:
        without_receipt(content, site)
    assert "CANARY" not in str(refused.value)
