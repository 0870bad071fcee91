""""""

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.support.studies.built_in import STUDIES, built_in

from wardround.common.errors import InputError
from wardround.common.study.loading import load_study
from wardround.simulations.datasets.catalogue import (
    DATASETS,
    dataset_facts,
    describe_datasets,
    load_dataset,
)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda p: p.stem)
def test_a_built_in_study_is_valid_and_names_a_known_data_set(path: Path) -> None:
    study = load_study(path)
    assert study.name == path.stem
    assert study.simulation.data in DATASETS


def test_there_is_a_study_for_each_bundled_data_set() -> None:
    used = {load_study(path).simulation.data for path in STUDIES.glob("*.toml")}
    assert used == set(DATASETS) - {"folder", "nnunet"}


def test_the_listing_names_every_data_set_with_its_licence() -> None:
    assert [summary.name for summary in describe_datasets()] == list(DATASETS)
    assert all(summary.licence for summary in describe_datasets())
    assert "option name" in dataset_facts("medmnist")


def test_listing_data_sets_imports_nothing_heavy() -> None:
    code = (
        "import sys, wardround.simulations.datasets.catalogue as c; c.describe_datasets();"
        "print([m for m in ('torch', 'monai', 'nilearn', 'scipy', 'pooch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_unknown_names_and_options_list_the_known_ones() -> None:
    study = built_in("brain-tissue")
    with pytest.raises(InputError, match=r"unknown data set 'brain'.*brain-tissue"):
        load_dataset("brain", {}, None, study)
    with pytest.raises(InputError, match=r"'patient'. Did you mean 'patients'"):
        load_dataset("brain-tissue", {"patient": 3}, None, study)
    with pytest.raises(InputError, match="is not a whole number"):
        load_dataset("brain-tissue", {"patients": "many"}, None, study)
    with pytest.raises(
        InputError, match=r"does not serve segmentation: choose one of brain-tissue"
    ):
        load_dataset("medmnist", {}, None, study)


def test_a_data_folder_that_is_absent_is_named() -> None:
    with pytest.raises(InputError, match=r"/nowhere/at/all does not exist.*--data-root"):
        load_dataset("medmnist", {}, Path("/nowhere/at/all"), built_in("pneumonia-xray"))


# --- ham10000 ------------------------------------------------------------------
def test_real_ham10000_has_four_sites_and_its_clinical_values(shared_data: Path) -> None:
    found = load_dataset("ham10000", {}, shared_data, built_in("skin-lesions"))
    assert Counter(row.natural_site for row in found.rows) == {
        "rosendahl": 768,
        "vidir_modern": 641,
        "vidir_molemax": 376,
        "vienna_dias": 211,
    }
    assert sum(row.covariates["age"] == "" for row in found.rows) == 1
    top, left, bottom, right = map(int, found.rows[0].box.split())
    assert (top, left, bottom, right) == (2, 59, 140, 170)  # line 2 of the table
    assert all(Path(row.mask).exists() for row in found.rows[:20])


def write_ham(
    folder: Path, header: str = "lesion_id,image_id,dx,age,sex,localization,dataset"
) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.jpg").touch()
    rows = ["L1,a,nv,unknown,male,trunk,rosendahl", "L2,b,mel,40,female,back,vienna_dias"]
    (folder / "HAM10000_metadata.csv").write_text("\n".join([header, *rows]))


def test_a_missing_picture_is_counted_and_not_named(tmp_path: Path) -> None:
    write_ham(tmp_path / "ham10000")
    with pytest.raises(InputError, match="1 of 2 rows of the table have no file"):
        load_dataset("ham10000", {}, tmp_path, built_in("skin-lesions"))
    (tmp_path / "ham10000" / "images" / "b.jpg").touch()
    found = load_dataset("ham10000", {}, tmp_path, built_in("skin-lesions"))
    assert found.rows[0].covariates == {"age": "", "sex": "male", "localization": "trunk"}
    assert found.rows[0].box == ""


def test_a_table_without_the_sites_is_refused(tmp_path: Path) -> None:
    write_ham(tmp_path / "ham10000", "lesion_id,image_id,dx,age,sex,localization,other")
    with pytest.raises(InputError, match="lacks dataset"):
        load_dataset("ham10000", {}, tmp_path, built_in("skin-lesions"))


# --- heart-disease -------------------------------------------------------------
def test_heart_disease_follows_the_protocol_of_flamby(shared_data: Path) -> None:
    found = load_dataset("heart-disease", {}, shared_data, built_in("heart-disease"))
    counts = Counter((row.natural_site, row.split) for row in found.rows)
    assert counts == {  # the sizes that FLamby publishes
        ("cleveland", "train"): 199,
        ("cleveland", "test"): 104,
        ("hungarian", "train"): 172,
        ("hungarian", "test"): 89,
        ("switzerland", "train"): 30,
        ("switzerland", "test"): 16,
        ("va", "train"): 85,
        ("va", "test"): 45,
    }
    for site in ("cleveland", "hungarian", "va"):
        shares = [
            np.mean(
                [
                    row.label == "disease"
                    for row in found.rows
                    if (row.natural_site, row.split) == (site, split)
                ]
            )
            for split in ("train", "test")
        ]
        assert abs(shares[0] - shares[1]) < 0.02
    assert {row.covariates["cp"] for row in found.rows} == {"1", "2", "3", "4"}
    assert {row.covariates["restecg"] for row in found.rows} == {"0", "1", "2"}


def test_a_changed_copy_of_the_heart_data_is_refused(tmp_path: Path, shared_data: Path) -> None:
    folder = tmp_path / "heart"
    folder.mkdir()
    for file in (shared_data / "uci_heart_disease").glob("processed.*.data"):
        (folder / file.name).write_bytes(file.read_bytes())
    path = folder / "processed.va.data"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(["age,sex," * 6 + "x,y", *lines]))
    with pytest.raises(InputError, match="has 201 rows, expected 200"):
        load_dataset("heart-disease", {}, tmp_path, built_in("heart-disease"))
    path.write_text("\n".join(lines[:-1]))
    with pytest.raises(InputError, match="has 199 rows"):
        load_dataset("heart-disease", {}, tmp_path, built_in("heart-disease"))


# --- folder --------------------------------------------------------------------
def write_manifest(path: Path, header: list[str], *rows: list[str]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def test_an_own_manifest_is_read_with_its_sites(tmp_path: Path) -> None:
    write_manifest(
        tmp_path / "mine.csv",
        ["patient", "image", "label", "site", "split"],
        ["p1", "a.png", "normal", "north", "train"],
        ["p2", "set.npy#3", "pneumonia", "south", "test"],
    )
    study = built_in("pneumonia-xray")
    found = load_dataset("folder", {"manifest": "mine.csv"}, tmp_path, study)
    assert [row.images["image"] for row in found.rows] == [
        str(tmp_path / "a.png"),
        str(tmp_path / "set.npy#3"),
    ]
    assert [(row.natural_site, row.split) for row in found.rows] == [
        ("north", "train"),
        ("south", "test"),
    ]


@pytest.mark.parametrize("cell", ["normal|pneumonia", "normal; pneumonia", "normal;pneumonia"])
def test_several_labels_of_an_own_manifest_count_however_they_are_joined(
    tmp_path: Path, cell: str
) -> None:
    write_manifest(tmp_path / "mine.csv", ["patient", "image", "label"], ["p1", "a.png", cell])
    study = built_in("pneumonia-xray")
    several = study.model_copy(update={"data": study.data.model_copy(update={"multi_label": True})})
    (row,) = load_dataset("folder", {"manifest": "mine.csv"}, tmp_path, several).rows
    assert row.label.split(";") == ["normal", "pneumonia"]


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (["patient", "label"], ["p", "normal"], "lacks the column image"),
        (["patient", "image", "label"], ["", "a.png", "normal"], "patient is empty in row 2"),
        (["patient", "image", "label", "split"], ["p", "a", "normal", "x"], "no split in row 2"),
    ],
)
def test_an_own_manifest_that_lacks_something_is_refused(
    tmp_path: Path, header: list[str], row: list[str], message: str
) -> None:
    write_manifest(tmp_path / "mine.csv", header, row)
    with pytest.raises(InputError, match=message):
        load_dataset("folder", {"manifest": "mine.csv"}, tmp_path, built_in("pneumonia-xray"))


def test_an_empty_option_asks_for_the_manifest() -> None:
    with pytest.raises(InputError, match=r"simulation.options.manifest"):
        load_dataset("folder", {}, None, built_in("pneumonia-xray"))
