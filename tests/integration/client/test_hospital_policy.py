"""Sites with a hospital's own policy in whole runs: what they refuse, say, and write down."""

import itertools
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.hospitals.hospital import (
    ALONE,
    STUDY,
    ask,
    instruction_for,
    log_of,
    refusal_of,
    said_by,
    write_policy,
    write_site,
)

from wardround.client.app import close_sessions
from wardround.client.egress.answers import training as door_module
from wardround.client.policy.policy import POLICY_FILE
from wardround.client.privacy.ledger.budget import Caps
from wardround.client.privacy.ledger.charges import Assignment, Charge
from wardround.client.privacy.ledger.entries import Admitted, Opened, Reserved
from wardround.client.privacy.ledger.file import read_ledger
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.client.training import schedule
from wardround.common.errors import DataError
from wardround.common.messages.instructions import (
    DESCRIBE,
    EVALUATE,
    TRAIN,
    new_run,
)
from wardround.common.messages.replies import unpack_refusal, unpack_site_info, unpack_update
from wardround.common.study.loading import load_study, parse_study, with_changes
from wardround.common.study.plans.patient_privacy import plan_privacy
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import RoundRecord, read_records
from wardround.server.checkpoints.store import CheckpointStore
from wardround.server.rounds.evaluation import MEAN_OF_SITES
from wardround.simulations.experiment.federation import open_grid, run_federation


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    close_sessions()


def run(root: Path, folders: list[Path], study: Study = STUDY) -> list[RoundRecord]:
    with open_grid(folders, study, ALONE) as grid:
        run_federation(grid, study, root / "checkpoints")
    return read_records(CheckpointStore(root / "checkpoints").history_path)


# --- Refusals -------------------------------------------------------------------------------
def test_a_site_without_a_policy_refuses_and_a_simulation_shows_the_remedy(tmp_path: Path) -> None:
    folder = write_site(tmp_path / "north")
    (folder / POLICY_FILE).unlink()
    site, code, reason = refusal_of(ask(folder, DESCRIBE))
    assert (site, code) == ("north", "policy")
    assert f"wardround site policy new {folder}" in reason
    assert said_by(folder) == [("refusal", "deny: policy")]


def test_a_study_that_nobody_approved_is_refused_before_any_data_is_read(tmp_path: Path) -> None:
    folder = write_site(tmp_path / "north", approved="[]")
    (folder / "manifest.csv").write_text("not a manifest")
    assert refusal_of(ask(folder, DESCRIBE)) == ("north", "approval", "")
    assert said_by(folder) == [("refusal", "deny: approved")]
    assert log_of(folder)[0].event.study == STUDY.digest


def test_a_study_that_waits_fills_no_log_and_every_refusal_is_counted(tmp_path: Path) -> None:
    folder = write_site(tmp_path / "north", approved="[]")
    for _ in range(100):
        assert refusal_of(ask(folder, DESCRIBE)) == ("north", "approval", "")
    numbers = ["", *(f" ({2**power} times)" for power in range(1, 7))]
    assert said_by(folder) == [("refusal", f"deny: approved{number}") for number in numbers]
    write_policy(folder)
    assert unpack_refusal(ask(folder, DESCRIBE)) is None
    write_policy(folder, approved="[]")
    assert refusal_of(ask(folder, DESCRIBE))[1] == "approval"
    assert said_by(folder)[-1] == ("refusal", "deny: approved")


def test_an_approval_that_is_withdrawn_ends_a_run_at_its_next_instruction(tmp_path: Path) -> None:
    folder = write_site(tmp_path / "north")
    assert unpack_site_info(ask(folder, DESCRIBE)).examinations % 10 == 0
    unpack_update(ask(folder, TRAIN, instruction_for(folder)), STUDY)
    write_policy(folder, approved="[]")
    for kind in (TRAIN, EVALUATE):
        assert refusal_of(ask(folder, kind, instruction_for(folder))) == ("north", "approval", "")
    denied = ("refusal", "deny: approved")
    again = ("refusal", "deny: approved (2 times)")
    assert said_by(folder)[2:] == [("update", "allow"), denied, again]


def test_a_site_trains_in_its_hours_only_and_evaluates_at_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_site(tmp_path / "north", training_hours='["22:00", "06:00"]')

    class Clock(datetime):
        hour_now = 12

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 11, 23, cls.hour_now, 30)

    monkeypatch.setattr(door_module, "datetime", Clock)
    assert unpack_refusal(ask(folder, DESCRIBE)) is None
    assert refusal_of(ask(folder, TRAIN, instruction_for(folder)))[1] == "policy"
    assert unpack_refusal(ask(folder, EVALUATE, instruction_for(folder))) is None
    Clock.hour_now = 23
    assert unpack_refusal(ask(folder, TRAIN, instruction_for(folder))) is None


@pytest.mark.parametrize("mode", ["none", "patient"])
def test_a_training_in_flight_is_stopped_when_its_time_is_over_and_nothing_leaves(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = STUDY.model_dump(exclude_defaults=True)
    content["training"] = {**content["training"], "local_steps": 200}
    if mode == "patient":
        privacy = {"mode": mode, "noise_multiplier": 9.0, "sampling_rate": 0.1}
        content["privacy"] = {**privacy, "expected_patients": 30}
    study = parse_study(content)
    folder = write_site(
        tmp_path / "north", approved=f'["{study.digest}"]', largest_training_minutes="0.1"
    )
    instruction, looks = instruction_for(folder, study=study), itertools.count()
    clock = SimpleNamespace(monotonic=lambda: float(next(looks)))  # a second between two looks
    monkeypatch.setattr(schedule, "time", clock)
    told = "failed" if mode == "patient" else "time"  # the time depends on the patients
    assert refusal_of(ask(folder, TRAIN, instruction, study))[1] == told
    assert next(looks) == 8, "it looks before each batch, and stops after the sixth second"
    assert said_by(folder) == [("refusal", "deny: training minutes")]
    if mode == "patient":
        facts = [type(entry.fact) for entry in read_ledger(folder).entries]
        assert facts == [Opened, Admitted, Reserved], "it stays charged"
        assert not list((folder / "outbox").glob("*"))


def test_a_small_cohort_and_a_large_message_are_refused(tmp_path: Path) -> None:
    small = write_site(tmp_path / "small", smallest_cohort="290")
    assert refusal_of(ask(small, DESCRIBE))[1] == "policy"
    assert said_by(small) == [("refusal", "deny: cohort")]
    narrow = write_site(tmp_path / "narrow", largest_message_megabytes="0.00001")
    assert refusal_of(ask(narrow, DESCRIBE))[1] == "policy"


_NOISE = {"mode": "patient", "noise_multiplier": 9.0, "sampling_rate": 0.1, "expected_patients": 30}
PRIVATE = parse_study({**STUDY.model_dump(exclude_defaults=True), "privacy": _NOISE})


@pytest.mark.parametrize("weight", [1001.0, -1e12, math.nan, math.inf])
@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
def test_a_private_study_takes_no_model_of_absurd_weights_and_charges_nothing_for_it(
    tmp_path: Path, weight: float, kind: str
) -> None:
    folder = write_site(tmp_path / "north", approved=f'["{PRIVATE.digest}"]')
    instruction = instruction_for(folder, study=PRIVATE)
    name, first = next(iter(instruction.parameters.items()))
    first.view(-1)[0] = weight
    assert refusal_of(ask(folder, kind, instruction, PRIVATE))[1] == "policy"
    assert said_by(folder)[-1] == ("refusal", "deny: weights")
    assert not (folder / "ledger").exists() or not [
        entry for entry in read_ledger(folder).entries if isinstance(entry.fact, Reserved)
    ]
    first.view(-1)[0] = 999.0
    reply = ask(folder, TRAIN, replace(instruction, run=new_run()), PRIVATE)
    assert unpack_refusal(reply) is None, name


@pytest.mark.parametrize(("number", "word"), [(28, "disk"), (5, "audit")])  # full, or broken
def test_what_cannot_be_written_down_does_not_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, word: str
) -> None:
    folder = write_site(tmp_path / "north")
    instruction = instruction_for(folder)
    unpack_update(ask(folder, TRAIN, instruction), STUDY)

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("wardround.common.security.audit_log.os.fsync", full)
    assert refusal_of(ask(folder, TRAIN, instruction)) == ("", word, "")
    monkeypatch.undo()
    assert [kind for kind, _ in said_by(folder)] == ["update"]


# --- Whole runs -----------------------------------------------------------------------------
def test_hospitals_that_send_numbers_train_together_and_the_best_model_is_found(
    tmp_path: Path,
) -> None:
    folders = [write_site(tmp_path / "sites" / name) for name in ("north", "south")]
    records = run(tmp_path, folders)
    measured = [record for record in records if record.measurements]
    assert len(measured) == 4
    for record in measured:
        assert [m.site for m in record.measurements] == ["north", "south", MEAN_OF_SITES]
        values = [v for m in record.measurements for v in m.values]
        assert all(not value.class_name for value in values)
    auroc = [
        value.value
        for record in measured
        for value in record.measurements[-1].values
        if value.metric == "auroc"
    ]
    assert auroc[-1] > auroc[0]
    for site in (site for record in records for site in record.sites):
        assert site.examinations % 10 == 0
        assert site.seconds % 10 == 0
        assert site.training_loss == round(site.training_loss, 3)
    for folder in folders:
        kinds = [kind for kind, _ in said_by(folder)]
        assert kinds == ["decision", "site-info", *["update"] * 3, "evaluation"]


def test_hospitals_that_send_no_metrics_train_together_and_the_last_model_is_kept(
    tmp_path: Path,
) -> None:
    folders = [write_site(tmp_path / "sites" / n, metrics='"none"') for n in ("north", "south")]
    records = run(tmp_path, folders)
    assert all(not record.measurements for record in records)
    assert len([record for record in records if record.sites]) == 3


def test_a_run_with_a_hospital_that_refuses_ends_with_its_word(tmp_path: Path) -> None:
    folders = [
        write_site(tmp_path / "sites" / "north"),
        write_site(tmp_path / "sites" / "south", approved="[]"),
    ]
    with pytest.raises(DataError, match="south cannot take part: approval"):
        run(tmp_path, folders)


# --- The commands ---------------------------------------------------------------------------
@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(STUDY.to_toml())
    assert load_study(path).digest == STUDY.digest
    return path


def test_explain_prints_each_rule_and_the_study_in_words(
    wardround: Callable[..., Any], tmp_path: Path, study_file: Path
) -> None:
    folder = write_site(tmp_path / "north")
    said = wardround("site", "explain", study_file, "--site", folder)
    text = " ".join(said.out.split())
    assert said.code == 0
    assert "Your hospital would be asked" in text
    assert "north would take part." in text
    assert "deny" not in text
    assert "training patients; at least 20" in text


def test_explain_counts_what_the_ledger_holds_already(
    wardround: Callable[..., Any], tmp_path: Path
) -> None:
    study = with_changes(
        STUDY,
        {"privacy.mode": "patient", "privacy.epsilon": 7.9, "evaluation.keep": "last"},
    )
    path = tmp_path / "private.toml"
    path.write_text(study.to_toml())
    folder = write_site(tmp_path / "north", approved=f'["{study.digest}"]')
    assert wardround("site", "explain", path, "--site", folder).code == 0
    plan, caps = plan_privacy(study), Caps(8.0, 1e-5, 8.0)
    with PrivacyLedger.open(folder) as ledger:
        assignment = Assignment("e" * 64, "another run", ledger.snapshot(["p1"]))
        ledger.admit(assignment, plan.planned, plan.clip_norm, caps)
        ledger.reserve(Charge(assignment, 1, 0, plan.planned), caps)
    said = wardround("site", "explain", path, "--site", folder)
    text = " ".join(said.out.split())
    assert said.code == 1
    assert "spent before" in text
    assert "north refuses." in text


def test_explain_ends_with_1_where_a_rule_denies_or_the_data_does_not_fit(
    wardround: Callable[..., Any], tmp_path: Path, study_file: Path
) -> None:
    folder = write_site(tmp_path / "north", approved="[]", smallest_cohort="500")
    said = wardround("site", "explain", study_file, "--site", folder)
    assert said.code == 1
    assert said.out.count("deny") == 2
    assert "north refuses." in said.out
    write_policy(folder)
    (folder / "manifest.csv").write_text("patient,label\np,a\n")
    said = wardround("site", "explain", study_file, "--site", folder)
    assert said.code == 1
    assert "Not known:" in said.out


def test_explain_says_who_was_moved_and_gives_nobody_a_part(
    wardround: Callable[..., Any], tmp_path: Path, study_file: Path
) -> None:
    folder = write_site(tmp_path / "north")
    manifest = folder / "manifest.csv"
    header, *rows = manifest.read_text().splitlines()
    parts = ("train", "train", "validation", "test")
    text = "\n".join([f"{header},split", *(f"{r},{parts[n % 4]}" for n, r in enumerate(rows))])
    manifest.write_text(text)
    assert "Note:" not in wardround("site", "explain", study_file, "--site", folder).out
    assert not (folder / "parts").exists()
    ask(folder, DESCRIBE)
    written = (folder / "parts" / "patients.jsonl").read_bytes()
    manifest.write_text(text.replace(",train", ",test", 1))
    said = wardround("site", "explain", study_file, "--site", folder)
    assert "Note: the column split has moved 1 patients to another part, 1 of them" in said.out
    assert (folder / "parts" / "patients.jsonl").read_bytes() == written


def test_audit_verify_prints_the_head_to_keep_and_finds_a_log_cut_below_it(
    wardround: Callable[..., Any], tmp_path: Path
) -> None:
    folder = write_site(tmp_path / "north")
    ask(folder, DESCRIBE)
    said = wardround("site", "audit", "verify", folder)
    assert said.code == 0
    assert "2 entries" in said.out
    head = said.out.split("--head ")[1].split()[0]
    ask(folder, TRAIN, instruction_for(folder))
    assert wardround("site", "audit", "verify", folder, "--counter", 2, "--head", head).code == 0
    log = folder / "audit" / "log.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole.splitlines(keepends=True)[0])
    assert wardround("site", "audit", "verify", folder).code == 0
    cut = wardround("site", "audit", "verify", folder, "--counter", 2, "--head", head)
    assert cut.code == 3
    assert "entries were removed" in cut.err
    log.write_bytes(whole.replace(b"site-info", b"introductioN"))
    assert wardround("site", "audit", "verify", folder).code == 3


def test_audit_show_prints_what_left(wardround: Callable[..., Any], tmp_path: Path) -> None:
    folder = write_site(tmp_path / "north")
    ask(folder, DESCRIBE)
    said = wardround("site", "audit", "show", folder)
    assert said.code == 0
    assert "site-info" in said.out


def test_audit_show_fits_eighty_columns_and_prints_all_as_json(
    wardround: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    folder = write_site(tmp_path / "north")
    ask(folder, DESCRIBE)
    said = wardround("site", "audit", "show", folder)
    (line,) = [line for line in said.out.splitlines() if "site-info" in line]
    (entry,) = [
        one
        for one in json.loads(wardround("site", "audit", "show", folder, "--json").out)
        if one["event"]["kind"] == "site-info"
    ]
    event = entry["event"]
    assert len(event["study"]) == len(event["sha256"]) == len(entry["hash"]) == 64
    shown = [str(entry["number"]), *entry["time"].removesuffix("+00:00").split("T"), "site-info"]
    assert line.split() == [*shown, "allow", event["study"][:8], str(event["bytes"])]
    assert max(map(len, said.out.splitlines())) <= 80
