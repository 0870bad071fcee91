"""A canary round over hospitals with policies and data of their own: what it finds, what leaves."""

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.hospitals.hospital import ALONE, STUDY, log_of, write_policy, write_site
from tests.support.hospitals.two_consortia import private_study, write_hospital

import wardround
from wardround.client.egress.canary import answer as canary_answer
from wardround.client.egress.canary import stages as canary_stages
from wardround.client.privacy.ledger.file import LEDGER_FILE
from wardround.client.session.session import SiteSession
from wardround.client.training import local
from wardround.common.messages.canary import CANARY, FINDINGS, SPANS, WORDS, times_of
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.study import Study
from wardround.server.checkpoints.canary import CanaryReport
from wardround.server.rounds.canary.asking import STAGES
from wardround.server.rounds.canary.report import Called, try_round
from wardround.server.sites.deadlines import Deadlines
from wardround.server.sites.exchange import Node
from wardround.simulations.experiment.federation import open_grid


def study_with(**changes: object) -> Study:
    return with_changes(STUDY, {key.replace("__", "."): value for key, value in changes.items()})


def hospital(folder: Path, study: Study = STUDY, patients: int = 200, **policy: str) -> Path:
    return write_site(folder, patients, **{"approved": f'["{study.digest}"]', **policy})


def try_at(study: Study, *folders: Path, seconds: float | None = None) -> CanaryReport:
    runs = folders[0].parent / "server"
    runs.mkdir(exist_ok=True)
    with open_grid(folders, study, ALONE) as grid:
        contexts = grid._contexts  # type: ignore[attr-defined] # of the in-process engine
        nodes = tuple(
            Node(number, Path(str(one.node_config["site"])).name, 0)
            for number, one in contexts.items()
        )
        called = Called(tuple(sorted(nodes, key=lambda node: node.site)))
        return try_round(grid, study, called, Deadlines(seconds), runs)


def states(report: CanaryReport, site: str) -> Mapping[str, str]:
    return {row.stage: row.state for row in report.rows if row.site == site}


def faults(report: CanaryReport) -> dict[tuple[str, str], str]:
    return {(r.site, r.stage): r.fact for r in report.rows if r.state == "would fail"}


def notes(report: CanaryReport) -> dict[tuple[str, str], str]:
    return {(r.site, r.stage): r.fact for r in report.rows if r.state == "to know"}


def test_where_nothing_would_fail_every_stage_says_so_and_nothing_is_trained_or_kept(
    tmp_path: Path,
) -> None:
    folders = [hospital(tmp_path / name) for name in ("north", "south")]
    report = try_at(STUDY, *folders)
    assert not report.fails
    assert set(states(report, "north")) == set(STAGES)
    assert set(states(report, "north").values()) == {"ok"}
    server = states(report, "the server")
    assert server == dict.fromkeys(("sites", "metric", "aggregation", "commit", "model"), "ok")
    assert report.round_seconds is not None
    assert report.study_seconds == report.rounds * report.round_seconds
    assert report.bytes_of_a_site > 0
    kinds = [entry.event.kind for entry in log_of(tmp_path / "north")]
    assert kinds == ["canary", "carry"]
    assert not (tmp_path / "north" / "rounds").exists()
    assert not (tmp_path / "north" / "evaluations").exists()
    assert not list((tmp_path / "server").iterdir())


def test_the_answer_is_the_same_whatever_model_a_server_would_send(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north")
    first = try_at(STUDY, folder)
    again = try_at(STUDY, folder)
    assert [(r.site, r.stage, r.state) for r in first.rows] == [
        (r.site, r.stage, r.state) for r in again.rows
    ]


# --- Faults, each as it is met in hospitals -------------------------------------------------------


def test_a_manifest_with_a_bad_cell_is_found_and_the_rest_is_not_tried(tmp_path: Path) -> None:
    folders = [hospital(tmp_path / name) for name in ("north", "south")]
    manifest = folders[1] / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("p7,b,", "p7,b,many"))
    report = try_at(STUDY, *folders)
    found = faults(report)
    assert found["south", "data"] == FINDINGS["manifest"].fact
    assert states(report, "south")["step"] == "not tried"
    assert all(site != "north" for site, _ in found)


def picture_study(**changes: object) -> Study:
    content = {
        "study": {"name": "pictures", "task": "classification"},
        "data": {"classes": ["a", "b"], "size": [8, 8]},
        "model": {"network": "small-cnn", "features": [4, 4], "normalisation": "group"},
        "training": {"local_steps": 2, "batch_size": 8},
        "federation": {"rounds": 2},
    }
    return with_changes(parse_study(content), dict(changes))


def picture_hospital(folder: Path, study: Study, **policy: str) -> Path:
    (folder / "images").mkdir(parents=True)
    drawn = np.random.default_rng(0)
    rows = ["patient,image,label,split"]
    for number in range(80):
        pixels = drawn.integers(0, 256, (8, 8)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        part = ("train", "train", "validation", "test")[number // 20]
        rows.append(f"CANARY{number},images/{number}.png,{'ab'[number % 2]},{part}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    (folder / "site.toml").write_text(f'name = "{folder.name}"\n')
    write_policy(folder, **{"approved": f'["{study.digest}"]', **policy})
    return folder


@pytest.mark.parametrize(("broken", "word"), [(1, "few-unreadable"), (15, "many-unreadable")])
def test_images_that_cannot_be_read_late_in_the_data_are_a_word_and_the_rest_is_tried(
    tmp_path: Path, broken: int, word: str
) -> None:
    study = picture_study()
    folder = picture_hospital(tmp_path / "north", study)
    for number in range(80 - broken, 80):  # test patients: no training would have met them
        (folder / "images" / f"{number}.png").write_bytes(b"\x89PNG broken")
    report = try_at(study, folder)
    assert faults(report)["north", "data"] == FINDINGS[word].fact
    assert states(report, "north")["step"] == "ok"
    said = " ".join(row.fact + row.remedy for row in report.rows if row.site == "north")
    assert "CANARY" not in said
    assert not any(letter.isdigit() for letter in said)


def test_a_class_that_no_training_patient_has_is_found(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north")
    manifest = folder / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",b,", ",a,"))
    assert faults(try_at(STUDY, folder))["north", "classes"] == FINDINGS["class-missing"].fact


def test_a_test_part_without_patients_is_found(tmp_path: Path) -> None:
    study = picture_study()
    folder = picture_hospital(tmp_path / "north", study)
    manifest = folder / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",test", ",train"))
    assert faults(try_at(study, folder))["north", "data"] == FINDINGS["no-test"].fact


def test_a_device_without_room_for_a_step_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hospital(tmp_path / "north")

    def full(*_: object) -> None:
        msg = "CUDA out of memory. Tried to allocate 18.00 GiB"
        raise torch.OutOfMemoryError(msg)

    monkeypatch.setattr(local, "_differentiate", full)
    report = try_at(STUDY, folder)
    assert faults(report)["north", "step"] == FINDINGS["memory"].fact
    assert states(report, "north")["evaluation"] == "ok"


def test_a_disk_without_room_for_what_a_round_writes_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hospital(tmp_path / "north")
    nearly_full = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr(canary_stages.shutil, "disk_usage", lambda _: nearly_full)
    assert faults(try_at(STUDY, folder))["north", "disk"] == FINDINGS["disk-full"].fact


def test_a_disk_that_says_it_has_room_and_has_none_is_found_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hospital(tmp_path / "north")
    real, here = canary_stages.os.fsync, folder / "state" / "canary.part"

    def over_quota(descriptor: int) -> None:
        if here.exists():
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        real(descriptor)

    monkeypatch.setattr(canary_stages.os, "fsync", over_quota)
    assert faults(try_at(STUDY, folder))["north", "disk"] == FINDINGS["disk-full"].fact
    assert not here.exists()


def test_a_site_of_another_release_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hospital(tmp_path / "north")
    monkeypatch.setattr(canary_answer, "wardround", type("Other", (), {"__version__": "99.1.0"}))
    found = faults(try_at(STUDY, folder))
    assert "99.1.0" in found["north", "version"]
    assert wardround.__version__ in found["north", "version"]


def test_a_budget_for_some_rounds_and_not_for_all_is_found_and_nothing_is_charged(
    tmp_path: Path,
) -> None:
    study = private_study("dear")
    folder = write_hospital(tmp_path / "north", study)
    report = try_at(study, folder)
    assert faults(report)["north", "budget"] == FINDINGS["budget-some"].fact
    ledger = tmp_path / "ledger" / LEDGER_FILE
    assert not ledger.exists()
    other = with_changes(study, {"privacy.noise_multiplier": 40.0})
    write_policy(folder, approved=f'["{other.digest}"]')
    assert ("north", "budget") not in faults(try_at(other, folder))


def test_an_approval_for_fewer_rounds_than_the_study_has_is_found(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north", rounds_factor="1.0")
    (folder / "rounds").mkdir()
    (folder / "rounds" / f"{STUDY.digest}.jsonl").write_text('{"round": 1}\n')
    assert faults(try_at(STUDY, folder))["north", "budget"] == FINDINGS["rounds-some"].fact


def test_measurements_that_would_end_before_the_study_are_found(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north", largest_evaluations_a_day="2")
    assert faults(try_at(STUDY, folder))["north", "budget"] == FINDINGS["measured-some"].fact


def test_a_strategy_whose_minimum_is_not_met_is_found(tmp_path: Path) -> None:
    study = study_with(federation__strategy="krum")
    folders = [hospital(tmp_path / name, study) for name in ("north", "south")]
    found = faults(try_at(study, *folders))
    assert "2 of 2 sites get through a round" in found["the server", "sites"]
    assert ("the server", "aggregation") in found


def test_a_quorum_that_a_failing_site_breaks_is_found(tmp_path: Path) -> None:
    study = study_with(federation__minimum_sites=2)
    folders = [
        hospital(tmp_path / "north", study),
        hospital(tmp_path / "south", study, smallest_cohort="190"),
    ]
    found = faults(try_at(study, *folders))
    assert found["south", "classes"] == FINDINGS["too-few"].fact
    assert "1 of 2 sites get through a round" in found["the server", "sites"]


def test_a_metric_that_would_be_withheld_in_every_round_is_said_before_the_first(
    tmp_path: Path,
) -> None:
    folder = hospital(tmp_path / "north", patients=90)  # nine validation patients
    found = faults(try_at(STUDY, folder))
    assert found["north", "metrics"] == FINDINGS["withheld-few"].fact
    assert "no site would say auroc" in found["the server", "metric"]


def test_a_policy_that_lets_no_metric_out_is_said_and_fails_only_where_all_have_it(
    tmp_path: Path,
) -> None:
    folders = [hospital(tmp_path / "north", metrics='"none"'), hospital(tmp_path / "south")]
    report = try_at(STUDY, *folders)
    assert notes(report)["north", "metrics"] == FINDINGS["withheld-policy"].fact
    assert not report.fails
    write_policy(folders[1], metrics='"none"')
    assert ("the server", "metric") in faults(try_at(STUDY, *folders))


def test_a_deadline_that_is_shorter_than_a_round_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_with(training__local_epochs=None, training__local_steps=100_000)
    folder = hospital(tmp_path / "north", study)
    found = faults(try_at(study, folder, seconds=5.0))
    assert "is waited for 5 s" in found["north", "time"]


def test_a_round_that_the_policy_would_stop_is_found(tmp_path: Path) -> None:
    study = study_with(training__local_epochs=None, training__local_steps=100_000)
    folder = hospital(tmp_path / "north", study, largest_training_minutes="0.01")
    assert faults(try_at(study, folder))["north", "step"] == FINDINGS["minutes"].fact


def test_an_update_that_is_not_finite_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = hospital(tmp_path / "north"), SiteSession.make_steps

    def run_away(session: SiteSession, *order: Any) -> Any:
        work, trained = real(session, *order)
        return work, {name: value * float("nan") for name, value in trained.items()}

    monkeypatch.setattr(SiteSession, "make_steps", run_away)
    found = faults(try_at(STUDY, folder))
    assert found["north", "update"] == FINDINGS["not-finite"].fact
    assert found["north", "guard"] == FINDINGS["guard"].fact


def test_evidence_that_the_policy_lets_not_out_is_said(tmp_path: Path) -> None:
    study = study_with(evaluation__pack=["intervals", "gains"], evaluation__test_fraction=0.3)
    folders = [
        hospital(tmp_path / "none", study),
        hospital(tmp_path / "some", study, packs='["intervals"]'),
    ]
    said = notes(try_at(study, *folders))
    assert said["none", "evidence"] == FINDINGS["evidence-none"].fact
    assert said["some", "evidence"] == FINDINGS["evidence-some"].fact


def test_an_update_that_is_larger_than_the_policy_allows_is_found(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north", largest_message_megabytes="0.0001")
    found = faults(try_at(STUDY, folder))
    assert found["north", "guard"] == FINDINGS["too-large"].fact
    assert ("north", "transfer") in found


@pytest.mark.parametrize(
    ("policy", "stage", "words"),
    [
        ({"approved": "[]"}, "approval", "nobody at the hospital has approved"),
        ({"tasks": '["segmentation"]'}, "approval", "a rule of the hospital's policy"),
        ({"privacy_required": "true"}, "approval", "a rule of the hospital's policy"),
        ({"largest_canaries_of_a_study": "0"}, "approval", "as many canary rounds"),
    ],
)
def test_what_a_policy_does_not_allow_is_said_as_it_would_be_of_the_study(
    tmp_path: Path, policy: dict[str, str], stage: str, words: str
) -> None:
    folder = hospital(tmp_path / "north", **policy)
    report = try_at(STUDY, folder)
    assert words in faults(report)["north", stage]
    assert states(report, "north")["data"] == "not tried"
    assert states(report, "north")["transfer"] == "not tried"


# --- What leaves a hospital -----------------------------------------------------------------------


def test_a_hospital_answers_only_so_many_canaries_of_a_study(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north", largest_canaries_of_a_study="2")
    assert not try_at(STUDY, folder).fails
    assert not try_at(STUDY, folder).fails
    found = faults(try_at(STUDY, folder))
    assert "as many canary rounds" in found["north", "approval"]
    denied = [e.event.verdict for e in log_of(folder) if e.event.kind == "refusal"]
    assert denied == ["deny: canaries"]


def private_pictures() -> Study:
    privacy = {"mode": "patient", "epsilon": 8.0, "sampling_rate": 0.2, "expected_patients": 8}
    return picture_study(**{f"privacy.{key}": value for key, value in privacy.items()})


@pytest.mark.parametrize("fault", ["none", "one image", "a class", "no test"])
def test_under_privacy_for_patients_no_word_depends_on_a_patient(
    tmp_path: Path, fault: str
) -> None:
    study = private_pictures()
    said = []
    for name in ("whole", "other"):
        folder = picture_hospital(tmp_path / name / "north", study)
        if name == "other":
            manifest = folder / "manifest.csv"
            text = manifest.read_text()
            if fault == "one image":
                (folder / "images" / "5.png").write_bytes(b"broken")
            elif fault == "a class":
                manifest.write_text(text.replace(",b,", ",a,"))
            elif fault == "no test":
                manifest.write_text(text.replace(",test", ",train"))
        report = try_at(study, folder)
        said.append([(r.stage, r.state, r.fact) for r in report.rows])
    assert said[0] == said[1]


def test_under_privacy_a_round_that_fails_is_said_without_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = private_pictures()
    folder = picture_hospital(tmp_path / "north", study)

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(SiteSession, "make_steps", full)
    report = try_at(study, folder)
    assert faults(report)["north", "step"] == FINDINGS["failed"].fact
    assert report.round_seconds is None


def test_every_word_has_a_fact_and_a_remedy_and_every_span_its_times() -> None:
    assert all(one.fact and one.remedy for one in FINDINGS.values())
    assert len(set(WORDS)) == len(WORDS)
    for span in SPANS:
        times = times_of(span)
        assert times is not None
        assert times[0] < times[1]
    assert CANARY.startswith("query.")  # a question: it takes no model's place on the site's disk
