"""What happened in each round, damaged in every way: a sentence that names the file."""

from pathlib import Path

import pytest

from wardround.common.errors import RunError
from wardround.server.checkpoints.history import RoundRecord, append_record, read_records
from wardround.server.checkpoints.store import CheckpointStore


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"1",
        b"{}",
        b"[" * 200_000,
        b'{"round": 1, "measured_round": 0, "seconds": "x", "sites": [], "refusals": [],'
        b' "measurements": []}',
        b'{"round": 1, "measured_round": 0, "seconds": 1, "sites": null, "refusals": [],'
        b' "measurements": []}',
        b"\xff\xfe",
        b'{"round": 1' + b"0" * 5_000 + b"}",
    ],
    ids=["list", "number", "empty", "deep", "seconds", "sites", "bytes", "digits"],
)
def test_a_line_that_is_no_record_is_said_with_the_file_and_a_remedy(
    tmp_path: Path, line: bytes
) -> None:
    path = tmp_path / "history.jsonl"
    append_record(path, RoundRecord(1, 0, 2.5))
    assert read_records(path) == [RoundRecord(1, 0, 2.5)]
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(RunError, match=r"history\.jsonl .* put the run's folder back"):
        read_records(path)


def test_a_folder_in_the_files_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").mkdir()
    with pytest.raises(RunError, match=r"history\.jsonl"):
        read_records(tmp_path / "history.jsonl")


@pytest.mark.parametrize("seal", [b"1", b"[" * 200_000, b"[]", b"null"])
def test_a_commit_whose_seal_is_none_is_incomplete_and_no_defect(
    tmp_path: Path, seal: bytes
) -> None:
    place = tmp_path / "round-00001"
    place.mkdir()
    (place / "commit.json").write_bytes(seal)
    with pytest.raises(RunError, match="checkpoint of round 1 is incomplete"):
        CheckpointStore(tmp_path).load(1)
