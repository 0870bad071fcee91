from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.common.errors import InputError
from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.study import Study
from wardround.simulations.datasets.examinations import (
    DatasetFacts,
    Examinations,
    PublicExamination,
)
from wardround.simulations.run_files.folder import SplitRow
from wardround.simulations.sites.assignment import (
    draw_splits,
    duplicated_images,
    load_assignment,
    save_assignment,
    split_table,
    too_small_steps,
    with_splits,
)
from wardround.simulations.sites.split import split_examinations

STUDY = load_study(Path(__file__).parents[4] / "simulations" / "studies" / "pneumonia-xray.toml")
CLASSES = tuple(f"class {number}" for number in range(5))
FACTS = DatasetFacts("test", "test", "", "", "")


def study_with(split: str, **simulation: object) -> Study:
    changes: dict[str, object] = {"data.classes": list(CLASSES), "simulation.split": split}
    changes.update({f"simulation.{key}": value for key, value in simulation.items()})
    return with_changes(STUDY, changes)


def make_examinations(patients: int, seed: int = 0, per_patient: int = 2) -> Examinations:
    """Patients with a class each, a known split, and a natural site."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(patients):
        label = CLASSES[int(generator.integers(len(CLASSES)))]
        split = ("train", "train", "validation", "test")[number % 4]
        site = ("north", "south/east")[number % 3 == 0]
        for _ in range(per_patient):
            rows.append(PublicExamination(f"p{number}", {"image": "x"}, label, "", site, split))
    return Examinations(tuple(rows), FACTS)


@settings(max_examples=60, deadline=None)
@given(
    split=st.sampled_from(["iid", "dirichlet", "quantity", "one-large", "classes"]),
    patients=st.integers(40, 120),
    sites=st.integers(1, 8),
    alpha=st.sampled_from([0.01, 0.3, 5.0, 1e6]),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_patient_is_in_one_site_and_every_site_has_every_split(
    split: str, patients: int, sites: int, alpha: float, seed: int
) -> None:
    examinations = make_examinations(patients)
    study = study_with(split, sites=sites, alpha=alpha, seed=seed, classes_per_site=5)
    assignment = split_examinations(examinations, study)
    held: dict[str, set[str]] = defaultdict(set)
    rows = 0
    for site in assignment.sites:
        for row in assignment.rows_of(site, examinations):
            held[site].add(row.patient)
            rows += 1
    assert rows == len(examinations.rows)
    assert sum(len(names) for names in held.values()) == patients
    assert len(assignment.sites) == sites
    for site in assignment.sites:
        splits = {row.split for row in assignment.rows_of(site, examinations)}
        assert splits == {"train", "validation", "test"}
    assert split_examinations(examinations, study) == assignment


def test_another_seed_gives_another_split() -> None:
    examinations = make_examinations(60)
    for split in ("iid", "dirichlet", "quantity", "one-large", "classes"):
        first, second = (
            split_examinations(examinations, study_with(split, seed=seed, classes_per_site=3))
            for seed in (0, 1)
        )
        assert first.site_of != second.site_of


def sizes(examinations: Examinations, study: Study) -> list[int]:
    assignment = split_examinations(examinations, study)
    counts = Counter(assignment.site_of.values())
    return [counts[site] for site in assignment.sites]


def test_iid_sites_are_of_equal_size() -> None:
    assert max(sizes(make_examinations(62), study_with("iid"))) == 16


def test_quantity_makes_sites_unequal_the_more_the_smaller_alpha() -> None:
    examinations = make_examinations(400, per_patient=1)
    spreads = [
        np.mean(
            [np.std(sizes(examinations, study_with("quantity", alpha=a, seed=s))) for s in range(8)]
        )
        for a in (0.3, 3.0, 1000.0)
    ]
    assert spreads[0] > spreads[1] > spreads[2]
    assert spreads[2] < 5


def test_one_large_gives_the_first_site_half_and_the_others_equal_parts() -> None:
    found = sizes(make_examinations(144), study_with("one-large", sites=4))
    assert abs(found[0] - 72) <= 1
    assert all(abs(size - 24) <= 1 for size in found[1:])
    assert sizes(make_examinations(40), study_with("one-large", sites=1)) == [40]


def mixes(examinations: Examinations, study: Study) -> np.ndarray:
    """Return each site's shares of the classes, (sites, classes)."""
    assignment = split_examinations(examinations, study)
    table = np.array(
        [
            [
                sum(row.label == name for row in assignment.rows_of(site, examinations))
                for name in CLASSES
            ]
            for site in assignment.sites
        ]
    )
    return table / table.sum(1, keepdims=True)


def test_dirichlet_skews_labels_and_not_sizes() -> None:
    examinations = make_examinations(600, per_patient=1)
    distances = []
    for alpha in (0.1, 1.0, 1e5):
        drawn = []
        for seed in range(6):
            study = study_with("dirichlet", alpha=alpha, seed=seed)
            assert max(sizes(examinations, study)) == 150
            shares = mixes(examinations, study)
            drawn.append(np.abs(shares - shares.mean(0)).sum(1).mean() / 2)
        distances.append(np.mean(drawn))
    assert distances[0] > distances[1] > distances[2]
    assert distances[0] > 0.3
    assert distances[2] < 0.1


def test_dirichlet_keeps_a_sites_mix_alike_in_training_and_test() -> None:
    examinations = make_examinations(2000, per_patient=1)
    assignment = split_examinations(examinations, study_with("dirichlet", alpha=0.5))
    own, crossed = [], []
    shares = {}
    for site in assignment.sites:
        for split in ("train", "test"):
            rows = [r for r in assignment.rows_of(site, examinations) if r.split == split]
            shares[site, split] = np.array(
                [sum(r.label == c for r in rows) for c in CLASSES]
            ) / len(rows)
    for one in assignment.sites:
        for two in assignment.sites:
            distance = np.abs(shares[one, "train"] - shares[two, "test"]).sum() / 2
            (own if one == two else crossed).append(distance)
    assert np.mean(own) < np.mean(crossed) / 2


def test_classes_gives_each_site_its_number_of_classes() -> None:
    examinations = make_examinations(400)
    assignment = split_examinations(examinations, study_with("classes", classes_per_site=2))
    held = [
        {row.label for row in assignment.rows_of(site, examinations)} for site in assignment.sites
    ]
    assert [len(labels) for labels in held] == [2, 2, 2, 2]
    assert set.union(*held) == set(CLASSES)
    assert any("no training patient" in note for note in assignment.notes)


def test_classes_that_fit_nowhere_are_refused() -> None:
    with pytest.raises(InputError, match=r"4 sites with 1 classes each cannot hold 5"):
        split_examinations(make_examinations(60), study_with("classes", classes_per_site=1))


def test_natural_sites_are_kept_and_ignore_the_number_of_sites() -> None:
    examinations = make_examinations(60)
    assignment = split_examinations(examinations, study_with("natural", sites=7))
    assert set(assignment.sites) == {"north", "south-east"}
    for row in examinations.rows:
        assert assignment.site_of[row.patient] == row.natural_site.replace("/", "-")
    assert any("simulation.sites = 7 was not used" in note for note in assignment.notes)


def test_natural_sites_in_other_letters_are_numbered_and_that_is_said() -> None:
    names = {"north": "Αθήνα", "south/east": "東京"}
    rows = tuple(
        replace(row, natural_site=names[row.natural_site]) for row in make_examinations(60).rows
    )
    assignment = split_examinations(Examinations(rows, FACTS), study_with("natural"))
    assert set(assignment.sites) == {"site-1", "site-2"}
    (note,) = [note for note in assignment.notes if "Latin" in note]
    assert "they are called site-1, site-2" in note


def test_natural_sites_keep_their_accents() -> None:
    rows = tuple(
        replace(row, natural_site={"north": "Köln", "south/east": "Łódź"}[row.natural_site])
        for row in make_examinations(60).rows
    )
    assignment = split_examinations(Examinations(rows, FACTS), study_with("natural"))
    assert set(assignment.sites) == {"Köln", "Łódź"}
    assert not [note for note in assignment.notes if "Latin" in note]


def test_a_natural_site_without_test_patients_is_refused() -> None:
    rows = [
        row
        for row in make_examinations(60).rows
        if (row.natural_site, row.split) != ("north", "test")
    ]
    with pytest.raises(InputError, match=r"north has no test patients"):
        split_examinations(Examinations(tuple(rows), FACTS), study_with("natural"))


def test_data_without_natural_sites_says_what_to_choose() -> None:
    rows = tuple(PublicExamination(f"p{i}", label=CLASSES[0]) for i in range(20))
    with pytest.raises(InputError, match=r"20 of 20 patients have no natural site.*iid"):
        split_examinations(Examinations(rows, FACTS), study_with("natural"))


def test_data_without_labels_cannot_be_split_by_label() -> None:
    rows = tuple(
        PublicExamination(f"p{i}", split=("train", "validation", "test")[i % 3]) for i in range(30)
    )
    with pytest.raises(InputError, match=r"needs labels.*iid or quantity"):
        split_examinations(Examinations(rows, FACTS), study_with("dirichlet"))


def test_more_sites_than_patients_are_refused() -> None:
    with pytest.raises(InputError, match=r"there are 6 train patients \(of 12\) for 30 sites"):
        split_examinations(make_examinations(12), study_with("iid", sites=30))


def test_of_an_own_manifest_the_rows_of_torn_patients_are_named() -> None:
    rows = (
        *make_examinations(40).rows,
        PublicExamination("p0", label=CLASSES[0], split="test", natural_site="south/east", row=82),
    )
    study = study_with("iid", sites=2)
    simulation = study.simulation.model_copy(update={"data": "folder"})
    own = study.model_copy(update={"simulation": simulation})
    with pytest.raises(InputError, match=r"natural site \(row 82\): give"):
        split_examinations(Examinations(rows, {}), own)


def test_a_patient_in_two_splits_is_refused_without_a_name() -> None:
    rows = (
        *make_examinations(40).rows,
        PublicExamination("p0", label=CLASSES[0], split="test", natural_site="south/east"),
    )
    with pytest.raises(InputError, match="1 patient has examinations in more than one split") as e:
        split_examinations(Examinations(rows, FACTS), study_with("iid"))
    assert "p0" not in str(e.value)


def unsplit(patients: int, sites: int = 2) -> Examinations:
    rows = (
        PublicExamination(f"p{i}", label=CLASSES[i % 5], natural_site=f"hospital {i % sites}")
        for i in range(patients)
    )
    return Examinations(tuple(rows), FACTS)


@pytest.mark.parametrize(
    "rule", ["iid", "quantity", "one-large", "dirichlet", "classes", "natural"]
)
def test_where_the_data_names_no_split_each_site_draws_its_own(rule: str) -> None:
    examinations, study = unsplit(120), study_with(rule, alpha=0.3)
    assignment = split_examinations(examinations, study)
    parted = with_splits(examinations, assignment)
    for site in assignment.sites:
        splits = Counter(row.split for row in assignment.rows_of(site, parted))
        assert set(splits) == {"train", "validation", "test"}
        for split in ("validation", "test"):
            assert splits[split] == pytest.approx(0.15 * splits.total(), abs=1)


def test_the_drawn_splits_depend_on_the_seed_and_not_on_the_name() -> None:
    examinations = unsplit(120)
    drawn = [
        split_examinations(examinations, study).split_of
        for study in (
            study_with("natural"),
            with_changes(study_with("natural"), {"study.name": "another"}),
            study_with("natural", seed=5),
        )
    ]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


@pytest.mark.parametrize("patients", range(6, 36, 2))
def test_natural_sites_of_a_few_patients_have_all_splits(patients: int) -> None:
    examinations = unsplit(patients)
    assignment = split_examinations(examinations, study_with("natural"))
    for site in assignment.sites:
        rows = assignment.rows_of(site, with_splits(examinations, assignment))
        assert {row.split for row in rows} == {"train", "validation", "test"}


def test_a_natural_site_of_two_patients_is_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match="hospital 0 has 2 patients for 3 splits: join it"):
        split_examinations(unsplit(4), study_with("natural"))


def test_too_few_patients_to_draw_splits_at_each_site_are_refused() -> None:
    with pytest.raises(InputError, match="are 12 patients for 5 sites, and each needs 3: lower"):
        split_examinations(unsplit(12), study_with("iid", sites=5))


def test_the_table_counts_patients_and_examinations() -> None:
    rows = (
        PublicExamination("a", label=CLASSES[0], split="train"),
        PublicExamination("a", label=CLASSES[1], split="train"),
        PublicExamination("b", label=CLASSES[1], split="validation"),
        PublicExamination("c", label=CLASSES[0], split="test"),
    )
    examinations, study = Examinations(rows, FACTS), study_with("iid", sites=1)
    table = split_table(examinations, split_examinations(examinations, study), study)
    counted = {(r.split, r.class_name): (r.examinations, r.patients) for r in table}
    assert counted["train", ""] == (2, 1)
    assert counted["train", CLASSES[1]] == (1, 1)
    assert counted["test", CLASSES[1]] == (0, 0)
    assert len(table) == 3 * (1 + len(CLASSES))


def test_a_saved_assignment_reads_back_equal(tmp_path: Path) -> None:
    examinations = make_examinations(60)
    assignment = split_examinations(examinations, study_with("quantity", sites=11))
    save_assignment(assignment, examinations, tmp_path / "split.csv")
    read = load_assignment(tmp_path / "split.csv", examinations)
    assert (read.sites, read.site_of) == (assignment.sites, assignment.site_of)
    assert read.split_of == {row.patient: row.split for row in examinations.rows}


def test_a_saved_assignment_keeps_who_is_tested(tmp_path: Path) -> None:
    examinations = unsplit(60)
    assignment = split_examinations(examinations, study_with("natural"))
    save_assignment(assignment, examinations, tmp_path / "split.csv")
    read = load_assignment(tmp_path / "split.csv", examinations)
    assert read.split_of == assignment.split_of
    other_seed = study_with("natural", seed=9)
    assert draw_splits(examinations, read, other_seed).split_of == assignment.split_of


def test_an_assignment_without_splits_is_drawn(tmp_path: Path) -> None:
    examinations, study = unsplit(60), study_with("natural")
    assignment = split_examinations(examinations, study)
    lines = (f"{patient},{site}" for patient, site in assignment.site_of.items())
    (tmp_path / "split.csv").write_text("\n".join(["patient,site", *lines]), encoding="utf-8")
    read = load_assignment(tmp_path / "split.csv", examinations)
    assert read.split_of == {}
    assert draw_splits(examinations, read, study).split_of == assignment.split_of


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient,site\np0,a\np0,b\n", "1 patients more than once"),
        ("patient,site\np0,a\n", "no site for 39 of"),
        ("name,place\n1,2\n", "not an assignment"),
        ("patient,site,split\n" + "".join(f"p{i},a,tset\n" for i in range(40)), "no split"),
    ],
)
def test_a_foreign_assignment_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load_assignment(tmp_path / "split.csv", make_examinations(40))


def test_a_private_step_that_is_divided_by_too_many_patients_is_said() -> None:
    private = {"privacy.mode": "patient", "privacy.sampling_rate": 0.1}
    study = with_changes(study_with("iid"), {**private, "training.batch_size": 32})
    table = [SplitRow("a", "train", "", 50, 50), SplitRow("b", "train", "", 300, 300)]
    (note,) = too_small_steps(table, study)
    assert note.startswith("A private step of a draws 5.0 of its 50 training patients on average")
    assert "its steps are 6.4 times too small. Set privacy.expected_patients" in note
    fitting = with_changes(study, {"privacy.expected_patients": 5})
    assert too_small_steps(table, fitting) == ()
    assert too_small_steps(table, study_with("iid")) == ()


def test_one_image_under_two_labels_in_training_and_test_is_said(tmp_path: Path) -> None:
    for name, content in (("a", b"same"), ("b", b"same"), ("c", b"else"), ("d", b"longer")):
        (tmp_path / f"{name}.jpg").write_bytes(content)
    rows = tuple(
        PublicExamination(name, {"image": str(tmp_path / f"{name}.jpg")}, label, split=split)
        for name, label, split in (
            ("a", "nv", "train"),
            ("b", "mel", "test"),
            ("c", "nv", "train"),
            ("d", "nv", "test"),
        )
    )
    labels, splits, patients = duplicated_images(Examinations(rows, {}))
    assert labels.startswith("1 images stand twice or more under different labels, e.g.")
    assert "examinations 1 and 2 of the data" in splits
    assert "of different patients" in patients
    assert duplicated_images(Examinations(rows[1:], {})) == ()
