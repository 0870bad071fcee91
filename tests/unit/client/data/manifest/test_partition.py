from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from wardround.client.data.manifest.examination import Examination, SplitName
from wardround.client.data.manifest.partition import partition_patients, patient_fraction
from wardround.common.errors import DataError
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

PATIENTS = some.lists(some.text(min_size=1, max_size=8), min_size=1, max_size=40)


def study_of(name: str = "chest", **evaluation: Any) -> Study:
    return parse_study(
        {
            "study": {"name": name, "task": "classification"},
            "data": {"classes": ["a", "b"], "size": [32, 32]},
            "model": {"network": "small-cnn"},
            "evaluation": evaluation,
        }
    )


def listed(*patients: str, split: SplitName | None = None) -> list[Examination]:
    return [Examination(row, p, (), (0,), split=split) for row, p in enumerate(patients, start=2)]


def splits_of(patients: list[str]) -> dict[str, SplitName]:
    # Patients that fall into each split for certain, so that none is refused as empty.
    everywhere = [f"patient {number}" for number in range(100)]
    parts = partition_patients(listed(*everywhere, *patients), study_of())
    return {e.patient: split for split, part in parts.items() for e in part}


@given(PATIENTS, PATIENTS)
def test_adding_patients_never_moves_another(first: list[str], more: list[str]) -> None:
    before, after = splits_of(first), splits_of(first + more)
    assert {patient: after[patient] for patient in before} == before


@given(PATIENTS)
def test_all_examinations_of_a_patient_share_a_split(patients: list[str]) -> None:
    everywhere = [f"patient {number}" for number in range(100)]
    parts = partition_patients(listed(*everywhere, *patients, *patients), study_of())
    homes: dict[str, set[str]] = {}
    for split, part in parts.items():
        for examination in part:
            homes.setdefault(examination.patient, set()).add(split)
    assert all(len(home) == 1 for home in homes.values())
    assert sum(map(len, parts.values())) == 100 + 2 * len(patients)


def test_fractions_are_spread_evenly() -> None:
    places = sorted(patient_fraction("chest", f"patient {number}") for number in range(10_000))
    # Kolmogorov-Smirnov distance; 1.95 / sqrt(n) is passed by chance once in a thousand.
    distance = max(abs(place - rank / 10_000) for rank, place in enumerate(places))
    assert distance < 0.0195


def test_the_shares_are_those_of_the_study() -> None:
    everybody = listed(*(f"patient {number}" for number in range(10_000)))
    parts = partition_patients(everybody, study_of(validation_fraction=0.2, test_fraction=0.1))
    assert len(parts["validation"]) == pytest.approx(2000, abs=130)
    assert len(parts["test"]) == pytest.approx(1000, abs=100)


def test_another_study_parts_the_patients_another_way() -> None:
    assert patient_fraction("chest", "p") != patient_fraction("brain", "p")


def test_the_manifest_goes_before_the_hash() -> None:
    rows = [*listed("a", split="train"), *listed("b", split="validation")]
    rows += listed("c", split="test")
    parts = partition_patients(rows, study_of())
    assert [[e.patient for e in part] for part in parts.values()] == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("absent", ["train", "validation", "test"])
def test_a_split_without_patients_is_refused_where_the_study_asks_for_one(
    absent: SplitName,
) -> None:
    names: tuple[SplitName, ...] = ("train", "validation", "test")
    rows = [e for name in names if name != absent for e in listed(name, split=name)]
    with pytest.raises(DataError, match=f"none of the 2 patients .* is in {absent}: write"):
        partition_patients(rows, study_of())


def test_a_split_that_the_study_does_not_ask_for_may_be_empty() -> None:
    study = study_of(validation_fraction=0.0, test_fraction=0.0)
    parts = partition_patients(listed("a", "b"), study)
    assert [len(part) for part in parts.values()] == [2, 0, 0]


def test_too_few_patients_for_the_hash_are_refused_with_the_remedy() -> None:
    study = study_of(validation_fraction=0.001, test_fraction=0.0)
    with pytest.raises(DataError, match=r"falls into validation.*evaluation.validation_fraction"):
        partition_patients(listed("a"), study)
