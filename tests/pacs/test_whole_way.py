"""From a real archive to a model and back: imported by rules, trained on, answered, found."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from tests.pacs.gateway import add_rules, status
from tests.pacs.orthanc import Orthanc, unpacked
from tests.pacs.site import pixels, site_folder
from tests.support.studies.tiny_study import Said

from wardround.client.clinic.inference.prediction import Segmented
from wardround.client.clinic.inference.predictor import load_predictor
from wardround.client.clinic.pacs.archive import open_archive
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.readers import read_image

pytestmark = pytest.mark.pacs
PATIENTS = 8
RULES = """
[[channels]]
modality = "MR"
description = "training"

[study]
date_from = "20130101"

[deidentification]
burned_in_text = "unchecked"
"""
STUDY = """
[study]
name = "bright"
task = "segmentation"

[data]
dimensions = 3
classes = ["background", "bright tissue"]
size = [32, 32, 8]
intensity = "mr"

[model]
network = "unet"
features = [4, 8]
normalisation = "group"

[training]
loss = "dice-ce"
batch_size = 2
local_steps = 4

[federation]
rounds = 2

[simulation]
data = "folder"
split = "natural"
compare = false

[simulation.options]
manifest = "{manifest}"
"""


def _copies(t1_series: list[Path], patients: int) -> list[pydicom.Dataset]:
    """Return the middle slices as series of other patients, each of its own brightness."""
    made = []
    for patient in range(1, patients + 1):
        for number, path in enumerate(sorted(t1_series)[12:36]):
            one = pydicom.dcmread(path)
            one.PatientID, one.PatientName = f"P{patient}", f"P{patient}^"
            one.SeriesDescription = "training"
            one.StudyInstanceUID, one.SeriesInstanceUID = f"1.2.3.{patient}", f"1.2.3.{patient}.1"
            one.FrameOfReferenceUID = f"1.2.3.{patient}.9"
            one.SOPInstanceUID = f"1.2.3.{patient}.2.{number}"
            one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
            brighter = one.pixel_array.astype(np.float64) * (0.8 + patient / 20)
            one.PixelData = brighter.astype(np.int16).tobytes()
            made.append(one)
    return made


def _import(site: Path, wardround: Callable[..., Said]) -> Path:
    """Import the training series by rules, and give each a mask by threshold."""
    rules = site.parent / "import.toml"
    rules.write_text(RULES, encoding="utf-8")
    said = wardround("site", "import", "pacs", "--rules", rules, site)
    assert said.code == 0, said.err
    assert (
        f"Imported {PATIENTS} of {PATIENTS + 1} examinations" in said.out
    )  # the real one fits no rule
    with (site / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        imported = list(csv.DictReader(stream))
    rows = ["patient,image,mask,site,split"]
    for number, row in enumerate(imported):
        series = site / "data" / row["image"]
        image = read_image(Location(series if series.exists() else site / row["image"]), 3)
        mask = (image.array[0] > np.percentile(image.array, 80)).astype(np.uint8)
        place = site / f"mask-{number}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(mask, image.affine), place)
        split = ("train", "train", "validation", "test")[number % 4]
        where = series if series.exists() else site / row["image"]
        rows.append(f"{row['patient']},{where},{place},{('north', 'south')[number // 4]},{split}")
    manifest = site.parent / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return manifest


def _masks(segmentation: pydicom.Dataset, slices: list[str]) -> NDArray[np.uint8]:
    """Return labels as (slices, rows, columns), slices in the order of these images."""
    labels = np.zeros((len(slices), segmentation.Rows, segmentation.Columns), np.uint8)
    frames, shared = segmentation.pixel_array, segmentation.SharedFunctionalGroupsSequence[0]
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        place = groups if "SegmentIdentificationSequence" in groups else shared
        number = int(place.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        labels[slices.index(source.ReferencedSOPInstanceUID)][frame > 0] = number
    return labels


def _errors(path: Path) -> set[str]:
    said = unpacked().run("dciodvfy", path)
    lines = (said.stdout + said.stderr).splitlines()
    return {line for line in lines if line.startswith(("Error", "Abort"))}


def test_a_real_series_is_answered_by_a_model_that_was_trained_from_the_archive(
    orthanc: Orthanc, t1_series: list[Path], tmp_path: Path, wardround: Callable[..., Said]
) -> None:
    site = site_folder(tmp_path / "north", orthanc)
    archive = open_archive(site)
    orthanc.add_files(t1_series)
    archive.store(_copies(t1_series, PATIENTS))
    manifest = _import(site, wardround)
    (tmp_path / "study.toml").write_text(STUDY.format(manifest=manifest), encoding="utf-8")
    run = tmp_path / "run"
    said = wardround("simulate", tmp_path / "study.toml", "--out", run, "--engine", "in-process")
    assert said.code == 0, said.err
    model = run / "models" / "federated"

    add_rules(site, more='series_description = "anat-*"\nstudy_description = "hanke*"\n')
    said = wardround("site", "serve", site, "--model", model, "--once")
    assert said.code == 0, said.err
    states = {"waiting": 0, "done": 1, "refused": 0, "given up": 0}
    assert status(site)["states"] == states, said.err

    first = pydicom.dcmread(t1_series[0], stop_before_pixels=True)
    found = {one.modality: one for one in archive.find_series(first.StudyInstanceUID)}
    assert found.keys() == {"MR", "SEG", "SR"}
    read = {
        kind: archive.fetch_series(one.study_uid, one.uid, tmp_path / "back" / kind)
        for kind, one in found.items()
    }
    assert pixels(read["MR"]) == pixels(t1_series)
    _check_voxels(read, model)
    _check_texts(read, model)
    known = set().union(*map(_errors, t1_series))
    assert _errors(read["SEG"][0]) <= known
    assert _errors(read["SR"][0]) <= known
    assert known  # the source itself has errors: the tool works
    shutil.rmtree(run)


def _check_voxels(read: dict[str, list[Path]], model: Path) -> None:
    image = read_image(Location(read["MR"][0].parent), 3)
    predicted = load_predictor(model, "cpu").predict(image, modality="MR")
    assert isinstance(predicted, Segmented)
    headers = [pydicom.dcmread(path) for path in read["MR"]]
    assert image.affine is not None
    back = np.linalg.inv(image.affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])
    depth = {
        str(one.SOPInstanceUID): int(np.rint((back @ [*one.ImagePositionPatient, 1.0])[2]))
        for one in headers
    }
    slices = sorted(depth, key=depth.__getitem__)
    assert sorted(depth.values()) == list(range(len(headers)))
    labels = _masks(pydicom.dcmread(read["SEG"][0]), slices)
    assert np.array_equal(labels, predicted.labels.transpose(2, 1, 0))
    assert 0 < labels.mean() < 1


def _check_texts(read: dict[str, list[Path]], model: Path) -> None:
    digest = load_predictor(model, "cpu").digest
    for kind in ("SEG", "SR"):
        made = pydicom.dcmread(read[kind][0])
        text = " ".join(str(element.value) for element in made.iterall())
        assert "Not for diagnosis" in text
        assert digest in text
        assert made.PatientID == "02"
        assert made.get("PatientAge", "042Y") == "042Y"
