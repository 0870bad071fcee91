"""Hospitals with privacy, asked to measure: once a round, charged to whom they measure, killed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from flwr.app import RecordDict
from tests.support.hospitals.hospital import (
    ALONE,
    STUDY,
    ask,
    instruction_for,
    refusal_of,
    said_by,
    write_site,
)

from wardround.client.app import close_sessions
from wardround.client.privacy.ledger.entries import Released, Reserved
from wardround.client.privacy.ledger.file import read_ledger
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.client.privacy.ledger.outbox import Outbox
from wardround.client.privacy.ledger.report import report_ledger
from wardround.common.flower.messages.content import Fingerprint, fingerprint_of
from wardround.common.messages.audit import REPORT_RECORD
from wardround.common.messages.instructions import EVALUATE, TRAIN, Instruction
from wardround.common.messages.replies import unpack_refusal
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import RoundRecord, read_records
from wardround.server.checkpoints.store import CheckpointStore
from wardround.server.rounds.evaluation import ALL_SITES
from wardround.simulations.experiment.federation import open_grid, run_federation


def private_study(**privacy: float) -> Study:
    said = {
        "mode": "patient",
        "epsilon": 4.0,
        "sampling_rate": 0.1,
        "expected_patients": 30,
        **privacy,
    }
    return parse_study({**STUDY.model_dump(exclude_defaults=True), "privacy": said})


PRIVATE = private_study()


def said(content: RecordDict) -> Fingerprint:
    """Return the mark of an answer without the state of the site's audit log, which goes on."""
    return fingerprint_of(RecordDict({k: v for k, v in content.items() if k != REPORT_RECORD}))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    close_sessions()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_site(tmp_path / "north", approved=f'["{PRIVATE.digest}"]')


def order(folder: Path, number: int = 0, split: str = "validation") -> Instruction:
    return replace(instruction_for(folder, number, PRIVATE), split=split)


def charged(folder: Path) -> list[tuple[str, int]]:
    facts = [entry.fact for entry in read_ledger(folder).entries]
    return [(fact.part, fact.round) for fact in facts if isinstance(fact, Reserved)]


class KilledError(BaseException):
    """Stands for kill -9: no code of ours catches it."""


def kill(*_: object, **__: object) -> NoReturn:
    raise KilledError


def test_each_part_is_charged_for_itself(folder: Path) -> None:
    ask(folder, EVALUATE, order(folder), PRIVATE)
    ask(folder, EVALUATE, order(folder, 3, "test"), PRIVATE)
    ask(folder, TRAIN, order(folder, 1), PRIVATE)
    assert charged(folder) == [("validation", 0), ("test", 3), ("train", 1)]
    spent = {one.part: one.epsilon for one in report_ledger(read_ledger(folder).entries).datasets}
    assert set(spent) == {"validation", "test", "train"}
    assert 0 < spent["validation"] < spent["test"] <= 4.01
    assert [kind for kind, _ in said_by(folder)] == ["evaluation", "evaluation", "update"]


def test_a_whole_study_costs_each_part_what_it_promises(tmp_path: Path) -> None:
    approved = f'["{PRIVATE.digest}"]'
    folders = [write_site(tmp_path / name, approved=approved) for name in ("north", "south")]
    records = run(tmp_path, folders)
    assert [record.measured_round for record in records if record.measurements] == [0, 1, 2, 3]
    for record in records:
        assert [one.site for one in record.measurements] == ["north", "south", ALL_SITES]
        assert any(v.standard_error for v in record.measurements[-1].values)
    for folder in folders:
        accounts = report_ledger(read_ledger(folder).entries).datasets
        assert {one.part for one in accounts} == {"train", "validation"}
        assert all(3.9 < one.epsilon <= 4.0 for one in accounts)


def run(root: Path, folders: list[Path], study: Study = PRIVATE) -> list[RoundRecord]:
    with open_grid(folders, study, ALONE) as grid:
        run_federation(grid, study, root / "checkpoints")
    return read_records(CheckpointStore(root / "checkpoints").history_path)


def test_another_run_gets_no_second_answer_and_the_run_itself_goes_on(tmp_path: Path) -> None:
    approved = f'["{PRIVATE.digest}"]'
    folders = [write_site(tmp_path / name, approved=approved) for name in ("north", "south")]
    run(tmp_path, folders)
    before = [charged(folder).count(("validation", 0)) for folder in folders]
    again = order(folders[0])
    assert refusal_of(ask(folders[0], EVALUATE, again, PRIVATE))[1] == "evaluations"
    assert [charged(folder).count(("validation", 0)) for folder in folders] == before == [1, 1]


def test_a_study_that_measures_nobody_has_no_answer_to_give(tmp_path: Path) -> None:
    study = private_study(validation_epsilon=0)
    folder = write_site(tmp_path / "north", approved=f'["{study.digest}"]')
    instruction = instruction_for(folder, 0, study)
    assert refusal_of(ask(folder, EVALUATE, instruction, study))[1] == "evaluations"
    records = run(tmp_path, [folder], study)
    assert not any(record.measurements or record.refusals for record in records)


def test_a_hospital_whose_caps_the_measurements_would_pass_tells_none(tmp_path: Path) -> None:
    folder = write_site(
        tmp_path / "north",
        approved=f'["{PRIVATE.digest}"]',
        lifetime_epsilon="3.0",
        refused_above_the_cap='"round"',
    )
    answers = [ask(folder, EVALUATE, order(folder, n), PRIVATE) for n in range(4)]
    codes = ["" if (r := unpack_refusal(one)) is None else r.code for one in answers]
    assert codes[0] == ""
    assert codes[-1] == "budget"
    spent = report_ledger(read_ledger(folder).entries).datasets[0].epsilon
    assert spent <= 3.0


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (PrivacyLedger, "release"),  # computed and kept; not recorded as sent
        (Outbox, "keep"),  # computed; not kept
    ],
)
def test_a_site_killed_before_an_answer_left_gives_it_after_all_and_charges_it_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, owner: type, method: str
) -> None:
    instruction = order(folder)
    with monkeypatch.context() as planted:
        planted.setattr(owner, method, kill)
        with pytest.raises(KilledError):
            ask(folder, EVALUATE, instruction, PRIVATE)
    close_sessions()
    first = ask(folder, EVALUATE, instruction, PRIVATE)
    assert unpack_refusal(first) is None
    assert charged(folder) == [("validation", 0)]
    assert said(ask(folder, EVALUATE, instruction, PRIVATE)) == said(first)
    facts = [entry.fact for entry in read_ledger(folder).entries]
    assert sum(isinstance(fact, Released) for fact in facts) == 1


def test_an_order_of_another_digest_charges_nothing(folder: Path) -> None:
    false = replace(order(folder), digest="f" * 64)
    assert refusal_of(ask(folder, EVALUATE, false, PRIVATE))[1] == "failed"
    assert not (folder / "ledger").exists()


def test_an_answer_that_left_and_was_lost_is_not_made_again(folder: Path) -> None:
    instruction = order(folder)
    ask(folder, EVALUATE, instruction, PRIVATE)
    for path in (folder / "outbox").iterdir():
        path.unlink()
    assert refusal_of(ask(folder, EVALUATE, instruction, PRIVATE))[1] == "evaluations"
    assert charged(folder) == [("validation", 0)]


def test_an_answer_is_kept_until_the_round_after_the_next_begins(folder: Path) -> None:
    run_of = order(folder)
    first = ask(folder, EVALUATE, run_of, PRIVATE)
    ask(folder, TRAIN, replace(run_of, round=1), PRIVATE)
    # The server starts anew in round 1, and measures the model that the round began with.
    assert said(ask(folder, EVALUATE, run_of, PRIVATE)) == said(first)
    ask(folder, TRAIN, replace(run_of, round=2), PRIVATE)
    assert refusal_of(ask(folder, EVALUATE, run_of, PRIVATE))[1] == "evaluations"


def test_the_plan_of_the_measurements_is_printed(wardround, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(PRIVATE.to_toml(), encoding="utf-8")
    said = json.loads(wardround("study", "privacy", str(path), "--json").out)
    plans = {one["part"]: (one["answers"], one["epsilon"]) for one in said["evaluations"]}
    assert plans["validation"] == (4, pytest.approx(4.0, rel=2e-3))
    assert plans["test"] == (1, pytest.approx(4.0, rel=2e-3))
    page = " ".join(wardround("study", "privacy", str(path)).out.split())
    assert "What is promised to each validation and test patient" in page
