import csv
import os
import stat
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from wardround.client.data.cohorts import Cohorts, open_cohorts
from wardround.client.data.patches import draw_starts, foreground_positions
from wardround.client.site.folder import open_site
from wardround.common.errors import DataError
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

Rows = list[dict[str, Any]]
SPLITS = ["train"] * 6 + ["validation"] * 2 + ["test"] * 2


def study_of(task: str = "classification", **sections: dict[str, Any]) -> Study:
    content: dict[str, dict[str, Any]] = {
        "study": {"name": "organ", "task": task},
        "data": {"classes": ["a", "b"]},
        "model": {"network": "unet" if task == "segmentation" else "small-cnn"},
    }
    for name, section in sections.items():
        content.setdefault(name, {}).update(section)
    return parse_study(content)


def open_rows(folder: Path, rows: Rows, study: Study, settings: str = "") -> Cohorts:
    (folder / "site.toml").write_text(f'name = "ward"\n{settings}')
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return open_cohorts(open_site(folder), study)


def small_pictures(folder: Path) -> tuple[np.ndarray, Rows]:
    """Write ten pictures; patients p0 .. p4 have two each, the even items are of class a."""
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8), dtype=np.uint8)
    np.savez(folder / "set.npz", images=images)
    rows = [
        {"patient": f"p{i // 2}", "image": f"set.npz#images#{i}", "label": "ab"[i % 2],
         "split": SPLITS[i], "age": 40 + i}
        for i in range(10)
    ]  # fmt: skip
    return images, rows


PICTURES = {"size": [8, 8]}


def volumes(folder: Path, sizes: list[tuple[int, int, int]]) -> Rows:
    """Write volumes whose last voxel along each axis is the organ."""
    rows: Rows = []
    for number, size in enumerate(sizes):
        values = np.random.default_rng(number).uniform(1, 2, size).astype(np.float32)
        labels = np.zeros(size, dtype=np.uint8)
        labels[-1, -1, -1] = 1
        affine = np.diag([1.0, 1.0, 2.0 + number, 1.0])
        for kind, array in (("image", values), ("mask", labels)):
            nibabel.save(nibabel.Nifti1Image(array, affine), folder / f"{kind}{number}.nii")
        rows.append(
            {"patient": number, "image": f"image{number}.nii", "mask": f"mask{number}.nii",
             "split": "train"}
        )  # fmt: skip
    return rows


TRAIN_ONLY = {"validation_fraction": 0.0, "test_fraction": 0.0}


def test_a_cohort_holds_its_patients_targets_and_images(tmp_path: Path) -> None:
    images, rows = small_pictures(tmp_path)
    train = open_rows(tmp_path, rows, study_of(data=PICTURES)).train
    assert (len(train), train.patient_count) == (6, 3)
    assert train.patients.tolist() == [0, 0, 1, 1, 2, 2]
    assert train.targets.tolist() == [0, 1] * 3
    assert train.class_counts().tolist() == [3, 3]
    batch = train.batch(torch.tensor([4, 1]))
    assert batch.images is not None
    np.testing.assert_allclose(batch.images[:, 0], images[[4, 1]] / np.float32(255), rtol=1e-6)
    assert batch.targets.tolist() == [0, 1]
    assert train.stacked
    assert train.spacing(0) == (1.0, 1.0)


def test_test_images_are_not_read_until_they_are_asked_for(tmp_path: Path) -> None:
    _, rows = small_pictures(tmp_path)
    for row in rows[8:]:
        row["image"] = "broken.npy#0"
    (tmp_path / "broken.npy").write_bytes(b"no array")
    cohorts = open_rows(tmp_path, rows, study_of(data=PICTURES))
    cohorts.train.prepare()
    assert len(cohorts.test) == 2
    with pytest.raises(DataError, match=r"^row 10, column image"):
        cohorts.test.prepare()


def test_an_unreadable_image_stops_with_its_row_unless_it_may_be_skipped(tmp_path: Path) -> None:
    images, rows = small_pictures(tmp_path)
    rows[2]["image"] = "set.npz#images#99"
    with pytest.raises(DataError, match=r"^row 4, column image: the array has 10 items"):
        open_rows(tmp_path, rows, study_of(data=PICTURES)).train.prepare()
    cohorts = open_rows(tmp_path, rows, study_of(data=PICTURES), "skip_unreadable = true")
    assert len(cohorts.train) == 5
    assert cohorts.train.targets.tolist() == [0, 1, 1, 0, 1]
    assert cohorts.train.patients.tolist() == [0, 0, 1, 2, 2]
    assert cohorts.notes == ("row 4 could not be read and was skipped",)
    batch = cohorts.train.case(2)
    assert batch.images is not None
    np.testing.assert_allclose(batch.images[0, 0], images[3] / np.float32(255), rtol=1e-6)


def test_a_split_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    _, rows = small_pictures(tmp_path)
    (tmp_path / "set.npz").write_bytes(b"")
    cohorts = open_rows(tmp_path, rows, study_of(data=PICTURES), "skip_unreadable = true")
    with pytest.raises(DataError, match="none of the 6 examinations"):
        len(cohorts.train)


def test_a_class_that_a_split_lacks_is_noted(tmp_path: Path) -> None:
    _, rows = small_pictures(tmp_path)
    rows[7]["label"] = "a"
    notes = open_rows(tmp_path, rows, study_of(data=PICTURES)).notes
    assert notes == ("no patient of class b in validation",)


def test_classes_that_a_split_lacks_are_noted_in_one_line(tmp_path: Path) -> None:
    _, rows = small_pictures(tmp_path)
    study = study_of(data={**PICTURES, "classes": ["a", "b", "c", "d"]})
    notes = open_rows(tmp_path, rows, study).notes
    assert notes[0] == "no patient of class c, d in train"
    assert len(notes) == 3, "one a split"


def test_augmentation_comes_only_with_a_generator_and_repeats_with_it(tmp_path: Path) -> None:
    _, rows = small_pictures(tmp_path)
    study = study_of(data={**PICTURES, "augmentation": "mr"})
    train = open_rows(tmp_path, rows, study).train

    def images(seed: int | None) -> torch.Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        batch = train.batch(torch.arange(4), generator)
        assert batch.images is not None
        return batch.images

    assert torch.equal(images(1), images(1))
    assert not torch.equal(images(1), images(2))
    plain = torch.cat([train.case(index).images for index in range(4)])  # type: ignore[misc]
    assert torch.equal(images(None), plain)


def test_covariates_come_with_the_batch(tmp_path: Path) -> None:
    _, rows = small_pictures(tmp_path)
    covariates = [{"name": "age", "mean": 40, "scale": 2}]
    study = study_of(data={**PICTURES, "covariates": covariates})
    batch = open_rows(tmp_path, rows, study).validation.batch(torch.tensor([1, 0]))
    assert batch.covariates is not None
    assert batch.covariates.tolist() == [[3.5], [3.0]]


def test_a_table_study_has_no_images(tmp_path: Path) -> None:
    _, rows = small_pictures(tmp_path)
    for row in rows:
        del row["image"]
    study = study_of(
        data={"kind": "table", "covariates": [{"name": "age"}], "covariate_scaling": "site"},
        model={"network": "mlp"},
    )
    train = open_rows(tmp_path, rows, study).train
    batch = train.batch(torch.arange(6), torch.Generator())
    assert batch.images is None
    assert len(batch.inputs) == 1
    # Ages 40 .. 45: mean 42.5, population standard deviation sqrt(35 / 12).
    wanted = (torch.arange(40.0, 46.0) - 42.5) / (35 / 12) ** 0.5
    torch.testing.assert_close(batch.inputs[0][:, 0], wanted)


def test_several_labels_are_one_column_a_class(tmp_path: Path) -> None:
    _, rows = small_pictures(tmp_path)
    rows[0]["label"], rows[1]["label"] = "a;b", "none"
    train = open_rows(tmp_path, rows, study_of(data={**PICTURES, "multi_label": True})).train
    assert train.batch(torch.tensor([0, 1, 2])).targets.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert train.class_counts().tolist() == [3, 3]


def test_volumes_of_different_sizes_are_cases_and_give_patches(tmp_path: Path) -> None:
    rows = volumes(tmp_path, [(20, 18, 17), (24, 18, 17), (9, 30, 16)])
    study = study_of(
        "segmentation",
        data={"dimensions": 3},
        evaluation=TRAIN_ONLY,
        training={"patch_size": [16, 16, 16], "patches_per_image": 3, "foreground_fraction": 1.0},
    )
    train = open_rows(tmp_path, rows, study).train
    assert not train.stacked
    assert train.class_counts().tolist() == [20 * 18 * 17 + 24 * 18 * 17 + 9 * 30 * 16 - 3, 3]
    assert train.case_counts().tolist() == [3, 3]
    whole = train.case(1)
    assert whole.images is not None
    assert whole.images.shape == (1, 1, 24, 18, 17)
    assert train.spacing(1) == (1.0, 1.0, 3.0)
    batch = train.batch(torch.tensor([2, 0]), torch.Generator().manual_seed(0))
    assert batch.images is not None
    assert batch.images.shape == (6, 1, 16, 16, 16)
    assert batch.targets.dtype == torch.int64
    assert batch.targets.flatten(1).sum(1).tolist() == [1] * 6
    with pytest.raises(DataError, match="2 images of different sizes"):
        train.batch(torch.tensor([0, 1]))


def test_sizes_that_form_no_batch_are_named_by_row_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    rows = volumes(tmp_path, [(20, 18, 17), (20, 18, 17), (24, 18, 17)])
    data = {"dimensions": 3}
    study = study_of("segmentation", data=data, evaluation=TRAIN_ONLY)
    said = r"row 4 of the manifest has another size than row 2, 20x18x17\. Set training\.patch_size"
    with pytest.raises(DataError, match=said):
        open_rows(tmp_path, rows, study).train.require_batches()
    open_rows(tmp_path, rows[:2], study).train.require_batches()
    alone = study_of("segmentation", data=data, training={"batch_size": 1}, evaluation=TRAIN_ONLY)
    open_rows(tmp_path, rows, alone).train.require_batches()


def test_whole_images_are_padded_to_what_the_network_can_divide_for_training(
    tmp_path: Path,
) -> None:
    rows = volumes(tmp_path, [(20, 18, 17)] * 2)
    study = study_of("segmentation", data={"dimensions": 3}, evaluation=TRAIN_ONLY)
    train = open_rows(tmp_path, rows, study).train
    trained = train.batch(torch.tensor([0, 1]), torch.Generator().manual_seed(0))
    assert trained.images is not None
    assert trained.images.shape == (2, 1, 24, 24, 24)
    assert trained.targets.shape == (2, 24, 24, 24)
    assert trained.targets.sum() == train.batch(torch.tensor([0, 1])).targets.sum()


def test_a_volume_is_not_looked_through_at_every_draw_of_patches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = volumes(tmp_path, [(20, 18, 17), (9, 30, 16)])
    study = study_of(
        "segmentation",
        data={"dimensions": 3},
        evaluation=TRAIN_ONLY,
        training={"patch_size": [16, 16, 16]},
    )
    train, looked = open_rows(tmp_path, rows, study).train, list[torch.Size]()
    train.prepare()
    minimum = torch.Tensor.min

    def counted(image: torch.Tensor, *arguments: Any) -> Any:
        looked.append(image.shape)
        return minimum(image, *arguments)

    monkeypatch.setattr(torch.Tensor, "min", counted)
    for _ in range(3):
        train.batch(torch.tensor([0, 1]), torch.Generator())
    assert looked == [(1, 9, 30, 16)], "once, and only what is smaller than a patch"


def test_patches_lie_anywhere_inside_and_on_the_foreground_as_often_as_asked() -> None:
    mask = torch.zeros(40, 30)
    mask[39, 2] = 1
    foreground = foreground_positions(mask, 3)
    generator = torch.Generator().manual_seed(0)
    starts = draw_starts((40, 30), (8, 10), foreground, (4000, 0.5), generator)
    assert (starts >= 0).all()
    assert (starts <= torch.tensor([32, 20])).all()
    centred = (starts == torch.tensor([32, 0])).all(dim=1).float().mean()
    assert float(centred) == pytest.approx(0.5 + 0.5 / (33 * 21), abs=0.03)
    anywhere = draw_starts((40, 30), (8, 10), foreground, (20_000, 0.0), generator)
    assert len(anywhere.unique(dim=0)) == 33 * 21


def test_many_foreground_positions_are_thinned_out_evenly() -> None:
    (positions,) = foreground_positions(torch.ones(100, 100), 2)
    assert len(positions) <= 4096
    assert positions.float().mean(0).tolist() == pytest.approx([49.5, 49.5], abs=2)


def test_a_small_lesion_is_met_as_often_as_the_large_organ_beside_it() -> None:
    mask = torch.zeros(100, 100, dtype=torch.uint8)
    mask[:, :60] = 1
    mask[50:54, 90:94] = 2
    organ, lesion = foreground_positions(mask, 3)
    assert len(lesion) == 16
    generator = torch.Generator().manual_seed(0)
    starts = draw_starts((100, 100), (8, 8), (organ, lesion), (2000, 1.0), generator)
    on_lesion = mask[(starts + 4)[:, 0], (starts + 4)[:, 1]] == 2
    assert float(on_lesion.float().mean()) == pytest.approx(0.5, abs=0.05)


def prepared_files(folder: Path) -> list[Path]:
    return sorted((folder / "state" / "prepared").rglob("*.npy"))


@pytest.mark.parametrize("settings", ['cache_place = "disk"', "cache_gigabytes = 0.000001"])
def test_what_does_not_fit_in_memory_is_kept_on_disk_for_the_owner_alone(
    tmp_path: Path, settings: str
) -> None:
    _, rows = small_pictures(tmp_path)
    study = study_of(data={**PICTURES, "intensity": "xray"})
    wanted = open_rows(tmp_path, rows, study).train.batch(torch.arange(6))
    assert not prepared_files(tmp_path)
    cohort = open_rows(tmp_path, rows, study, settings).train
    batch = cohort.batch(torch.arange(6))
    assert batch.images is not None
    assert wanted.images is not None
    assert torch.equal(batch.images, wanted.images)
    files = prepared_files(tmp_path)
    assert files
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert not any("set" in path.name for path in files)


def test_prepared_files_are_used_again_until_their_source_changes(tmp_path: Path) -> None:
    rows = volumes(tmp_path, [(16, 16, 16)] * 2)
    study = study_of("segmentation", data={"dimensions": 3}, evaluation=TRAIN_ONLY)

    def image() -> torch.Tensor:
        train = open_rows(tmp_path, rows, study, 'cache_place = "disk"').train
        batch = train.case(0)
        assert batch.images is not None
        assert train.spacing(0) == (1.0, 1.0, 2.0)
        assert int(batch.targets.sum()) == 1
        return batch.images.clone()

    first = image()
    times = {path: path.stat().st_mtime_ns for path in prepared_files(tmp_path)}
    assert torch.equal(image(), first)
    assert {path: path.stat().st_mtime_ns for path in prepared_files(tmp_path)} == times
    changed = np.full((16, 16, 16), 5, dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(changed, np.diag([1, 1, 2, 1])), tmp_path / "image0.nii")
    assert image().unique().tolist() == [5.0]
    # What was kept of the old source is gone: no file was added.
    assert len(prepared_files(tmp_path)) == len(times)


def test_another_setting_has_files_of_its_own_and_unused_ones_go(tmp_path: Path) -> None:
    _, rows = small_pictures(tmp_path)
    disk = 'cache_place = "disk"'
    for intensity in ("xray", "none"):
        study = study_of(data={**PICTURES, "intensity": intensity})
        open_rows(tmp_path, rows, study, disk).train.prepare()
    folders = {path.parent for path in prepared_files(tmp_path)}
    assert len(folders) == 2
    old = time.time() - 40 * 24 * 3600
    for folder in folders:
        os.utime(folder, (old, old))
    open_rows(tmp_path, rows, study, disk).train.prepare()
    assert len({path.parent for path in prepared_files(tmp_path)}) == 1


def test_real_pictures_and_masks_make_batches(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "ham10000_sites_200x150"
    with (root / "selection.csv").open(newline="") as stream:
        names = [line["image_id"] for line in csv.DictReader(stream)][:10]
    rows = [
        {"patient": name, "image": f"images/{name}.jpg",
         "mask": f"masks/{name}_segmentation.png", "split": split}
        for name, split in zip(names, SPLITS, strict=True)
    ]  # fmt: skip
    study = study_of(
        "segmentation",
        data={"size": [96, 64], "colour": True, "intensity": "dermoscopy",
              "augmentation": "dermoscopy"},
    )  # fmt: skip
    train = open_rows(tmp_path, rows, study, f'data_root = "{root}"').train
    batch = train.batch(torch.arange(6), torch.Generator().manual_seed(0))
    assert batch.images is not None
    assert batch.images.shape == (6, 3, 96, 64)
    assert batch.targets.unique().tolist() == [0, 1]
    # A lesion is darker than the skin around it, so images and masks lie on each other.
    lesion = batch.targets.bool()[:, None].expand_as(batch.images)
    assert batch.images[lesion].mean() < batch.images[~lesion].mean()
