import csv
import gzip
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest

from wardround.common.errors import InputError
from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.study import Study
from wardround.simulations.datasets.catalogue import (
    DATASETS,
    dataset_facts,
    describe_datasets,
    load_dataset,
)
from wardround.simulations.datasets.locations import Download, fetch
from wardround.simulations.datasets.medmnist import known_sets
from wardround.simulations.datasets.virtual_patients import draw_deformation

STUDIES = Path(__file__).parents[4] / "simulations" / "studies"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WARDROUND_DATA", raising=False)


def built_in(name: str, **changes: object) -> Study:
    study = load_study(STUDIES / f"{name}.toml")
    return with_changes(study, {key.replace("__", "."): value for key, value in changes.items()})


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda p: p.stem)
def test_a_built_in_study_is_valid_and_names_a_known_data_set(path: Path) -> None:
    study = load_study(path)
    assert study.name == path.stem
    assert study.simulation.data in DATASETS


def test_there_is_a_study_for_each_bundled_data_set() -> None:
    used = {load_study(path).simulation.data for path in STUDIES.glob("*.toml")}
    assert used == set(DATASETS) - {"folder"}


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


# --- brain-tissue --------------------------------------------------------------
def test_virtual_brains_have_the_tissue_volumes_of_a_brain() -> None:
    study = built_in("brain-tissue", data__dimensions=3, data__size=[48, 56, 48])
    found = load_dataset("brain-tissue", {"patients": 3}, None, study)
    file, item = found.rows[1].mask.split("#")
    mask = np.load(file)[int(item)]
    assert mask.shape == (48, 56, 48)
    litres = np.bincount(mask.ravel()) * 3.5**3 / 1e6  # the field of 168 mm over 48 voxels
    # Adults: about 0.7 l grey and 0.5 l white (Luders et al. 2002); the template is of that order.
    assert 0.5 < litres[1] < 1.2
    assert 0.3 < litres[2] < 1.0
    image = np.load(found.rows[1].images["t1"].split("#")[0])[1].astype(float)
    assert image[mask == 2].mean() > image[mask == 1].mean() > image[mask == 0].mean()


def test_slices_belong_to_patients_and_patients_differ() -> None:
    study = built_in("brain-tissue", data__size=[32, 32])
    found = load_dataset("brain-tissue", {"patients": 8, "slices": 3}, None, study)
    assert Counter(Counter(row.patient for row in found.rows).values()) == {3: 8}
    images = np.load(found.rows[0].images["t1"].split("#")[0]).astype(float)
    assert images.shape == (24, 32, 32)
    assert np.abs(images[0] - images[3]).mean() > 1  # the same slice of two patients
    by_patient = {row.patient: row.split for row in found.rows}
    assert Counter(by_patient.values()) == {"train": 6, "validation": 1, "test": 1}


def test_the_front_of_the_head_is_up_and_the_ventricles_are_background() -> None:
    study = built_in("brain-tissue", data__size=[96, 96])
    found = load_dataset(
        "brain-tissue", {"patients": 1, "slices": 1, "displacement_mm": 0.0}, None, study
    )
    mask = np.load(found.rows[0].mask.split("#")[0])[0]
    rows, columns = np.nonzero(mask)
    middle_row, middle_column = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    assert 60 < (rows.max() - rows.min()) * 2 / 2 < 100  # half the length of a brain, in mm
    inside = mask[int(middle_row) - 8 : int(middle_row) + 9, int(middle_column) - 6 :][:, :13]
    assert (inside == 0).any()
    # The back of a brain is broader than its front: the widest row lies behind the middle.
    widths = [np.ptp(columns[rows == row]) if (rows == row).any() else 0 for row in range(96)]
    assert np.argmax(widths) > middle_row


def test_the_same_seed_draws_the_same_brains_once() -> None:
    options: dict[str, str | int | float | bool] = {"patients": 2, "slices": 1}
    study = built_in("brain-tissue", data__size=[24, 24])
    path = load_dataset("brain-tissue", options, None, study).rows[0].images["t1"].split("#")[0]
    first, written = np.load(path), Path(path).stat().st_mtime_ns
    load_dataset("brain-tissue", options, None, study)
    assert Path(path).stat().st_mtime_ns == written
    shutil.rmtree(Path(path).parent)
    load_dataset("brain-tissue", options, None, study)
    np.testing.assert_array_equal(np.load(path), first)
    other = load_dataset(
        "brain-tissue", options, None, with_changes(study, {"simulation.seed": 7})
    ).rows[0]
    assert not np.array_equal(np.load(other.images["t1"].split("#")[0]), first)


def test_a_missing_extra_is_named_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'wardround\[simulation\]'"):
        load_dataset("brain-tissue", {}, None, built_in("brain-tissue"))


def test_no_deformation_folds() -> None:
    """The Jacobian determinant, by finite differences, is positive even where amplitude is cut."""
    lower, upper = np.array([-84.0, -116.0, -74.0]), np.array([84.0, 80.0, 94.0])
    axes = [np.arange(low, high, 6.0) for low, high in zip(lower, upper, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    for seed in range(3):
        deformation = draw_deformation(np.random.default_rng(seed), lower, upper, 50.0)
        moved = deformation.template_points(grid.reshape(3, -1)).reshape(grid.shape)
        jacobian = np.stack([np.stack(np.gradient(part, 6.0)) for part in moved])
        determinants = np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1)))
        assert determinants.min() > 0
        assert determinants.std() > 0.05


# --- medmnist ------------------------------------------------------------------
def write_medmnist(path: Path, label_width: int = 1, top: int = 1, images: int = 4) -> None:
    generator = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = generator.integers(0, 256, (images, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = generator.integers(0, top + 1, (4, label_width), dtype=np.uint8)
    np.savez(path, **arrays)


def test_real_pneumoniamnist_has_the_published_counts(shared_data: Path) -> None:
    found = load_dataset("medmnist", {}, shared_data, built_in("pneumonia-xray"))
    counts = Counter((row.split, row.label) for row in found.rows)
    assert counts == {  # Yang et al. 2023 and Kermany et al. 2018
        ("train", "normal"): 1214,
        ("train", "pneumonia"): 3494,
        ("validation", "normal"): 135,
        ("validation", "pneumonia"): 389,
        ("test", "normal"): 234,
        ("test", "pneumonia"): 390,
    }
    path, array, item = found.rows[5000].images["image"].split("#")
    number = int(item)
    with np.load(path) as arrays:
        assert array == "val_images"
        assert ("normal", "pneumonia")[arrays["val_labels"][number, 0]] == found.rows[5000].label


def test_every_medmnist_set_is_known_with_a_digest_for_each_size() -> None:
    sets = known_sets()
    assert len(sets) == 18
    assert len(sets["chestmnist"].classes) == 14
    assert sets["chestmnist"].multi_label
    assert sets["pneumoniamnist"].md5[28] == "28209eda62fecd6e6a2d98b1501bb15f"
    digests = [digest for known in sets.values() for digest in known.md5.values()]
    assert len(set(digests)) == len(digests) == 12 * 4 + 6 * 2
    assert all(len(digest) == 32 for digest in digests)


def test_the_classes_of_a_known_set_may_stand_in_any_order_but_not_be_others(
    tmp_path: Path,
) -> None:
    write_medmnist(tmp_path / "pneumoniamnist.npz")
    labels = np.load(tmp_path / "pneumoniamnist.npz")["train_labels"]
    swapped = built_in("pneumonia-xray", data__classes=["pneumonia", "normal"])
    found = load_dataset("medmnist", {}, tmp_path, swapped)
    assert [row.label for row in found.rows[:4]] == [
        ("normal", "pneumonia")[label[0]] for label in labels
    ]
    other = built_in("pneumonia-xray", data__classes=["healthy", "ill"])
    with pytest.raises(InputError, match=r"set data.classes = \['normal', 'pneumonia'\]"):
        load_dataset("medmnist", {}, tmp_path, other)


def test_several_labels_an_image_are_joined_and_none_is_said(tmp_path: Path) -> None:
    write_medmnist(tmp_path / "own.npz", label_width=2)
    study = built_in("pneumonia-xray", data__multi_label=True, training__loss="bce")
    found = load_dataset("medmnist", {"file": "own.npz"}, tmp_path, study)
    labels = np.load(tmp_path / "own.npz")["train_labels"]
    spelt = {(0, 0): "none", (1, 0): "normal", (0, 1): "pneumonia", (1, 1): "normal;pneumonia"}
    assert [row.label for row in found.rows[:4]] == [spelt[tuple(pair)] for pair in labels.tolist()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"top": 3}, "expected 0 to 1"), ({"images": 5}, "has shape"), ({"label_width": 2}, "labels")],
)
def test_a_mismatching_npz_is_refused(
    tmp_path: Path, arguments: dict[str, int], message: str
) -> None:
    write_medmnist(tmp_path / "own.npz", **arguments)
    with pytest.raises(InputError, match=message):
        load_dataset("medmnist", {"file": "own.npz"}, tmp_path, built_in("pneumonia-xray"))


def test_a_broken_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pneumoniamnist.npz").write_bytes(b"PK not a zip")
    with pytest.raises(InputError, match=r"not a readable \.npz"):
        load_dataset("medmnist", {}, tmp_path, built_in("pneumonia-xray"))


def test_a_file_of_another_size_is_not_taken_for_the_one_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_medmnist(tmp_path / "pneumoniamnist_64.npz")
    asked: list[Download] = []

    def refuse(download: Download) -> Path:
        asked.append(download)
        raise InputError

    monkeypatch.setattr("wardround.simulations.datasets.medmnist.fetch", refuse)
    with pytest.raises(InputError):
        load_dataset("medmnist", {}, tmp_path, built_in("pneumonia-xray"))
    assert asked[0].file_name == "pneumoniamnist.npz"
    found = load_dataset("medmnist", {"size": 64}, tmp_path, built_in("pneumonia-xray"))
    assert "pneumoniamnist_64.npz#" in found.rows[0].images["image"]


def test_a_download_is_checked_against_its_digest(tmp_path: Path) -> None:
    source = tmp_path / "served.npz"
    source.write_bytes(b"data")
    download = Download("http://127.0.0.1:9/served.npz", "0" * 32, "served.npz")
    with pytest.raises(InputError, match=r"cannot download .*--data-root"):
        fetch(download)


def test_a_cut_draws_whole_patients_from_all_over(tmp_path: Path) -> None:
    write_medmnist(tmp_path / "pneumoniamnist.npz")
    found = load_dataset("medmnist", {"patients": 6}, tmp_path, built_in("pneumonia-xray"))
    assert len({row.patient for row in found.rows}) == len(found.rows) == 6
    assert len({row.split for row in found.rows}) > 1


# --- decathlon -----------------------------------------------------------------
def write_volume(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), path)


@pytest.fixture
def decathlon(tmp_path: Path) -> Path:
    for number in (1, 2):
        write_volume(tmp_path / "Task04_Hippocampus" / "imagesTr" / f"h_{number}.nii.gz")
        write_volume(tmp_path / "Task04_Hippocampus" / "labelsTr" / f"h_{number}.nii.gz")
    (tmp_path / "Task04_Hippocampus" / "imagesTr" / "._h_1.nii.gz").write_bytes(gzip.compress(b""))
    return tmp_path


def test_real_hippocampus_has_the_published_260_pairs(shared_data: Path) -> None:
    found = load_dataset("decathlon", {}, shared_data, built_in("hippocampus"))
    assert len(found.rows) == len({row.patient for row in found.rows}) == 260
    row = found.rows[17]
    image, mask = nibabel.load(row.images["image"]), nibabel.load(row.mask)
    assert image.shape == mask.shape


def test_a_decathlon_folder_is_paired_without_the_twins_of_macos(decathlon: Path) -> None:
    found = load_dataset("decathlon", {}, decathlon, built_in("hippocampus"))
    assert [row.patient for row in found.rows] == ["h_1", "h_2"]
    assert all(Path(row.mask).parent.name == "labelsTr" for row in found.rows)


def test_an_image_without_a_mask_is_counted_and_not_named(decathlon: Path) -> None:
    (decathlon / "Task04_Hippocampus" / "labelsTr" / "h_2.nii.gz").unlink()
    with pytest.raises(InputError, match="2 images and 1 masks, of which 1") as refusal:
        load_dataset("decathlon", {}, decathlon, built_in("hippocampus"))
    assert "h_2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"labels": {"0": "background", "1": "a"}}, "2 classes"),
        ({"labels": {}, "modality": {"0": "T2", "1": "ADC"}}, "2 modalities"),
        ([], "not a Decathlon description"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    decathlon: Path, description: object, message: str
) -> None:
    path = decathlon / "Task04_Hippocampus" / "dataset.json"
    path.write_text(json.dumps(description))
    with pytest.raises(InputError, match=message):
        load_dataset("decathlon", {}, decathlon, built_in("hippocampus"))


def test_an_absent_task_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"msd_spleen.*medicaldecathlon.com"):
        load_dataset(
            "decathlon",
            {"task": "Task09_Spleen", "download": False},
            tmp_path,
            built_in("hippocampus"),
        )


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


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (["patient", "label"], ["p", "normal"], "lacks the columns image"),
        (["patient", "image", "label"], ["", "a.png", "normal"], "row 2: patient is empty"),
        (["patient", "image", "label", "split"], ["p", "a", "normal", "x"], "row 2: split = 'x'"),
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
