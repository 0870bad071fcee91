"""The Medical Segmentation Decathlon: images paired with their masks."""

import gzip
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tests.support.studies.built_in import built_in

from wardround.common.errors import InputError
from wardround.simulations.datasets.catalogue import (
    load_dataset,
)


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


def test_own_images_laid_out_as_a_task_get_neither_its_licence_nor_its_authors(
    decathlon: Path,
) -> None:
    (decathlon / "Task04_Hippocampus").rename(decathlon / "our-patients")
    found = load_dataset(
        "decathlon", {"folder": "our-patients"}, decathlon, built_in("hippocampus")
    )
    assert found.facts.whose == "your own"
    assert found.facts.licence == "yours to state"
    assert not found.facts.citation
    (decathlon / "our-patients").rename(decathlon / "Task04_Hippocampus")
    options = {"folder": "Task04_Hippocampus"}
    public = load_dataset("decathlon", options, decathlon, built_in("hippocampus"))
    assert not public.facts.whose
    assert public.facts.licence.startswith("CC")


def test_an_image_without_a_mask_is_counted_and_not_named(decathlon: Path) -> None:
    (decathlon / "Task04_Hippocampus" / "labelsTr" / "h_2.nii.gz").unlink()
    with pytest.raises(InputError, match="2 images and 1 masks, of which 1") as refusal:
        load_dataset("decathlon", {}, decathlon, built_in("hippocampus"))
    assert "h_2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"labels": {"0": "background", "1": "a"}}, "2 classes"),
        (
            {"labels": {"0": "background", "1": "Posterior", "2": "Anterior"}},
            "label 1 is 'Posterior' and not 'anterior'",
        ),
        ({"labels": {"0": "background", "2": "Posterior", "1": "tail"}}, "label 1 is 'tail'"),
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


def test_a_task_of_several_modalities_is_read_as_channels(decathlon: Path) -> None:
    folder = decathlon / "Task04_Hippocampus"
    modalities = {"0": "FLAIR", "1": "T1w"}
    (folder / "dataset.json").write_text(json.dumps({"labels": {}, "modality": modalities}))
    study = built_in("hippocampus")
    data = study.data.model_copy(update={"channels": ("flair", "t1")})
    found = load_dataset("decathlon", {}, decathlon, study.model_copy(update={"data": data}))
    path = folder / "imagesTr" / "h_1.nii.gz"
    assert found.rows[0].images == {"flair": f"{path}#0/2", "t1": f"{path}#1/2"}


def test_labels_go_by_their_names_capitals_aside(decathlon: Path) -> None:
    description = {"labels": {"2": "Posterior", "1": "Anterior", "0": "Background"}}
    path = decathlon / "Task04_Hippocampus" / "dataset.json"
    path.write_text(json.dumps(description))
    assert len(load_dataset("decathlon", {}, decathlon, built_in("hippocampus")).rows) == 2


def test_an_absent_task_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"msd_spleen.*medicaldecathlon.com"):
        load_dataset(
            "decathlon",
            {"task": "Task09_Spleen", "download": False},
            tmp_path,
            built_in("hippocampus"),
        )
