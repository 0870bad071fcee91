"""``wardround site import``: from a real archive, or a real series in a folder, to training."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from tests.pacs.orthanc import Orthanc
from tests.pacs.site import site_folder
from tests.support.studies.tiny_study import Said

from wardround.client.clinic.onboarding.deidentification.burned_in_text import (
    TextCheck,
    mask_text,
    text_finder,
)
from wardround.client.clinic.onboarding.run import import_images
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.readers import read_image
from wardround.common.errors import InputError

pytestmark = pytest.mark.pacs

RULES = """
[[channels]]
modality = "MR"
description = ["*T1w*"]
slice_thickness = [0.5, 1.0]

[study]
date_from = "20130101"

[labels.table]
file = "findings.csv"
by = "patient"
key = "Id"
columns = { label = "Finding" }

[deidentification]
burned_in_text = "unchecked"
"""
STUDY = """
[study]
name = "imported"
task = "classification"

[data]
dimensions = 3
size = [16, 16, 8]
intensity = "mr"
classes = ["none", "lesion"]

[model]
network = "small-cnn"
normalisation = "group"

[training]
batch_size = 2
local_steps = 1

[federation]
rounds = 2

[simulation]
data = "folder"
split = "iid"
sites = 1

[simulation.options]
manifest = "{manifest}"
"""
PATIENTS, SLICES = 8, 6


def _patients(t1_series: list[Path], folder: Path) -> list[Path]:
    """Return eight patients' studies, each six slices of the real series."""
    paths = []
    for number in range(PATIENTS):
        study, series, frame = generate_uid(), generate_uid(), generate_uid()
        for place in range(SLICES):
            image = pydicom.dcmread(t1_series[number * SLICES + place])
            image.PatientID, image.PatientName = f"HOSPITALID{number}", f"Canary^Patient{number}"
            image.StudyInstanceUID, image.SeriesInstanceUID = study, series
            image.SOPInstanceUID, image.FrameOfReferenceUID = generate_uid(), frame
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            path = folder / f"{number}-{place}"
            folder.mkdir(exist_ok=True)
            image.save_as(path)
            paths.append(path)
    return paths


def _rules(folder: Path) -> Path:
    with (folder / "findings.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["Id", "Finding"])
        rows.writerows([f"HOSPITALID{n}", "lesion" if n % 2 else "none"] for n in range(PATIENTS))
    path = folder / "import.toml"
    path.write_text(RULES)
    return path


@pytest.mark.parametrize("protocol", ["web", "get"])
def test_an_archive_is_imported_and_trained_on(
    protocol: str,
    orthanc: Orthanc,
    t1_series: list[Path],
    tmp_path: Path,
    wardround: Callable[..., Said],
) -> None:
    paths = _patients(t1_series, tmp_path / "source")
    orthanc.add_files(paths[: SLICES * 6])
    site, rules = site_folder(tmp_path / "site", orthanc, protocol), _rules(tmp_path)
    first = import_images("pacs", rules, site)
    assert (first.imported, first.studies) == (6, {})
    orthanc.add_files(paths)
    second = import_images("pacs", rules, site)
    assert (second.imported, second.already) == (PATIENTS - 6, 6)
    assert not (site / "import" / "incoming").exists()

    with (site / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len({row["patient"] for row in rows}) == PATIENTS
    _check_pixels(paths, site, rows)
    written = b"".join(path.read_bytes() for path in (site / "data").rglob("*") if path.is_file())
    written += (site / "manifest.csv").read_bytes() + (site / "import/journal.jsonl").read_bytes()
    assert b"HOSPITALID" not in written
    assert b"Canary" not in written

    study = tmp_path / "study.toml"
    study.write_text(STUDY.format(manifest=site / "manifest.csv"))
    said = wardround("simulate", study, "--out", tmp_path / "run", "--engine", "in-process")
    assert said.code == 0, said.err


def _check_pixels(paths: list[Path], site: Path, rows: list[dict[str, str]]) -> None:
    """Check that each volume is voxel-identical to one of the source's."""
    sources: dict[str, list[np.ndarray]] = {}  # type: ignore[type-arg]
    for path in paths:
        image = pydicom.dcmread(path)
        sources.setdefault(image.StudyInstanceUID, []).append(image.pixel_array)
    wanted = {np.sort(np.stack(planes), axis=None).tobytes() for planes in sources.values()}
    found = {
        np.sort(
            np.stack([pydicom.dcmread(p).pixel_array for p in (site / row["image"]).iterdir()]),
            axis=None,
        ).tobytes()
        for row in rows
    }
    assert found == wanted
    assert read_image(Location(site / rows[0]["image"]), 3).array.shape[-1] == SLICES


def test_an_archive_that_is_away_is_said_and_leaves_nothing(
    orthanc: Orthanc, t1_series: list[Path], tmp_path: Path
) -> None:
    site, rules = site_folder(tmp_path / "site", orthanc), _rules(tmp_path)
    orthanc.add_files(_patients(t1_series, tmp_path / "source"))
    orthanc.stop()
    with pytest.raises(Exception, match=r"archive|reach") as raised:
        import_images("pacs", rules, site)
    assert "HOSPITALID" not in str(raised.value)
    assert not (site / "manifest.csv").exists()
    orthanc.start()
    assert import_images("pacs", rules, site).imported == PATIENTS


def test_a_site_without_an_archive_says_which_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "site.toml").write_text('name = "north"\n')
    with pytest.raises(InputError, match=r"pacs\.toml is not there"):
        import_images("pacs", _rules(tmp_path), tmp_path / "north")


def test_the_real_series_is_taken_from_a_folder_with_links(
    t1_series: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    for path in t1_series:
        (tmp_path / "source" / path.name).symlink_to(path)
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "site.toml").write_text('name = "north"\n')
    rules = _rules(tmp_path)
    (tmp_path / "findings.csv").write_text("Id,Finding\n02,none\n")
    assert import_images(str(tmp_path / "source"), rules, tmp_path / "north").imported == 1
    shutil.rmtree(tmp_path / "source")  # nothing of the site depends on it


def test_real_slices_are_clean_and_small_letters_in_them_are_seen(t1_series: list[Path]) -> None:
    from PIL import Image, ImageDraw

    check = TextCheck(text_finder(), mask=True)
    for path in t1_series[2::12]:
        image = pydicom.dcmread(path)
        assert check.boxes(image) == ()
        pixels = image.pixel_array.astype(np.int32)
        picture = Image.fromarray(pixels)
        ImageDraw.Draw(picture).text((8, 8), "SCHMIDT ERIKA", fill=int(pixels.max()))
        image.PixelData = np.array(picture).astype(np.int16).tobytes()
        boxes = check.boxes(image)
        assert boxes
        masked = mask_text(image, boxes)
        assert check.boxes(masked) == ()
        assert np.array_equal(masked.pixel_array[60:], image.pixel_array[60:])
