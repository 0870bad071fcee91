"""Examinations of several channels, of which a row may lack one."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from wardround.client.clinic.onboarding.data_check.check import check_data
from wardround.client.data.cohorts import Cohorts, open_cohorts
from wardround.client.data.same_images import find_same_images, held_by
from wardround.client.site.folder import open_site
from wardround.common.errors import DataError
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

COLUMNS = ["patient", "image.t1", "image.t2", "mask", "age", "split"]
TRAIN = {"validation_fraction": 0.0, "test_fraction": 0.0}


def study_of(**sections: dict[str, Any]) -> Study:
    content: dict[str, dict[str, Any]] = {
        "study": {"name": "two-contrasts", "task": "segmentation"},
        "data": {
            "classes": ["nothing", "lesion"],
            "channels": ["t1", "t2"],
            "dimensions": 3,
            "optional": ["t1", "t2", "age"],
            "covariates": [{"name": "age", "mean": 50, "scale": 10}],
            "intensity": "mr",
            "size": [16, 16, 16],
        },
        "model": {"network": "unet", "features": [4, 6]},
        "evaluation": dict(TRAIN),
    }
    for name, section in sections.items():
        content.setdefault(name, {}).update(section)
    return parse_study(content)


def rows_of(folder: Path, lacking: dict[int, str]) -> list[list[str]]:
    """Write volumes of four patients; of some a channel is lacking."""
    rows = []
    for number in range(4):
        generator = np.random.default_rng(number)
        cells = [f"p{number}"]
        for kind in ("t1", "t2", "mask"):
            values = generator.uniform(1, 9, (16, 16, 16)).astype(np.float32)
            array = (values > 8).astype(np.uint8) if kind == "mask" else values
            path = folder / f"{kind}-{number}.nii"
            nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), path)
            cells.append("" if lacking.get(number) == kind else path.name)
        rows.append([*cells, "" if lacking.get(number) == "age" else "60", "train"])
    return rows


def write(folder: Path, rows: list[list[str]], settings: str = "") -> Path:
    (folder / "site.toml").write_text(f'name = "ward"\n{settings}')
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    return folder


def opened(folder: Path, rows: list[list[str]], study: Study, settings: str = "") -> Cohorts:
    return open_cohorts(open_site(write(folder, rows, settings)), study)


@pytest.mark.parametrize("settings", ["", 'cache_place = "disk"\n'])
def test_a_missing_channel_is_zeros_with_a_flag(tmp_path: Path, settings: str) -> None:
    rows = rows_of(tmp_path, {1: "t2", 2: "t1", 3: "age"})
    for _ in range(2):  # the second time from what lies on the disk
        batch = opened(tmp_path, rows, study_of(), settings).train.batch(torch.arange(4))
        assert batch.images is not None
        assert batch.covariates is not None
        there = batch.images.flatten(2).abs().sum(2) > 0
        assert there.tolist() == [[True, True], [True, False], [False, True], [True, True]]
        # age | age is missing, t1 is missing, t2 is missing
        assert batch.covariates.tolist() == [
            [1, 0, 0, 0],
            [1, 0, 0, 1],
            [1, 0, 1, 0],
            [0, 1, 0, 0],
        ]
        assert (batch.targets.flatten(1).sum(1) > 0).all(), "the mask lies on the channel there is"


def test_a_row_that_gets_its_channel_later_is_prepared_anew(tmp_path: Path) -> None:
    settings = 'cache_place = "disk"\n'
    before = opened(tmp_path, rows_of(tmp_path, {0: "t2"}), study_of(), settings).train.case(0)
    after = opened(tmp_path, rows_of(tmp_path, {}), study_of(), settings).train.case(0)
    assert before.images is not None
    assert after.images is not None
    assert torch.equal(before.images[:, 0], after.images[:, 0])
    assert not before.images[:, 1].any()
    assert after.images[:, 1].any()


def test_modality_dropout_is_drawn_for_training_alone(tmp_path: Path) -> None:
    study = study_of(training={"modality_dropout": 0.6})
    train = opened(tmp_path, rows_of(tmp_path, {}), study).train
    everyone = torch.arange(4)
    assert not train.batch(everyone).covariates[:, 1:].any()  # type: ignore[index]
    seen = [
        train.batch(everyone, torch.Generator().manual_seed(seed)).covariates for seed in range(5)
    ]
    flags = torch.cat([one[:, 1:] for one in seen if one is not None])
    assert flags.any(0).all()
    assert not (flags[:, 1] * flags[:, 2]).any(), "an image stays"


def test_a_copy_is_found_though_one_of_both_rows_lacks_a_channel(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {})
    shutil.copy(tmp_path / rows[0][1], tmp_path / "again.nii")
    copy = ["p9", "again.nii", "", rows[0][3], "60", "test"]
    study = study_of(evaluation={"validation_fraction": 0.0, "test_fraction": 0.2})
    with pytest.raises(DataError, match="the same image is trained on and tested on, in rows 2"):
        opened(tmp_path, [*rows, copy], study)


def test_examinations_that_share_no_channel_are_not_the_same(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {0: "t1", 1: "t2"})
    cohorts = opened(tmp_path, rows, study_of())
    assert find_same_images(held_by(cohorts.train.examinations, "train"), 3).groups == ()


def test_the_data_check_counts_who_lacks_what(tmp_path: Path) -> None:
    write(tmp_path, rows_of(tmp_path, {0: "t2", 1: "t2", 3: "age"}))
    report = check_data(open_site(tmp_path), study_of(), lambda *_: None)
    said = {one.fact: one for one in report.findings if one.name == "missing"}
    assert list(said) == [
        "0 of 4 examinations lack t1",
        "2 of 4 examinations lack t2, in rows 2, 3",
        "1 of 4 examinations lack age, in row 5",
    ]
    assert not [f for f in report.findings if f.status == "fault"], "nothing of it is a fault"
    counts = next(one for one in report.counts if one.title == "What examinations lack.")
    assert dict(counts.bars) == {"t2": (2.0,), "age": (1.0,), "nothing": (1.0,)}
    strict = study_of(data={"optional": ["age"]})
    faults = check_data(open_site(tmp_path), strict, lambda *_: None).findings
    assert any(f.status == "fault" and "image.t2 is empty" in f.fact for f in faults)


def test_the_three_sequences_of_real_patients_are_read(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "ms_lesions_2mm"
    if not folder.is_dir():
        pytest.skip("the lesions of multiple sclerosis are absent")
    lines = [["patient", "image.t1", "image.t2", "image.flair", "mask", "split"]]
    for patient in ("07", "19", "26"):
        files = [str(folder / f"patient{patient}_{one}.nii.gz") for one in ("t1", "t2", "flair")]
        if patient == "19":
            files[1] = ""
        mask = str(folder / f"patient{patient}_mask.nii.gz")
        lines.append([f"p{patient}", *files, mask, "train"])
    (tmp_path / "site.toml").write_text(f"name = {json.dumps('ward')}\n")
    with (tmp_path / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(lines)
    data = {"channels": ["t1", "t2", "flair"], "optional": ["t2"], "covariates": []}
    study = study_of(data={**data, "size": [32, 32, 32]})
    batch = open_cohorts(open_site(tmp_path), study).train.batch(torch.arange(3))
    assert batch.images is not None
    assert batch.images.shape == (3, 3, 32, 32, 32)
    assert batch.covariates is not None
    assert batch.covariates.flatten().tolist() == [0, 1, 0]
    assert not batch.images[1, 1].any()
    assert batch.images[0, 1].any()
