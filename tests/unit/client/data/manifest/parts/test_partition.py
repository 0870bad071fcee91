import threading
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from wardround.client.data.manifest.examination import Examination, SplitName
from wardround.client.data.manifest.parts.partition import partition_patients
from wardround.client.data.manifest.parts.written_parts import parts_are_mixed, read_parts
from wardround.client.policy.policy import POLICY_FILE
from wardround.client.site.folder import Site, open_site
from wardround.common.errors import DataError
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

PATIENTS = some.lists(some.text(min_size=1, max_size=8), min_size=1, max_size=40)
FORTY = [f"patient {number}" for number in range(40)]


def study_of(name: str = "chest", seed: int = 0, **evaluation: Any) -> Study:
    return parse_study(
        {
            "study": {"name": name, "task": "classification"},
            "data": {"classes": ["a", "b"], "size": [32, 32]},
            "model": {"network": "small-cnn"},
            "evaluation": evaluation,
            "simulation": {"seed": seed},
        }
    )


def listed(*patients: str, split: SplitName | None = None) -> list[Examination]:
    return [Examination(row, p, (), (0,), split=split) for row, p in enumerate(patients, start=2)]


def site_in(folder: Path, simulated: bool = False) -> Site:
    folder.mkdir(exist_ok=True)
    (folder / "site.toml").write_text('name = "north"\n')
    if simulated:
        (folder / POLICY_FILE).write_text('simulated = true\napproved = "any"\n')
    return open_site(folder)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return site_in(tmp_path / "north")


def parted(rows: list[Examination], site: Site, study: Study | None = None) -> dict[str, SplitName]:
    partition = partition_patients(rows, study or study_of(), site)
    return {e.patient: split for split, part in partition.parts.items() for e in part}


@settings(max_examples=50, deadline=None)
@given(PATIENTS, PATIENTS)
def test_adding_patients_never_moves_another(first: list[str], more: list[str]) -> None:
    with TemporaryDirectory() as folder:
        site = site_in(Path(folder) / "north")
        before = parted(listed(*FORTY, *first), site)
        after = parted(listed(*reversed(more), *first, *FORTY), site)
    assert {patient: after[patient] for patient in before} == before


@settings(max_examples=50, deadline=None)
@given(PATIENTS)
def test_all_examinations_of_a_patient_share_a_split(patients: list[str]) -> None:
    with TemporaryDirectory() as folder:
        parts = partition_patients(
            listed(*FORTY, *patients, *patients), study_of(), site_in(Path(folder) / "north")
        ).parts
    homes: dict[str, set[str]] = {}
    for split, part in parts.items():
        for examination in part:
            homes.setdefault(examination.patient, set()).add(split)
    assert all(len(home) == 1 for home in homes.values())
    assert sum(map(len, parts.values())) == 40 + 2 * len(patients)


def test_no_later_study_moves_anybody(site: Site) -> None:
    first = parted(listed(*FORTY), site)
    for number in range(20):
        study = study_of(f"study {number}", number, validation_fraction=0.3, test_fraction=0.3)
        assert parted(listed(*FORTY), site, study) == first


def test_every_hospital_draws_its_own(tmp_path: Path) -> None:
    draws = [parted(listed(*FORTY), site_in(tmp_path / name)) for name in ("one", "two")]
    assert draws[0] != draws[1]


def test_a_simulated_site_draws_by_the_seed_of_the_study(tmp_path: Path) -> None:
    one, same, other = (
        parted(listed(*FORTY), site_in(tmp_path / name, simulated=True), study_of(name, seed))
        for name, seed in (("one", 1), ("two", 1), ("three", 2))
    )
    assert one == same
    assert one != other


def test_identifiers_are_not_written_and_only_the_owner_reads_the_file(site: Site) -> None:
    parted(listed(*FORTY), site)
    (file,) = (site.folder / "parts").iterdir()
    assert "patient" not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_who_left_the_manifest_keeps_the_part(site: Site) -> None:
    before = parted(listed(*FORTY), site)
    gone = [patient for patient in FORTY if before[patient] == "test"][:2]
    parted(listed(*(set(FORTY) - set(gone))), site)
    assert parted(listed(*FORTY), site) == before


def test_who_only_looks_writes_nothing(site: Site) -> None:
    looked = partition_patients(listed(*FORTY), study_of(), site, keeps=False)
    assert Counter({part: len(held) for part, held in looked.parts.items()}).total() == 40
    assert not (site.folder / "parts").exists()


def test_the_manifest_goes_before_a_draw(site: Site) -> None:
    rows = [*listed("a", split="train"), *listed("b", split="validation")]
    rows += listed("c", split="test")
    parts = partition_patients(rows, study_of(), site).parts
    assert [[e.patient for e in part] for part in parts.values()] == [["a"], ["b"], ["c"]]
    assert not parts_are_mixed(site.folder)


def test_a_column_that_moves_a_patient_is_said_and_remembered(site: Site) -> None:
    drawn = parted(listed(*FORTY), site)
    moved = next(patient for patient, part in drawn.items() if part == "train")
    rows = [row for p in FORTY for row in listed(p, split="test" if p == moved else drawn[p])]
    for _ in range(2):  # it is said as long as it is so
        (note,) = partition_patients(rows, study_of(), site).notes
        assert note.startswith("the column split has moved 1 patients to another part, 1 of them")
        assert moved not in note
    assert parts_are_mixed(site.folder)
    back = [row for p in FORTY for row in listed(p, split=drawn[p])]
    assert partition_patients(back, study_of(), site).notes
    assert parts_are_mixed(site.folder)
    assert parted(listed(*FORTY), site) == drawn  # without the column: as it was last


def test_other_shares_are_said_and_move_nobody(site: Site) -> None:
    before = parted(listed(*FORTY), site)
    assert not partition_patients(listed(*FORTY), study_of("another"), site).notes
    partition = partition_patients(listed(*FORTY), study_of(test_fraction=0.3), site)
    assert "asks for 15% of the patients for validation and 30% for testing" in partition.notes[0]
    assert {e.patient for e in partition.parts["test"]} == {
        patient for patient, part in before.items() if part == "test"
    }


def test_a_study_without_testing_leaves_test_patients_alone(site: Site) -> None:
    before = Counter(parted(listed(*FORTY), site).values())
    partition = partition_patients(listed(*FORTY), study_of(test_fraction=0.0), site)
    assert not partition.parts["test"]
    assert len(partition.parts["train"]) == before["train"]
    assert f"{before['test']} test patients are left out" in partition.notes[-1]


def test_new_patients_are_drawn_among_themselves(site: Site) -> None:
    parted(listed(*FORTY), site)
    more = [f"more {number}" for number in range(100)]
    after = parted(listed(*FORTY, *more), site)
    counts = Counter(after[patient] for patient in more)
    assert (counts["train"], counts["validation"], counts["test"]) == (70, 15, 15)


@pytest.mark.parametrize("absent", ["train", "validation", "test"])
def test_a_split_without_patients_is_refused_where_the_study_asks_for_one(
    absent: SplitName, site: Site
) -> None:
    names: tuple[SplitName, ...] = ("train", "validation", "test")
    rows = [e for name in names if name != absent for e in listed(name, split=name)]
    with pytest.raises(DataError, match=f"none of the 2 patients .* is in {absent}: write"):
        partition_patients(rows, study_of(), site)
    assert read_parts(site.folder) is None


def test_a_split_that_the_study_does_not_ask_for_may_be_empty(site: Site) -> None:
    study = study_of(validation_fraction=0.0, test_fraction=0.0)
    parts = partition_patients(listed("a", "b"), study, site).parts
    assert [len(part) for part in parts.values()] == [2, 0, 0]


def test_three_patients_are_enough_and_two_are_refused_with_the_remedy(site: Site) -> None:
    with pytest.raises(DataError, match=r"\(too few\).*a column split that puts some patients in"):
        partition_patients(listed("a", "b"), study_of(), site)
    assert read_parts(site.folder) is None  # nothing happened
    assert set(parted(listed("a", "b", "c"), site).values()) == {"train", "validation", "test"}


def test_a_study_that_wants_more_than_was_drawn_is_told_why_it_gets_none(site: Site) -> None:
    parted(listed("a", "b", "c"), site, study_of(test_fraction=0.0))
    with pytest.raises(DataError, match=r"is in test \(they keep the parts .* column split"):
        partition_patients(listed("a", "b", "c"), study_of(), site)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: "",
        lambda text: text.replace('"draw"', '"drawn"'),
        lambda text: text.partition("\n")[2],
        lambda text: text.replace('"test":["', '"test":["A'),
    ],
)
def test_a_damaged_file_is_refused_and_never_drawn_anew(change: Any, site: Site) -> None:
    parted(listed(*FORTY), site)
    file = site.folder / "parts" / "patients.jsonl"
    file.write_text(damaged := change(file.read_text()))
    with pytest.raises(DataError, match="is not as the site wrote it: put a copy back"):
        partition_patients(listed(*FORTY), study_of(), site)
    assert file.read_text() == damaged


def test_parts_that_begin_after_the_ledger_are_taken_for_mixed(site: Site) -> None:
    ledger = site.folder / "ledger" / "ledger.jsonl"
    ledger.parent.mkdir()
    ledger.write_text("{}\n")
    assert parts_are_mixed(site.folder)
    parted(listed(*FORTY), site)
    assert parts_are_mixed(site.folder)


def test_parts_that_begin_before_the_ledger_are_not_mixed(site: Site) -> None:
    assert not parts_are_mixed(site.folder)
    parted(listed(*FORTY), site)
    (site.folder / "ledger").mkdir()
    (site.folder / "ledger" / "ledger.jsonl").write_text("{}\n")
    assert not parts_are_mixed(site.folder)


def test_many_who_open_a_new_site_at_once_agree(site: Site) -> None:
    found: list[dict[str, SplitName]] = []
    openers = [
        threading.Thread(target=lambda: found.append(parted(listed(*FORTY), site)))
        for _ in range(16)
    ]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join()
    assert len(found) == 16
    assert all(one == found[0] for one in found)
    written = read_parts(site.folder)
    assert written is not None
    assert len(written.lines) == 1


def test_ten_thousand_patients_are_assigned_and_reopened_in_no_time(site: Site) -> None:
    rows = listed(*(f"patient {number}" for number in range(10_000)))
    took = []
    for _ in range(2):
        started = time.process_time()
        partition_patients(rows, study_of(), site)
        took.append(time.process_time() - started)
    assert took[0] < 0.8
    assert took[1] < 0.4
