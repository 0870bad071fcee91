"""A segmentation edited in a real archive is what the next round trains on."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from tests.pacs.orthanc import Orthanc
from tests.pacs.site import site_folder
from tests.support.clinic.model_folders import SEGMENTS, untrained_model
from tests.support.clinic.reader_segmentations import drawn_segmentation
from tests.support.studies.tiny_study import Said

from wardround.client.clinic.onboarding.deidentification.keyed_maps import open_secret
from wardround.client.clinic.pacs.archive import Archive, open_archive
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.image import MaskTarget
from wardround.client.data.reading.readers import read_image, read_mask
from wardround.client.egress.gateway import Gateway
from wardround.client.session.model_context import ModelContext
from wardround.client.session.session import SiteSession
from wardround.client.site.folder import open_site
from wardround.common.study.loading import parse_study

pytestmark = pytest.mark.pacs

PATIENTS, SLICES, CLASS = 8, 6, "bright block"
CONTENT = {**SEGMENTS, "data": {**SEGMENTS["data"], "classes": ["background", CLASS]}}
RULES = """
[[channels]]
modality = "MR"
description = "*T1w*"

[deidentification]
burned_in_text = "unchecked"
"""
STRANGER = 99
POLICY = """approved = "any"
simulated = true
privacy_required = false
smallest_cohort = 1
smallest_cell = 1
"""


def _studies(t1_series: list[Path]) -> dict[int, list[pydicom.Dataset]]:
    """Return the studies of eight patients and of a stranger, each six slices of a real series."""
    made: dict[int, list[pydicom.Dataset]] = {}
    for number in (*range(1, PATIENTS + 1), STRANGER):
        for place in range(SLICES):
            one = pydicom.dcmread(t1_series[(number % 8) * SLICES + place])
            one.PatientID, one.PatientName = f"CANARYPATIENT{number}", f"CANARYNAME{number}^"
            one.StudyInstanceUID, one.SeriesInstanceUID = f"1.2.3.{number}", f"1.2.3.{number}.1"
            one.FrameOfReferenceUID = f"1.2.3.{number}.9"
            one.SOPInstanceUID = f"1.2.3.{number}.2.{place + 1}"
            one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
            made.setdefault(number, []).append(one)
    return made


def _drawn(
    series: list[pydicom.Dataset], labels: NDArray[np.uint8], kind: str = "MANUAL", **changed: str
) -> pydicom.Dataset:
    """Return a segmentation as a viewer would store it: a new series of the same study.

    Args:
        labels: (slices, rows, columns), slices in order of position.
        kind: MANUAL, SEMIAUTOMATIC or AUTOMATIC.
        changed: Other values of attributes.
    """
    made = drawn_segmentation(series, labels, CLASS, kind=kind, creator="CANARYREADER^Ada")
    for keyword, value in changed.items():
        setattr(made, keyword, value)
    return made


def _site(folder: Path, orthanc: Orthanc, wardround: Callable[..., Said]) -> Path:
    """Import what the archive holds: seven labelled by threshold, the last one unlabelled."""
    site = site_folder(folder, orthanc)
    rules = site.parent / "import.toml"
    rules.write_text(RULES, encoding="utf-8")
    said = wardround("site", "import", "pacs", "--rules", rules, site)
    assert "Imported 8" in said.out, said.out + said.err
    with (site / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        imported = list(csv.DictReader(stream))
    assert len(imported) == PATIENTS, said.out
    rows = ["patient,image,mask,split"]
    for number, row in enumerate(imported[1:]):
        image = read_image(Location(site / row["image"]), 3)
        mask = (image.array[0] > np.percentile(image.array, 80)).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(mask, image.affine), site / f"mask-{number}.nii.gz")
        split = ("train", "validation", "test", "train")[number % 4]
        rows.append(f"{row['patient']},{row['image']},mask-{number}.nii.gz,{split}")
    (site / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    one = imported[0]
    (site / "unlabelled.csv").write_text(f"patient,image\n{one['patient']},{one['image']}\n")
    (site / "policy.toml").write_text(POLICY, encoding="utf-8")
    return site


def _queue(site: Path, wardround: Callable[..., Said]) -> dict[str, str]:
    """Queue all training cases; return the place of each by its case."""
    model = untrained_model(site.parent / "model", CONTENT)
    words = ("site", "review", "queue", site, "--model", model, "--by", "random", "--budget", 20)
    said = wardround(*words)
    assert said.code == 0, said.err
    with (site / "review" / "queues" / "first.csv").open(newline="", encoding="utf-8") as stream:
        return {row["case"]: row["examination"] for row in csv.DictReader(stream)}


def _entries(site: Path) -> list[dict[str, object]]:
    lines = (site / "audit" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _edited_in_the_archive(
    site: Path, archive: Archive, t1_series: list[Path], patient: str
) -> NDArray[np.uint8]:
    """Store what a viewer would of a patient, beside three objects that are no labels of theirs."""
    series = _studies(t1_series)
    elsewhere = series.pop(STRANGER)
    one = next(some for some in series.values() if _pseudonym(site, some) == patient)
    labels = np.zeros((SLICES, one[0].Rows, one[0].Columns), np.uint8)
    labels[3:5, 40:90, 20:120] = 1
    archive.store(elsewhere)  # another study, that was never imported
    for made in (
        _drawn(one, labels),
        _drawn(one, labels[::-1].copy(), "AUTOMATIC"),
        _drawn(elsewhere, labels),
        _drawn(one, labels, FrameOfReferenceUID="1.2.3.4"),
    ):
        archive.store([made])
    return labels


def test_a_segmentation_edited_in_the_archive_is_the_label_of_the_next_round(
    orthanc: Orthanc, t1_series: list[Path], tmp_path: Path, wardround: Callable[..., Said]
) -> None:
    archive = open_archive(site_folder(tmp_path / "north", orthanc))
    for number, one in _studies(t1_series).items():
        if number != STRANGER:
            archive.store(one)
    site = _site(tmp_path / "north", orthanc, wardround)
    cases = _queue(site, wardround)
    session = SiteSession(open_site(site), ModelContext.build(parse_study(CONTENT), "cpu"))
    had = len(session.cohorts.train)
    patient = (site / "unlabelled.csv").read_text(encoding="utf-8").splitlines()[1].split(",")[0]
    labels = _edited_in_the_archive(site, archive, t1_series, patient)

    said = wardround("site", "review", "take", site, "pacs")
    assert said.code == 1, said.out + said.err
    assert "Took 1 corrections; 1 change something." in said.out
    assert "passed over: a program alone made the segmentation" in said.out
    assert "frame of reference" in said.out
    assert "CANARY" not in said.out + said.err
    _check_written_down(site, cases)

    assert session.has_stale_data(images=False)
    session.let_go()
    assert len(session.cohorts.train) == had + 1
    _check_label(session, patient, labels)
    Gateway.open(site, explains=False).describe(session, standalone=True)
    (noted,) = [one for one in _entries(site) if one["kind"] == "corrections"]
    assert noted["sha256"] == _table(site)[-1]["hash"]

    said = wardround("site", "review", "take", site, "pacs")
    assert "Took 0 corrections" in said.out
    assert "1 were taken before" in said.out


def _check_written_down(site: Path, cases: dict[str, str]) -> None:
    (line,) = _table(site)
    assert (line["reader"], line["source"]) == ("CANARYREADER Ada", "pacs")
    assert cases[str(line["case"])] == "unlabelled.csv row 2"
    kept = pydicom.dcmread(site / "review" / "masks" / str(line["new"]))
    assert "CANARY" not in str(kept)
    noted = [one for one in _entries(site) if one["kind"] == "correction"]
    assert [one["sha256"] for one in noted] == [line["hash"]]


def _check_label(session: SiteSession, patient: str, labels: NDArray[np.uint8]) -> None:
    cohort = session.cohorts.train
    place = next(at for at, one in enumerate(cohort.examinations) if one.patient == patient)
    mask, (where,) = cohort.examinations[place].mask, cohort.examinations[place].images
    assert mask is not None
    assert where is not None
    assert mask.path.name == _table(session.site.folder)[0]["new"]
    target = MaskTarget(("background", CLASS), read_image(where, 3))
    assert int(read_mask(mask, 3, 2, target=target).array.sum()) == int(labels.sum())
    trained_on = cohort.case(place).targets.float()
    assert float(trained_on.mean()) == pytest.approx(labels.mean(), rel=0.3)


def _table(site: Path) -> list[dict[str, object]]:
    lines = (site / "review" / "corrections.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _pseudonym(site: Path, series: list[pydicom.Dataset]) -> str:
    return open_secret(site).pseudonym(str(series[0].PatientID))
