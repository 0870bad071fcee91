from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter

from wardround.client.data.manifest.examination import Examination, Location
from wardround.client.data.preprocessing import geometry
from wardround.client.data.preprocessing.intensity import INTENSITIES
from wardround.client.data.preprocessing.preprocessing import prepare_case
from wardround.client.data.preprocessing.shared_arrays import prepare_block
from wardround.client.data.preprocessing.steps import denoised, finish_images, finish_masks
from wardround.client.data.reading.image import Image, UnreadableError
from wardround.client.site.folder import Site, SiteFile
from wardround.common.errors import DataError
from wardround.common.study.loading import parse_study
from wardround.common.study.sections.data import DataSection
from wardround.common.study.study import Study

GENERATOR = np.random.default_rng(0)


def contract(**data: Any) -> DataSection:
    return DataSection(classes=("background", "organ"), **data)


def study_of(dimensions: int = 3, task: str = "segmentation", **data: Any) -> Study:
    network = "unet" if task == "segmentation" else "small-cnn"
    return parse_study(
        {
            "study": {"name": "organ", "task": task},
            "data": {"classes": ["background", "organ"], "dimensions": dimensions, **data},
            "model": {"network": network},
        }
    )


def normalised(preset: str, block: np.ndarray, eight_bit: bool = False) -> np.ndarray:
    data = contract()
    return INTENSITIES[preset].normalise(block.astype(np.float32), eight_bit, data)


@pytest.mark.parametrize("target", ["RAS", "LPS", "LAI"])
def test_images_are_turned_as_nibabel_turns_them(target: str) -> None:
    values = GENERATOR.normal(size=(3, 4, 5)).astype(np.float32)
    affine = np.array([[0, 0, 3, 1], [-2, 0, 0, 2], [0, 1.5, 0, 3], [0, 0, 0, 1.0]])
    turned = geometry.reorient(Image(values[np.newaxis], (2.0, 1.5, 3.0), affine), target)
    ornt = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(target)
    )
    wanted = nibabel.Nifti1Image(values, affine).as_reoriented(ornt)
    np.testing.assert_array_equal(turned.array[0], wanted.get_fdata())
    np.testing.assert_allclose(turned.affine, wanted.affine)
    assert turned.spacing == pytest.approx(wanted.header.get_zooms())


def test_orientation_and_spacing_cannot_be_honoured_where_the_file_says_nothing(
    tmp_path: Path,
) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 4, 4)))
    place = Location(tmp_path / "a.npy")
    site = Site(tmp_path, SiteFile(name="ward"))
    row = Examination(7, "p", (place,), mask=place)
    with pytest.raises(DataError, match=r"^row 7, column image: .*how it lies"):
        prepare_case(row, site, study_of(orientation="RAS"))
    with pytest.raises(DataError, match=r"^row 7, column image: .*voxel size"):
        prepare_case(row, site, study_of(spacing=[1, 1, 1]))


def test_resampling_covers_the_same_millimetres_and_keeps_labels_pure(tmp_path: Path) -> None:
    values = np.tile(np.arange(8, dtype=np.float32), (6, 4, 1)) + 1
    labels = (values > 4).astype(np.uint8)
    affine = np.diag([1.0, 3.0, 2.0, 1.0])
    for name, array in (("image", values), ("mask", labels)):
        nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / f"{name}.nii")
    row = Examination(
        2, "p", (Location(tmp_path / "image.nii"),), mask=Location(tmp_path / "mask.nii")
    )
    study = study_of(spacing=[1, 1, 1])
    case = prepare_case(row, Site(tmp_path, SiteFile(name="ward")), study)
    assert case.image.shape == (1, 6, 12, 16)
    assert case.spacing == (1.0, 1.0, 1.0)
    # Linear between voxel centres: output voxel j lies at (j + 0.5) / 2 - 0.5 of the input.
    wanted = np.interp((np.arange(16) + 0.5) / 2 - 0.5, np.arange(8), np.arange(8) + 1)
    np.testing.assert_allclose(case.image[0, 2, 5].numpy(), wanted, rtol=1e-5)
    assert case.mask is not None
    assert case.mask[2, 5].tolist() == [0] * 8 + [1] * 8


def test_a_volume_that_shrinks_is_smoothed_first() -> None:
    stripes = np.tile([0.0, 1.0], 16).astype(np.float32)[None, None, :, None, None]
    block = np.broadcast_to(stripes, (1, 1, 32, 8, 8)).copy()
    small = geometry.resize_images(block, (8, 8, 8))
    np.testing.assert_allclose(small[:, :, 1:-1], 0.5, atol=0.1)


def test_resizing_says_the_new_voxel_size(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 16, 24)), np.eye(4)), tmp_path / "a.nii")
    place = Location(tmp_path / "a.nii")
    row = Examination(2, "p", (place,), mask=place)
    study = study_of(size=[16, 16, 16])
    case = prepare_case(row, Site(tmp_path, SiteFile(name="ward")), study)
    assert case.image.shape == (1, 16, 16, 16)
    assert case.spacing == (0.5, 1.0, 1.5)


@pytest.mark.parametrize("size", [(8, 8), (3, 3), (8, 3)])
def test_padding_and_cropping_keep_the_centre(size: tuple[int, int]) -> None:
    block = GENERATOR.normal(size=(2, 1, 5, 6)).astype(np.float32)
    data = contract(size=size, fit="pad", intensity="none")
    fitted = finish_images(block, False, data)
    assert fitted.shape[2:] == size
    for image, out in zip(block[:, 0], fitted[:, 0], strict=True):
        rows, columns = (max(0, s - h) for s, h in zip(size, image.shape, strict=True))
        pads = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))
        padded = np.pad(image, pads, constant_values=image.min())
        top, left = ((h - s) // 2 for s, h in zip(size, padded.shape, strict=True))
        wanted = padded[top : top + size[0], left : left + size[1]]
        np.testing.assert_array_equal(out, wanted)


def test_padding_takes_no_part_in_the_intensities() -> None:
    block = GENERATOR.uniform(50, 90, (1, 1, 8, 8)).astype(np.float32)
    small = finish_images(block, False, contract(size=(8, 8), fit="pad", intensity="xray"))
    large = finish_images(block, False, contract(size=(32, 32), fit="pad", intensity="xray"))
    np.testing.assert_allclose(large[..., 12:20, 12:20], small)


def test_masks_are_padded_with_background() -> None:
    labels = np.ones((1, 1, 4, 4), dtype=np.uint8)
    fitted = finish_masks(labels, contract(size=(6, 6), fit="pad"))
    assert fitted.sum() == 16
    assert fitted.dtype == np.uint8


def test_denoising_is_a_median_of_three_in_each_image() -> None:
    block = GENERATOR.normal(size=(3, 2, 9, 9)).astype(np.float32)
    wanted = [[median_filter(plane, size=3) for plane in image] for image in block]
    np.testing.assert_array_equal(denoised(block), wanted)


def test_bytes_are_scaled_to_one_and_other_values_kept() -> None:
    block = np.array([[[[0, 51, 255]]]])
    np.testing.assert_allclose(normalised("none", block, True), [[[[0, 0.2, 1]]]])
    np.testing.assert_array_equal(normalised("none", block), block)


def test_ct_maps_its_window_to_minus_one_and_one() -> None:
    block = np.array([[[[-1000, -160, 40, 140, 240, 3000]]]])
    np.testing.assert_allclose(normalised("ct", block), [[[[-1, -1, 0, 0.5, 1, 1]]]])
    lung = contract(intensity="ct", window=(-600, 1500))
    windowed = INTENSITIES["ct"].normalise(np.array([[[[-600.0, 150]]]], np.float32), False, lung)
    np.testing.assert_allclose(windowed, [[[[0, 1]]]])


def test_mr_is_scored_over_its_non_zero_voxels() -> None:
    block = GENERATOR.normal(100, 20, (2, 1, 9, 9, 9)).astype(np.float32)
    block[:, :, :3] = 0
    block[0, 0, 5, 5, 5] = 1e6  # a bright vessel
    result = normalised("mr", block)
    assert not result[:, :, :3].any()
    for image, out in zip(block, result, strict=True):
        tissue = image[image != 0]
        clipped = np.clip(tissue, *np.percentile(tissue, (0.5, 99.5)))
        wanted = (clipped - clipped.mean()) / clipped.std()
        np.testing.assert_allclose(out[image != 0], wanted, rtol=1e-3, atol=1e-4)


def test_xray_has_mean_zero_and_deviation_one_in_each_image() -> None:
    block = GENERATOR.gamma(2, 100, (3, 1, 20, 20)) * np.array([1, 5, 9])[:, None, None, None]
    result = normalised("xray", block)
    np.testing.assert_allclose(result.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(result.std(axis=(1, 2, 3)), 1, rtol=1e-4)
    clipped = np.clip(block[1], *np.percentile(block[1], (0.5, 99.5)))
    assert np.corrcoef(clipped.ravel(), result[1].ravel())[0, 1] == pytest.approx(1, abs=1e-5)


def test_dermoscopy_takes_out_the_tint_of_the_lamp() -> None:
    skin = GENERATOR.uniform(20, 120, (1, 3, 16, 16))
    skin *= 70 / skin.mean(axis=(2, 3), keepdims=True)
    tinted = skin * np.array([1.4, 1.0, 0.6])[:, None, None]
    np.testing.assert_allclose(
        normalised("dermoscopy", tinted, True), normalised("dermoscopy", skin, True), atol=1e-5
    )
    assert normalised("dermoscopy", skin, True).min() >= -1


def test_histology_takes_out_the_strength_of_the_stain() -> None:
    # Twice the stain squares the transmitted light: (I + 1) / 256 becomes its square.
    light = GENERATOR.uniform(0.3, 1.0, (1, 3, 16, 16))
    weak, strong = 256 * light - 1, 256 * light**2 - 1
    np.testing.assert_allclose(
        normalised("histology", weak, True), normalised("histology", strong, True), atol=1e-3
    )


def test_ultrasound_is_steadier_under_speckle_than_plain_scores() -> None:
    tissue = np.repeat(np.repeat(GENERATOR.uniform(0.2, 1, (6, 6)), 8, 0), 8, 1)
    speckled = [tissue * GENERATOR.rayleigh(1, tissue.shape) for _ in range(2)]
    first, second = (normalised("ultrasound", s[None, None]).ravel() for s in speckled)
    plain = np.corrcoef(speckled[0].ravel(), speckled[1].ravel())[0, 1]
    assert np.corrcoef(first, second)[0, 1] > plain + 0.1


@pytest.mark.parametrize("preset", INTENSITIES)
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 8, 8), (2, 1, 6, 6, 6)])
def test_an_image_is_normalised_by_itself_and_stays_finite_when_it_is_flat(
    preset: str, shape: tuple[int, ...]
) -> None:
    block = GENERATOR.uniform(1, 200, shape).astype(np.float32)
    block[1] = 7.0
    together = normalised(preset, block)
    assert np.isfinite(together).all()
    np.testing.assert_allclose(together[:1], normalised(preset, block[:1]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"shift": [{"kind": "noise"}, {"kind": "contrast"}]}])
def test_a_sweep_over_an_array_equals_one_examination_after_another(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    images = GENERATOR.integers(0, 256, (6, 20, 24, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    np.savez(tmp_path / "masks.npz", organ=(images[..., 0] > 99).astype(np.uint8))
    rows = [
        Examination(
            row,
            f"p{row}",
            (Location(tmp_path / "images.npy", None, item),),
            mask=Location(tmp_path / "masks.npz", "organ", item),
        )
        for row, item in enumerate((4, 0, 5, 1), start=2)
    ]
    site = Site(tmp_path, SiteFile.model_validate({"name": "ward", **settings}))
    study = study_of(2, size=[16, 16], colour=True, intensity="dermoscopy", denoise=True)
    for row, swept in zip(rows, prepare_block(rows, site, study), strict=True):
        case = prepare_case(row, site, study)
        torch.testing.assert_close(case.image, swept.image)
        assert case.mask is not None
        assert swept.mask is not None
        torch.testing.assert_close(case.mask, swept.mask)
        assert case.spacing == swept.spacing == (20 / 16, 24 / 16)


def test_a_mask_of_another_shape_is_refused_with_both_shapes(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.ones((6, 4)))
    np.save(tmp_path / "mask.npy", np.ones((4, 6)))
    row = Examination(
        9, "p", (Location(tmp_path / "image.npy"),), mask=Location(tmp_path / "mask.npy")
    )
    with pytest.raises(DataError, match=r"^row 9, column mask: its shape is 4x6 .* image 6x4"):
        prepare_case(row, Site(tmp_path, SiteFile(name="ward")), study_of(2))


def test_a_mask_of_the_same_grid_that_lies_another_way_is_turned(tmp_path: Path) -> None:
    values = np.zeros((4, 4, 4), dtype=np.float32)
    values[0] = 1
    flipped = np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[0, 3] = 3.0
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "image.nii")
    nibabel.save(nibabel.Nifti1Image(values[::-1], flipped), tmp_path / "mask.nii")
    row = Examination(
        5, "p", (Location(tmp_path / "image.nii"),), mask=Location(tmp_path / "mask.nii")
    )
    site = Site(tmp_path, SiteFile(name="ward"))
    for orientation in (None, "RAS", "LPS", "stored"):
        case = prepare_case(row, site, study_of(orientation=orientation))
        assert case.mask is not None
        torch.testing.assert_close(case.image[0], case.mask.float())


def test_a_geometry_without_directions_is_refused() -> None:
    image = Image(np.ones((1, 2, 2, 2)), (1.0, 1.0, 1.0), np.zeros((4, 4)))
    with pytest.raises(UnreadableError, match="no usable orientation"):
        geometry.reorient(image, "RAS")
