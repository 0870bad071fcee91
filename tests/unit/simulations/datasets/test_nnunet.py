"""A folder as nnU-Net v2 has it, read where it lies."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from tests.support.studies.built_in import built_in

from wardround.common.errors import InputError
from wardround.common.study.study import Study
from wardround.simulations.datasets.catalogue import load_dataset

DESCRIPTION: dict[str, Any] = {
    "channel_names": {"1": "FLAIR", "0": "T1"},
    "labels": {"posterior": 2, "background": 0, "Anterior": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


def write_volume(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "Dataset004_Hippocampus"
    for case in ("hippo_003", "hippo_001"):
        for channel in (0, 1):
            write_volume(folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
        write_volume(folder / "labelsTr" / f"{case}.nii.gz")
    (folder / "imagesTr" / "._hippo_001_0000.nii.gz").write_bytes(b"")
    describe(folder)
    return folder


def describe(folder: Path, **changes: Any) -> None:
    (folder / "dataset.json").write_text(json.dumps({**DESCRIPTION, **changes}))


def study_of(*channels: str) -> Study:
    study = built_in("hippocampus")
    data = study.data.model_copy(update={"channels": channels})
    return study.model_copy(update={"data": data})


@pytest.mark.parametrize("name", ["nnunet", "decathlon"])
def test_a_case_is_a_patient_with_a_file_a_channel(folder: Path, name: str) -> None:
    found = load_dataset(name, {"folder": str(folder)}, None, study_of("flair", "t1"))
    assert [row.patient for row in found.rows] == ["hippo_001", "hippo_003"]
    first = found.rows[0]
    assert first.images == {
        "t1": str(folder / "imagesTr" / "hippo_001_0000.nii.gz"),
        "flair": str(folder / "imagesTr" / "hippo_001_0001.nii.gz"),
    }
    assert first.mask == str(folder / "labelsTr" / "hippo_001.nii.gz")


def test_files_may_be_listed_instead(folder: Path) -> None:
    listed = {
        "one": {
            "images": ["imagesTr/hippo_001_0000.nii.gz", "imagesTr/hippo_003_0001.nii.gz"],
            "label": "labelsTr/hippo_003.nii.gz",
        }
    }
    describe(folder, dataset=listed)
    (row,) = load_dataset("nnunet", {"folder": str(folder)}, None, study_of("t1", "flair")).rows
    assert row.images["flair"].endswith("hippo_003_0001.nii.gz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"background": 0, "posterior": 1, "anterior": 2}}, "label 1 is 'posterior'"),
        ({"labels": {"background": 0, "anterior": 1}}, "2 classes"),
        ({"labels": {"background": 0, "anterior": [1, 2], "posterior": 2}}, "regions"),
        ({"labels": {"background": 0, "anterior": 1, "posterior": 3}}, "from 0 on"),
        ({"labels": {**DESCRIPTION["labels"], "ignore": 3}}, "label 3 means 'not annotated'"),
        ({"channel_names": {"0": "T1", "1": "T2"}}, "image channel 'flair'"),
        ({"channel_names": {"0": "T1", "1": "FLAIR", "2": "T2"}}, "2 cases, of which 2 lack"),
        ({"file_ending": ".mha"}, "0 cases"),
        ({"file_ending": None, "channel_names": 3}, "not a description"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    describe(folder, **changes)
    with pytest.raises(InputError, match=message) as refusal:
        load_dataset("nnunet", {"folder": str(folder)}, None, study_of("t1", "flair"))
    assert "hippo" not in str(refusal.value).replace(str(folder), "")


def test_a_case_without_a_mask_is_counted_and_not_named(folder: Path) -> None:
    (folder / "labelsTr" / "hippo_003.nii.gz").unlink()
    with pytest.raises(InputError, match="2 cases, of which 1 lack"):
        load_dataset("nnunet", {"folder": str(folder)}, None, study_of("t1", "flair"))


def test_a_folder_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"simulation.options.folder"):
        load_dataset("nnunet", {}, None, study_of("t1"))
    with pytest.raises(InputError, match=r"has no dataset.json"):
        load_dataset("nnunet", {"folder": str(tmp_path)}, None, study_of("t1"))
