"""Commits survive what happens to disks; the history survives a torn line."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wardround.common.errors import InputError, RunError
from wardround.common.files.json_lines import ChainHead
from wardround.common.metrics.task_sums import MetricValue
from wardround.server.checkpoints.history import (
    Measurement,
    RefusalRecord,
    RoundRecord,
    SiteRecord,
    append_record,
    read_records,
    truncate,
)
from wardround.server.checkpoints.store import CheckpointStore, Commit, Progress

RUN = "0" * 32


def commit_of(number: int, best: int = -1) -> Commit:
    return Commit(
        Progress("digest", RUN, number, best, 0.5, history_bytes=10 * number, usual_norm=1.5),
        {"weight": torch.full((3,), float(number)), "count": torch.tensor(number)},
        {"momentum": torch.full((2,), -float(number))},
    )


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "checkpoints")
    store.commit(commit_of(1))
    store.commit(commit_of(2))
    return store


def test_a_store_without_commits_has_none(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "nothing").latest() is None


def test_commits_of_another_version_are_refused_not_passed_over(store: CheckpointStore) -> None:
    place = store.folder / "round-00002"
    state = json.loads((place / "state.json").read_text())
    del state["run"]
    (place / "state.json").write_text(json.dumps(state))
    seal = json.loads((place / "commit.json").read_text())
    seal["state.json"] = hashlib.sha256((place / "state.json").read_bytes()).hexdigest()
    (place / "commit.json").write_text(json.dumps(seal))
    with pytest.raises(InputError, match="another version of wardround: start a new run"):
        store.latest()


def test_what_sites_reported_of_their_ledgers_is_kept_and_read_back(store: CheckpointStore) -> None:
    ledgers = {"north": ChainHead(7, "a" * 64), "south": ChainHead()}
    commit = commit_of(3)
    store.commit(replace(commit, progress=replace(commit.progress, ledgers=ledgers)))
    state = json.loads((store.folder / "round-00003" / "state.json").read_text())
    assert state["ledgers"]["north"] == {"entries": 7, "head": "a" * 64}
    assert store.load(3).progress.ledgers == ledgers


def test_the_latest_commit_comes_back_as_it_was(store: CheckpointStore) -> None:
    found, expected = store.latest(), commit_of(2)
    assert found is not None
    assert found.progress == expected.progress
    assert torch.equal(found.parameters["weight"], expected.parameters["weight"])
    assert found.parameters["count"].dtype == torch.int64
    assert torch.equal(found.strategy["momentum"], expected.strategy["momentum"])


FILES = ("model.safetensors", "strategy.safetensors", "state.json", "commit.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip a byte", "truncate", "delete", "empty"])
def test_a_damaged_commit_is_passed_over_for_the_one_before(
    store: CheckpointStore, name: str, damage: str
) -> None:
    path = store.folder / "round-00002" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    changed = {"flip a byte": bytes(content), "truncate": bytes(content[:-1]), "empty": b""}
    if damage == "delete":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.write_bytes(changed[damage])
    found = store.latest()
    assert found is not None
    assert found.progress.round == 1
    with pytest.raises(RunError, match=r"checkpoint of round 2 is (damaged|incomplete)"):
        store.load(2)


def test_every_single_byte_of_a_small_file_is_vouched_for(store: CheckpointStore) -> None:
    path = store.folder / "round-00002" / "state.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = store.latest()
        assert found is not None
        assert found.progress.round == 1


def test_what_a_crash_left_half_written_is_ignored_and_overwritten(store: CheckpointStore) -> None:
    left = store.folder / "round-00003.part"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    found = store.latest()
    assert found is not None
    assert found.progress.round == 2
    store.commit(commit_of(3))
    assert not left.exists()
    assert store.load(3).progress.round == 3


def test_a_commit_that_fails_leaves_the_one_before(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wardround.server.checkpoints.store.save_model", full)
    with pytest.raises(OSError, match="No space left"):
        store.commit(commit_of(3))
    found = store.latest()
    assert found is not None
    assert found.progress.round == 2


def test_old_commits_are_removed_but_never_the_best(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for number in range(7):
        store.commit(commit_of(number, best=1 if number >= 1 else -1))
    assert sorted(path.name for path in tmp_path.glob("round-*")) == [
        "round-00001",
        "round-00005",
        "round-00006",
    ]
    store.commit(commit_of(7, best=6))
    assert sorted(path.name for path in tmp_path.glob("round-*")) == ["round-00006", "round-00007"]


def test_committing_a_round_again_replaces_it(store: CheckpointStore) -> None:
    store.commit(replace(commit_of(2), parameters={"weight": torch.zeros(1)}))
    assert torch.equal(store.load(2).parameters["weight"], torch.zeros(1))


# --- History -------------------------------------------------------------------
RECORD = RoundRecord(
    round=1,
    measured_round=0,
    seconds=1.5,
    sites=(SiteRecord("north", 10, 3, 0.5, 100, 90, 0.7),),
    refusals=(RefusalRecord("south", "late"),),
    measurements=(
        Measurement("north", "validation", (MetricValue("accuracy", "", 0.5, 10, 0.0),)),
    ),
)


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    assert read_records(path) == []
    append_record(path, RECORD)
    length = append_record(path, replace(RECORD, round=2))
    assert length == path.stat().st_size
    assert read_records(path) == [RECORD, replace(RECORD, round=2)]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    first = append_record(path, RECORD)
    second = append_record(path, replace(RECORD, round=2))
    whole = path.read_bytes()
    for length in (first + 1, (first + second) // 2, second - 1):
        path.write_bytes(whole[:length])
        assert read_records(path) == [RECORD]


def test_the_history_is_cut_back_to_what_a_commit_vouches_for(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    first = append_record(path, RECORD)
    append_record(path, replace(RECORD, round=2))
    truncate(path, first)
    assert read_records(path) == [RECORD]
    truncate(path, 10_000)
    assert path.stat().st_size == first
    truncate(tmp_path / "absent.jsonl", 0)
    assert not (tmp_path / "absent.jsonl").exists()
