"""A server that wants a chosen patient among those on whom its models are measured."""

import hashlib
from pathlib import Path

import pytest

from wardround.client.data.cohorts import open_cohorts
from wardround.client.site.folder import open_site
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

pytestmark = pytest.mark.attacks
PATIENTS = tuple(f"patient {number:02}" for number in range(60))
TEST_SHARE = 0.15


def hospital(folder: Path, patients: tuple[str, ...] = PATIENTS) -> Path:
    folder.mkdir()
    (folder / "site.toml").write_text('name = "north"\n', encoding="utf-8")
    rows = (f"{patient},{number % 2},{number}" for number, patient in enumerate(patients))
    (folder / "manifest.csv").write_text("\n".join(["patient,label,x", *rows]), encoding="utf-8")
    return folder


def study_called(name: str, **evaluation: float) -> Study:
    return parse_study(
        {
            "study": {"name": name, "task": "classification"},
            "data": {"kind": "table", "classes": ["a", "b"], "covariates": [{"name": "x"}]},
            "model": {"network": "mlp", "features": [4]},
            "evaluation": {"test_fraction": TEST_SHARE, **evaluation},
        }
    )


def name_against(patient: str) -> str:
    """Grind names until the patient is in the test part, as sites once parted their patients."""
    for number in range(10_000):
        name = f"a study of chests {number}"
        digest = hashlib.sha256(f"{name}\x00{patient}".encode()).digest()
        if int.from_bytes(digest[:6], "big") / 2**48 < TEST_SHARE:
            return name
    raise AssertionError


def measured_in(folder: Path, study: Study) -> set[str]:
    return {
        examination.patient
        for examination in open_cohorts(open_site(folder), study).test.examinations
    }


def test_no_name_of_a_study_puts_a_chosen_patient_into_the_test_part(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north")
    hits = [p for p in PATIENTS if p in measured_in(folder, study_called(name_against(p)))]
    assert len(hits) <= TEST_SHARE * len(PATIENTS) + 1  # those who were drawn, and nobody else
    assert all(measured_in(folder, study_called(name_against(p))) == set(hits) for p in hits)


def test_the_first_study_of_a_hospital_hits_a_chosen_patient_by_chance_only(tmp_path: Path) -> None:
    study, chosen = study_called(name_against(PATIENTS[7])), PATIENTS[7]
    hits = sum(
        chosen in measured_in(hospital(tmp_path / f"hospital {number}"), study)
        for number in range(60)
    )
    assert hits <= 24  # of Binomial(60, 0.15); more come once in 100,000 tries


def test_no_study_trains_on_whom_another_tested(tmp_path: Path) -> None:
    folder = hospital(tmp_path / "north")
    trained, tested = set[str](), set[str]()
    for number in range(30):
        cohorts = open_cohorts(open_site(folder), study_called(f"study {number}"))
        trained |= {examination.patient for examination in cohorts.train.examinations}
        tested |= {examination.patient for examination in cohorts.test.examinations}
    assert not trained & tested


def test_no_shares_make_a_lone_new_patient_a_test_patient_for_certain(tmp_path: Path) -> None:
    largest = {"test_fraction": 0.35, "validation_fraction": 0.3}  # that a policy allows at first
    hits = 0
    for number in range(60):
        folder = hospital(tmp_path / f"hospital {number}")
        measured_in(folder, study_called("before", test_fraction=0.05))
        with (folder / "manifest.csv").open("a", encoding="utf-8") as manifest:
            manifest.write("\nthe minister,1,7")
        hits += "the minister" in measured_in(folder, study_called("after", **largest))
    assert hits <= 38  # of Binomial(60, 0.35); more come once in 100,000 tries
