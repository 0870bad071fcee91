"""A site folder with a study that waits, for tests of the hospital's page."""

import csv
from pathlib import Path

import pytest
from tests.unit.client.doctor.test_terms import study_of

from wardround.client.policy.approvals import note_pending
from wardround.common.security.audit_log import AuditLog, Event
from wardround.common.security.signing_key import open_key
from wardround.common.study.study import Study

PATIENT = "CANARYPATIENT"


@pytest.fixture
def private_study() -> Study:
    return study_of(expected_patients=5, epsilon=7.99)


@pytest.fixture
def site(tmp_path: Path, private_study: Study) -> Path:
    folder = tmp_path / "north"
    folder.mkdir()
    (folder / "site.toml").write_text('name = "north"\n')
    (folder / "policy.toml").write_text("lifetime_epsilon = 8.0\n")
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "label", "split", "a"])
        for number in range(60):
            split = ("train", "train", "train", "train", "validation", "test")[number // 2 % 6]
            writer.writerow([f"{PATIENT}{number}", ("no", "yes")[number % 2], split, number % 7])
    log = AuditLog(folder / "audit", open_key(folder / "keys"), durable=False)
    log.append(Event(kind="update", study=private_study.digest, run="r", round=1, bytes=1_234))
    log.append(Event(kind="refusal", verdict="deny: approved", study=private_study.digest))
    note_pending(folder, private_study)
    return folder
