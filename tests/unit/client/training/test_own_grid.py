"""A segmentation is scored against the mask as it was stored, whatever the study makes of it."""

import csv
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wardround.client.data.cohorts import Cohorts, open_cohorts
from wardround.client.privacy.evaluation import patient_vectors
from wardround.client.site.folder import open_site
from wardround.client.training.evaluation import evaluate, evaluating
from wardround.client.training.losses.registry import build_loss
from wardround.common.metrics.noised.encoding import length_of
from wardround.common.metrics.sums import MetricSums, summarise
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

CPU = torch.device("cpu")
SIDE = 20
CLASSES = 3


class ReadsTheImage(nn.Module):
    """Finds in each voxel the class that its brightness says: perfect on the prepared grid."""

    def forward(self, images: Tensor) -> Tensor:
        # The spleen is dark: what is interpolated between it and the air never looks like liver.
        classes = images[:, 0].round().clamp(-1, 1).long() % CLASSES
        return F.one_hot(classes, CLASSES).movedim(-1, 1).float() * 10


def study_of(training: dict[str, Any] | None = None, **data: Any) -> Study:
    return parse_study(
        {
            "study": {"name": "organs", "task": "segmentation"},
            "data": {
                "classes": ["nothing", "liver", "spleen"],
                "dimensions": 3,
                "intensity": "none",
                **data,
            },
            "model": {"network": "unet", "features": [4, 8]},
            "training": {"batch_size": 1, **(training or {})},
        }
    )


def truth_of(number: int) -> np.ndarray:
    """A liver in the middle and a spleen in the corner, which a crop loses."""
    mask = np.zeros((SIDE, SIDE, SIDE - 2 * number), np.uint8)
    mask[6:14, 6:14, 4:10] = 1
    mask[:4, :5, :6] = 2
    return mask


def write_site(folder: Path, spacing: tuple[float, ...] = (1.0, 1.0, 2.0), codes: str = "") -> None:
    folder.mkdir(parents=True)
    affine = np.diag([*spacing, 1.0])
    rows = []
    for number, split in enumerate(("train", "validation", "validation", "test")):
        for name in ("image", "mask"):
            voxels = truth_of(number).astype(np.int16)
            voxels[(voxels == 2) & (name == "image")] = -1
            stored = nibabel.Nifti1Image(voxels, affine)
            if codes:
                stored = stored.as_reoriented(
                    nibabel.orientations.ornt_transform(
                        nibabel.io_orientation(affine),
                        nibabel.orientations.axcodes2ornt(tuple(codes)),
                    )
                )
            nibabel.save(stored, folder / f"{name}{number}.nii.gz")
        rows.append([f"p{number}", f"image{number}.nii.gz", f"mask{number}.nii.gz", split])
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["patient", "image", "mask", "split"], *rows])


def open_site_folder(folder: Path, study: Study, settings: str = "") -> Cohorts:
    (folder / "site.toml").write_text(f'name = "ward"\n{settings}')
    return open_cohorts(open_site(folder), study)


def measured(cohorts: Cohorts, study: Study, surfaces: bool = False) -> MetricSums:
    loss = build_loss(study, None, CPU)
    return evaluate(ReadsTheImage(), cohorts.validation, study, CPU, loss, surfaces)


def values_of(sums: MetricSums, study: Study) -> dict[tuple[str, str], float]:
    return {(one.metric, one.class_name): one.value for one in summarise(sums, study)}


def arrays_of(sums: MetricSums) -> dict[str, list[float]]:
    return {name: array.tolist() for name, array in sums.measured.to_arrays().items()}


def test_truth_that_a_crop_takes_away_is_missed_and_counted(tmp_path: Path) -> None:
    write_site(tmp_path / "s")
    study = study_of(size=[12, 12, 12], fit="pad")
    sums = measured(open_site_folder(tmp_path / "s", study), study)
    arrays = arrays_of(sums)
    spleen = sum(int((truth_of(number) == 2).sum()) for number in (1, 2))
    assert arrays["false_negatives"][2] == spleen, "the crop holds nothing of it"
    assert values_of(sums, study)["dice", "spleen"] == 0.0
    cut = [truth_of(n)[4:16, 4:16, (SIDE - 2 * n - 12) // 2 :][:, :, :12] for n in (1, 2)]
    seen = sum(int((one == 1).sum()) for one in cut)
    assert arrays["true_positives"][1] == seen
    assert arrays["false_negatives"][1] == 2 * 8 * 8 * 6 - seen
    total = sum(truth_of(number).size for number in (1, 2))
    assert sum(arrays["true_positives"]) + sum(arrays["false_negatives"]) == total


def test_what_lies_in_the_padding_is_no_voxel_of_the_image(tmp_path: Path) -> None:
    write_site(tmp_path / "s")
    study = study_of(size=[28, 28, 28], fit="pad")
    arrays = arrays_of(measured(open_site_folder(tmp_path / "s", study), study))
    assert sum(arrays["true_positives"]) == sum(truth_of(number).size for number in (1, 2))
    assert sum(arrays["false_negatives"]) == 0


@pytest.mark.parametrize("data", [{"spacing": [1, 1, 1]}, {"spacing": [0.8, 1.3, 2.0]},
                                  {"size": [32, 24, 16], "fit": "resize"}])  # fmt: skip
def test_a_good_prediction_on_another_grid_is_good_on_the_images_own(
    tmp_path: Path, data: dict[str, Any]
) -> None:
    write_site(tmp_path / "s")
    study = study_of(**data)
    cohorts = open_site_folder(tmp_path / "s", study)
    sums = measured(cohorts, study, surfaces=True)
    values, arrays = values_of(sums, study), arrays_of(sums)
    assert sum(arrays["true_positives"]) + sum(arrays["false_negatives"]) == sum(
        truth_of(number).size for number in (1, 2)
    )
    assert values["dice", "liver"] > 0.8
    # Distances are those between voxels of the file, 1 x 1 x 2 mm: whole numbers and roots of them.
    assert values["hd95", "liver"] <= 2.0


def test_images_of_their_own_grid_are_scored_as_ever(tmp_path: Path) -> None:
    write_site(tmp_path / "s")
    study = study_of()
    cohorts = open_site_folder(tmp_path / "s", study)
    assert [cohorts.validation.stored_mask(n) for n in range(2)] == [None, None]
    assert values_of(measured(cohorts, study), study)["dice", ""] == 1.0


@pytest.mark.parametrize("size", [[12, 12, 12], [28, 28, 28]])
def test_the_way_an_image_lies_and_where_it_is_kept_change_no_score(
    tmp_path: Path, size: list[int]
) -> None:
    study = study_of(size=size, fit="pad", orientation="RAS")
    found = []
    for name, codes, settings in (
        ("memory", "", ""),
        ("turned", "PIR", ""),
        ("disk", "LPS", 'cache_place = "disk"'),
    ):
        write_site(tmp_path / name, codes=codes)
        cohorts = open_site_folder(tmp_path / name, study, settings)
        found.append(arrays_of(measured(cohorts, study, surfaces=True)))
        again = open_site_folder(tmp_path / name, study, settings)  # from the disk, where it is
        assert arrays_of(measured(again, study, surfaces=True)) == found[-1]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("spacing", [None, [1.0, 1.0, 1.0]])
def test_windows_that_slide_are_scored_like_whole_images(
    tmp_path: Path, spacing: list[float] | None
) -> None:
    write_site(tmp_path / "s")
    data = {} if spacing is None else {"spacing": spacing}
    whole, windows = study_of(**data), study_of({"patch_size": [8, 8, 8]}, **data)
    one = measured(open_site_folder(tmp_path / "s", whole), whole, surfaces=True)
    other = measured(open_site_folder(tmp_path / "s", windows), windows, surfaces=True)
    assert arrays_of(one) == arrays_of(other)
    assert one.loss == pytest.approx(other.loss, rel=1e-3)


def test_training_patients_masks_take_no_memory_twice(tmp_path: Path) -> None:
    write_site(tmp_path / "s")
    cohorts = open_site_folder(tmp_path / "s", study_of(size=[12, 12, 12], fit="pad"))
    assert cohorts.train.stored_mask(0) is None
    assert cohorts.test.stored_mask(0) is not None


def test_pictures_of_one_array_are_scored_as_they_were_stored(tmp_path: Path) -> None:
    masks = np.zeros((10, 16, 16), np.uint8)
    masks[:, 4:12, 2:9] = 1
    np.savez(tmp_path / "set.npz", images=masks.astype(np.int16), masks=masks)
    splits = ["train"] * 4 + ["validation"] * 4 + ["test"] * 2
    rows = [[f"p{n}", f"set.npz#images#{n}", f"set.npz#masks#{n}", splits[n]] for n in range(10)]
    with (tmp_path / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["patient", "image", "mask", "split"], *rows])
    study = study_of({"batch_size": 4}, dimensions=2, size=[8, 8], fit="pad")
    arrays = arrays_of(measured(open_site_folder(tmp_path, study), study))
    assert sum(arrays["true_positives"]) + sum(arrays["false_negatives"]) == 4 * 16 * 16
    assert arrays["false_negatives"][1] == 4 * (8 * 7 - 8 * 5)


def test_what_noise_is_added_to_is_on_the_own_grid_too_and_stays_bounded(tmp_path: Path) -> None:
    write_site(tmp_path / "s")
    study = study_of(size=[12, 12, 12], fit="pad")
    cohorts = open_site_folder(tmp_path / "s", study)
    loss = build_loss(study, None, CPU)
    with evaluating(network := ReadsTheImage()):
        vectors = list(patient_vectors(network, cohorts.validation, study, CPU, loss))
    assert all(len(one) == length_of(study) for one in vectors)
    assert all(np.linalg.norm(one) <= 1 + 1e-12 for one in vectors)
    whole = study_of()
    with evaluating(network):
        full = open_site_folder(tmp_path / "s", whole).validation
        exact = list(patient_vectors(network, full, whole, CPU, loss))
    assert not np.allclose(vectors, exact), "the spleen is lost, and the sum says so"
