"""MedMNIST: its files, its digests, and cuts of whole patients."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.support.studies.built_in import built_in

from wardround.common.errors import InputError
from wardround.simulations.datasets.catalogue import (
    load_dataset,
)
from wardround.simulations.datasets.locations import Download, fetch
from wardround.simulations.datasets.medmnist import known_sets


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
    assert (found.facts.whose, found.facts.licence) == ("your own", "yours to state")
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
