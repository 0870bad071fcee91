"""Small data sets of public bug reports, as a user runs them: read right, or refused in words.

The reports are about geometry: orientation, grids, units, labels, sizes.
"""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from tests.support.studies.tiny_study import Said

from wardround.client.data.cohort import Cohort
from wardround.client.data.cohorts import open_cohorts
from wardround.client.site.folder import open_site
from wardround.common.study.loading import load_study

Run = Callable[..., Said]
FAST = ("--engine", "in-process", "--threads", "1", "--quiet", "--no-compare", "--rounds", "1")
CASES = Path(__file__).resolve().parents[5] / "shared" / "cases"


def simulated(wardround: Run, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    monkeypatch.chdir(folder)
    said = wardround("simulate", "study.toml", "--out", out, *FAST)
    assert "Traceback" not in said.err
    for name in ("i.nii", "m.nii", "m.png", "huge", "flair.nii", "three.nii"):
        assert name not in said.err, "no file is named"
    return said


def case_folder(number: str) -> Path:
    found = sorted(CASES.glob(f"{number}-*"))
    if not found:
        pytest.skip("the cases of public bug reports are absent")
    return found[0]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("26", ("row 2, column mask", "60 mm apart", "resample_to = 'image'")),
        ("30", ("row 2, column image.flair", "50 mm apart", "spacing (1 x 1 x 3 and 1 x 1 x 1")),
        ("39", ("row 2, column image", "32x32x3 for a 2D study")),
        ("42", ("row 2, column image", "nothing of it is left at data.spacing")),
        ("46", ("row 2, column mask", "0, 1 and 255", "data.ignore_label = 255")),
        ("53", ("row 2, column image", "192 megapixels")),
        ("78", ("row 3", "16x16x16", "Set training.patch_size or data.size")),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_first_round(
    number: str,
    words: tuple[str, ...],
    wardround: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = simulated(wardround, case_folder(number), tmp_path / "run", monkeypatch)
    assert said.code == 2
    for word in words:
        assert word in said.err
    assert not (tmp_path / "run").exists(), "nothing is left that looks like a run"


def cohorts_of(run: Path) -> dict[str, list[Cohort]]:
    study, found = load_study(run / "study.toml"), {}
    for folder in sorted((run / "sites").iterdir()):
        cohorts = open_cohorts(open_site(folder), study, keeps_parts=False)
        found[folder.name] = [cohorts.train, cohorts.validation, cohorts.test]
    return found


def all_images(cohorts: list[Cohort]) -> tuple[torch.Tensor, torch.Tensor]:
    batches = [cohort.case(index) for cohort in cohorts for index in range(len(cohort))]
    images = torch.cat([batch.images for batch in batches if batch.images is not None])
    return images[:, 0], torch.cat([batch.targets for batch in batches])


def test_two_hospitals_that_store_left_and_right_differently_train_on_one_anatomy(
    wardround: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = simulated(wardround, case_folder("06"), tmp_path / "run", monkeypatch)
    assert said.code == 0
    found = cohorts_of(tmp_path / "run")
    north, south = (all_images(found[name])[0].mean(0).flatten() for name in ("north", "south"))
    assert float(torch.corrcoef(torch.stack([north, south]))[0, 1]) > 0.9


def test_a_mask_from_a_viewer_lies_on_the_bar_of_its_dicom_slice(
    wardround: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = simulated(wardround, case_folder("24"), tmp_path / "run", monkeypatch)
    assert said.code == 0
    (cohorts,) = cohorts_of(tmp_path / "run").values()
    images, masks = all_images(cohorts)
    middle = (images.amax((1, 2), keepdim=True) + images.amin((1, 2), keepdim=True)) / 2
    assert ((images > middle) == (masks == 1)).float().mean() > 0.99
    with np.load(tmp_path / "run" / "samples.npz") as samples:
        assert samples["sides"].tolist() == ["RL"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert '<span class="edge">R</span><span class="edge last">L</span>' in page


@pytest.mark.parametrize(("number", "size"), [("31", 32), ("43", 16)])
def test_headers_and_scaled_labels_are_read_as_they_are_meant(
    number: str, size: int, wardround: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = simulated(wardround, case_folder(number), tmp_path / "run", monkeypatch)
    assert said.code == 0
    (cohorts,) = cohorts_of(tmp_path / "run").values()
    images, masks = all_images(cohorts)
    assert images.shape[1:] == (size, size, size)
    assert masks.unique().tolist() == [0, 1]


STUDY = """
[study]
name = "case"
task = "segmentation"

[data]
channels = ["flair", "t1"]
dimensions = 3
classes = ["background", "organ"]
ignore_label = 255
{data}

[model]
network = "unet"
features = [4, 8]
normalisation = "group"

[training]
batch_size = {batch_size}
local_epochs = 1

[simulation]
data = "folder"
sites = 1

[simulation.options]
manifest = "manifest.csv"
"""


def write_case(folder: Path, sizes: list[int], data: str = "", batch_size: int = 2) -> None:
    """Write patients whose channels lie in one file, with a corner that nobody annotated."""
    splits = ("train", "train", "validation", "test")
    rows = ["patient,image,mask,split"]
    for number, (size, split) in enumerate(zip(sizes, splits, strict=True)):
        image = np.random.default_rng(number).normal(size=(size, size, size, 2))
        labels = np.zeros((size,) * 3, np.uint8)
        labels[2:6, 2:9, 3:7], labels[-3:] = 1, 255
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), folder / f"i{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), folder / f"m{number}.nii.gz")
        rows.append(f"p{number},i{number}.nii.gz,m{number}.nii.gz,{split}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    (folder / "study.toml").write_text(STUDY.format(data=data, batch_size=batch_size))


def test_channels_of_one_file_and_voxels_that_nobody_annotated_train_and_are_measured(
    wardround: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_case(tmp_path, [16] * 4)
    assert simulated(wardround, tmp_path, tmp_path / "run", monkeypatch).code == 0
    (cohorts,) = cohorts_of(tmp_path / "run").values()
    batch = cohorts[0].case(0)
    assert batch.images is not None
    assert batch.images.shape == (1, 2, 16, 16, 16)
    assert batch.targets.unique().tolist() == [0, 1, 2]


def test_sizes_that_cannot_be_batched_are_refused_before_training(
    wardround: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_case(tmp_path, [16, 24, 16, 16])
    said = simulated(wardround, tmp_path, tmp_path / "run", monkeypatch)
    assert said.code == 2
    assert "row 3 of the manifest has another size than row 2, 16x16x16" in said.err
    assert not (tmp_path / "run").exists()
