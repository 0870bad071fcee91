"""A run's signed record: resumed where its commits are, and sites' parts only where they fit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, RecordDict

from wardround.common.errors import ModelError
from wardround.common.messages.lineage import (
    LINEAGE_RECORD,
    arrays_digest,
    signed_record,
    unpack_signed,
)
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.array_records import to_array_record
from wardround.common.security.lineage import LINEAGE_FILE, SiteRound, sign_part
from wardround.common.security.lineage_verification import verify_lineage
from wardround.common.study.loading import parse_study
from wardround.server.checkpoints.store import Progress
from wardround.server.rounds.lineage import RoundLineage, lineage_of, read_lines

STUDY = parse_study(
    {
        "study": {"name": "signed", "task": "classification"},
        "data": {"kind": "table", "classes": ["a", "b"], "covariates": [{"name": "x"}]},
        "model": {"network": "mlp", "features": []},
    }
)
RUN = "ab" * 16
SERVER, NORTH = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


def model(number: int) -> dict[str, torch.Tensor]:
    return {"w": torch.full((3,), float(number))}


def progress(number: int) -> Progress:
    return Progress(STUDY.digest, RUN, number)


def update(number: int, key: Ed25519PrivateKey = NORTH, sent: int | None = None) -> RecordDict:
    header = {"site": "north", "digest": STUDY.digest, "run": RUN, "round": number, "attempt": 0}
    content = RecordDict(
        {"header": ConfigRecord(header), "model": to_array_record(model(50 + number))}  # type: ignore[arg-type]
    )
    received = digest(model(number - 1 if sent is None else sent))
    part = SiteRound(STUDY.digest, RUN, number, 0, received, arrays_digest(content), "", "")
    content[LINEAGE_RECORD] = signed_record(sign_part(key, part))
    return content


def do_round(lineage: RoundLineage, number: int) -> None:
    lineage.send(model(number - 1))
    lineage.count(lineage.take("north", update(number)))
    lineage.commit(progress(number), model(number))


@pytest.fixture
def lineage(tmp_path: Path) -> RoundLineage:
    made = RoundLineage(tmp_path, SERVER, STUDY)
    made.begin(progress(0), model(0))
    return made


def test_a_record_leads_from_the_first_model_to_each_round(
    lineage: RoundLineage, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        do_round(lineage, number)
    for kept in (0, 1, 3):
        content = lineage_of(tmp_path, kept).encode()
        found = verify_lineage(content, STUDY.digest, digest(model(kept)), kept)
        assert (found.rounds, found.unsigned) == (kept, 0)
        assert sum(map(len, found.sites.values())) == kept
    assert lineage_of(tmp_path, 4) == ""


def test_a_record_leads_to_the_mean_of_the_models_where_that_is_released(
    lineage: RoundLineage, tmp_path: Path
) -> None:
    for number in (1, 2):
        lineage.send(model(number - 1))
        lineage.count(lineage.take("north", update(number)))
        lineage.commit(progress(number), model(number), model(90 + number))
    content = lineage_of(tmp_path, 2).encode()
    assert verify_lineage(content, STUDY.digest, digest(model(92)), 2).rounds == 2
    for other in (model(2), model(91)):  # trained on, and of another round
        with pytest.raises(ModelError, match="another model's"):
            verify_lineage(content, STUDY.digest, digest(other), 2)
    again = RoundLineage(tmp_path, SERVER, STUDY)
    again.begin(progress(1), model(1))
    again.send(model(1))
    again.count(again.take("north", update(2)))
    again.commit(progress(2), model(2), model(92))
    content = lineage_of(tmp_path, 2).encode()
    assert verify_lineage(content, STUDY.digest, digest(model(92)), 2).unsigned == 0


def test_a_resumed_run_drops_what_was_written_after_its_commit(
    lineage: RoundLineage, tmp_path: Path
) -> None:
    for number in (1, 2):
        do_round(lineage, number)
    with (tmp_path / LINEAGE_FILE).open("ab") as stream:
        stream.write(b'{"torn')
    again = RoundLineage(tmp_path, SERVER, STUDY)
    again.begin(progress(1), model(1))
    assert len(read_lines(tmp_path / LINEAGE_FILE)) == 2
    for number in (2, 3):
        do_round(again, number)
    content = lineage_of(tmp_path, 3).encode()
    assert verify_lineage(content, STUDY.digest, digest(model(3)), 3).rounds == 3


def test_a_run_whose_record_has_a_gap_has_none(lineage: RoundLineage, tmp_path: Path) -> None:
    (tmp_path / LINEAGE_FILE).unlink()
    again = RoundLineage(tmp_path, SERVER, STUDY)
    again.begin(progress(5), model(5))
    do_round(again, 6)
    assert lineage_of(tmp_path, 6) == ""


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("damage", [b"{}", b"\xff", b""])
def test_a_run_whose_record_is_damaged_goes_on_without(
    lineage: RoundLineage, tmp_path: Path, which: int, damage: bytes
) -> None:
    """On 3cda7f4 a damaged last line ended the resumption, and one before it was chained on."""
    for number in (1, 2):
        do_round(lineage, number)
    lines = read_lines(tmp_path / LINEAGE_FILE)
    lines[which] = damage
    (tmp_path / LINEAGE_FILE).write_bytes(b"".join(line + b"\n" for line in lines))
    again = RoundLineage(tmp_path, SERVER, STUDY)
    again.begin(progress(2), model(2))
    do_round(again, 3)
    assert lineage_of(tmp_path, 3) == ""


@pytest.mark.parametrize(
    "kind", ["none", "another model", "another update", "another key", "no signature", "words"]
)
def test_a_part_that_does_not_fit_counts_as_unsigned(
    lineage: RoundLineage, tmp_path: Path, kind: str
) -> None:
    do_round(lineage, 1)
    lineage.send(model(1))
    content = update(2, sent=7 if kind == "another model" else None)
    record = content[LINEAGE_RECORD]
    assert isinstance(record, ConfigRecord)
    if kind == "none":
        del content[LINEAGE_RECORD]
    elif kind == "another update":
        content["model"] = to_array_record(model(99))
    elif kind == "another key":
        content = update(2, Ed25519PrivateKey.generate())
    elif kind == "no signature":
        record["signature"] = "0" * 128
    elif kind == "words":
        record["key"] = "hospital"
    lineage.count(lineage.take("north", content))
    lineage.commit(progress(2), model(2))
    found = verify_lineage(lineage_of(tmp_path, 2).encode(), STUDY.digest, digest(model(2)), 2)
    assert found.unsigned == 1
    assert list(found.sites.values()) == [(1,)]


def header_of(content: RecordDict) -> ConfigRecord:
    header = content["header"]
    assert isinstance(header, ConfigRecord)
    return header


def signed_anew(content: RecordDict, **changes: object) -> RecordDict:
    """Return an update with another part, which its own key has signed."""
    said = unpack_signed(content)
    assert said is not None
    part = replace(said.part, **changes)  # type: ignore[arg-type]
    header = header_of(content)
    header["round"], header["attempt"] = part.round, part.attempt
    header["ledger-head"] = part.ledger
    content[LINEAGE_RECORD] = signed_record(sign_part(NORTH, part))
    return content


@pytest.mark.parametrize(
    "changes",
    [{"ledger": "no hash"}, {"attempt": 2_000_000_000}, {"round": 1, "model": "0" * 64}],
    ids=["ledger", "attempt", "a model that was never sent"],
)
def test_a_hostile_part_does_not_spoil_the_record_of_all(
    lineage: RoundLineage, tmp_path: Path, changes: dict[str, object]
) -> None:
    """On 3cda7f4 the server wrote it into its line, and nobody could verify the model."""
    do_round(lineage, 1)
    lineage.send(model(1))
    lineage.count(lineage.take("north", signed_anew(update(2), **changes)))
    lineage.commit(progress(2), model(2))
    found = verify_lineage(lineage_of(tmp_path, 2).encode(), STUDY.digest, digest(model(2)), 2)
    assert found.unsigned == 1


@pytest.mark.parametrize("resumed", [False, True])
def test_a_late_update_is_signed_once_also_after_a_resumption(
    lineage: RoundLineage, tmp_path: Path, resumed: bool
) -> None:
    do_round(lineage, 1)
    lineage.send(model(1))
    lineage.commit(progress(2), model(2))
    if resumed:
        lineage = RoundLineage(tmp_path, SERVER, STUDY)
        lineage.begin(progress(2), model(2))
    for number in (3, 4):  # asked in round 2, come in round 3, and brought once more
        lineage.send(model(number - 1))
        lineage.count(lineage.take("north", update(2)))
        lineage.commit(progress(number), model(number))
    found = verify_lineage(lineage_of(tmp_path, 4).encode(), STUDY.digest, digest(model(4)), 4)
    assert (list(found.sites.values()), found.unsigned) == ([(1, 3)], 1)


def test_the_record_of_another_study_or_model_is_refused(
    lineage: RoundLineage, tmp_path: Path
) -> None:
    do_round(lineage, 1)
    content = lineage_of(tmp_path, 1).encode()
    for study, weights, kept in (
        ("0" * 64, digest(model(1)), 1),
        (STUDY.digest, digest(model(2)), 1),
        (STUDY.digest, digest(model(1)), 2),
    ):
        with pytest.raises(ModelError):
            verify_lineage(content, study, weights, kept)
