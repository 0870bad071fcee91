"""Histograms of a site's patients: each counts 1, as its images are stored."""

from pathlib import Path

import numpy as np
from tests.support.hospitals.blobs import blob_study, write_blob_site
from tests.support.hospitals.image_ward import volume, ward_study, write_ward

from wardround.client.data.cohorts import open_cohorts
from wardround.client.data.statistics import measure_statistics
from wardround.client.site.folder import open_site
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.statistics import asked_histograms

STUDY = ward_study(statistics={"intensity": [-200, 200], "intensity_bins": 40})


def test_each_patient_counts_one_however_many_examinations_there_are(tmp_path: Path) -> None:
    volumes = [volume(seed) for seed in range(6)]
    folder = write_ward(tmp_path / "north", volumes, STUDY)
    manifest = folder / "manifest.csv"
    manifest.write_text(manifest.read_text() + "\nCANARY002,3.nii,3-mask.nii,train" * 7)
    site = open_site(folder)
    found = measure_statistics(site, open_cohorts(site, STUDY).train, STUDY)
    assert found.patients == 4
    for name, rows in found.rows.items():
        np.testing.assert_allclose(rows.sum(axis=1), 1, err_msg=name)
    assert found.rows["examinations"][:, 0].sum() == 3  # the first has eight
    assert found.rows["examinations"][0, 7] == 1


def test_cells_are_those_of_the_images_as_they_are_stored(tmp_path: Path) -> None:
    volumes = [volume(seed, (12, 10, 8)) for seed in range(3)]
    folder = write_ward(tmp_path / "north", volumes, STUDY, spacings=[(0.5, 1.0, 2.5)] * 3)
    site = open_site(folder)
    found = measure_statistics(site, open_cohorts(site, STUDY).train, STUDY)
    asked = {one.name: one for one in asked_histograms(STUDY)}
    values = {
        name: asked[name].value(int(rows[0].argmax()))
        for name, rows in found.rows.items()
        if asked[name].is_whole and name.partition("-")[0] in ("spacing", "size", "extent")
    }
    assert [values[f"spacing-{axis}"] for axis in range(3)] == [0.5, 1.0, 2.5]
    assert [values[f"size-{axis}"] for axis in range(3)] == [12, 8, 8]
    assert [values[f"extent-{axis}"] for axis in range(3)] == [5, 10, 20]
    counts, _ = np.histogram(np.clip(volumes[2], -200, 199.99), bins=40, range=(-200, 200))
    np.testing.assert_allclose(found.rows["intensity-0"][0], counts / volumes[2].size)
    marked = volumes[2][:6, :4, :4]
    counts, _ = np.histogram(np.clip(marked, -200, 199.99), bins=40, range=(-200, 200))
    np.testing.assert_allclose(found.rows["foreground-0"][0], counts / marked.size)
    np.testing.assert_allclose(found.rows["classes"][0], [1 - 96 / 960, 64 / 960, 32 / 960])


def test_of_boxes_the_classes_share_an_image(tmp_path: Path) -> None:
    study = parse_study(blob_study(statistics={"intensity": [-3, 3], "intensity_bins": 8}))
    site = open_site(write_blob_site(tmp_path / "north", 18, 0, (48, 40)))
    cohort = open_cohorts(site, study).train

    found = measure_statistics(site, cohort, study).rows["classes"]

    held = [boxes[boxes[:, 0] >= 0, 0] for boxes in cohort.targets.numpy()]
    assert {len(one) for one in held} == {0, 1, 2}
    for row, classes in zip(found, held, strict=True):
        counts = np.bincount(classes.astype(int), minlength=2)
        np.testing.assert_allclose(row, counts / max(len(classes), 1))
