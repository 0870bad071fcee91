"""``wardround site check``: what is planted in a site's data is found, and stays at the site."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from tests.support.studies.tiny_study import Said

Run = Callable[..., Said]
PATIENTS = 60
STUDY = """
[study]
name = "spots"
task = "{task}"

[data]
dimensions = {dimensions}
classes = ["dark", "bright"]
size = [24, 24{third}]
{more}
[model]
network = "{network}"
"""


class Hospital:
    """A site folder whose data lies as a test plants it; names of patients and files are CANARY."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header = ["patient", "image", "label", "split", "age", "sex"]
        self.draw = np.random.default_rng(3)
        (folder / "site.toml").write_text('name = "north"\n')
        self.rows = [self._row(number) for number in range(PATIENTS)]

    def _row(self, number: int) -> list[str]:
        pixels = self.draw.integers(40, 90, (24, 24)).astype(np.uint8)
        bright = number % 2
        if bright:
            pixels[6:14, 6:14] += 120
        name = f"CANARY{number:02d}.png"
        Image.fromarray(pixels).save(self.folder / name)
        part = "train" if number < 40 else "validation" if number < 50 else "test"
        return [
            f"CANARY-P{number:02d}",
            name,
            ("dark", "bright")[bright],
            part,
            f"{30 + number}",
            "f",
        ]

    def picture(self, number: int) -> Path:
        return self.folder / self.rows[number][1]

    def check(self, run: Run, *words: object) -> tuple[int, dict[str, Any]]:
        lines = [",".join(row) for row in (self.header, *self.rows)]
        (self.folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        said = run("site", "check", *words, "--site", self.folder, "--json")
        assert "CANARY" not in said.out + said.err
        report: dict[str, Any] = json.loads(said.out)
        return said.code, report

    def study(self, **changes: str) -> Path:
        asked = {"task": "classification", "dimensions": "2", "third": "", "more": ""}
        asked |= {"network": "small-cnn", **changes}
        path = self.folder / "study.toml"
        path.write_text(STUDY.format(**asked))
        return path


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


def found(report: dict[str, Any], name: str) -> list[tuple[str, list[int]]]:
    return [(f["status"], f["rows"]) for f in report["findings"] if f["name"] == name]


def test_sound_data_has_no_fault_and_the_report_is_the_owners_alone(
    hospital: Hospital, wardround: Run
) -> None:
    code, report = hospital.check(wardround)
    assert code == 0
    assert {f["status"] for f in report["findings"]} == {"ok"}
    assert (report["examinations"], report["patients"]) == (60, 60)
    (classes,) = (one for one in report["counts"] if "class" in one["title"])
    assert dict(classes["bars"])["bright"] == [20, 5, 5]
    checks = hospital.folder / "checks"
    assert stat.S_IMODE(checks.stat().st_mode) == 0o700
    for name in ("manifest.html", "manifest.json"):
        assert stat.S_IMODE((checks / name).stat().st_mode) == 0o600
        assert "CANARY" not in (checks / name).read_text()
    assert json.loads((checks / "manifest.json").read_text()) == report


def test_leaks_and_duplicates_are_found_exact_and_near(hospital: Hospital, wardround: Run) -> None:
    hospital.picture(55).write_bytes(hospital.picture(1).read_bytes())
    hospital.picture(4).write_bytes(hospital.picture(2).read_bytes())
    brighter = np.asarray(Image.open(hospital.picture(7)), np.float32) * 1.02 + 4
    Image.fromarray(brighter.clip(0, 255).astype(np.uint8)).save(hospital.picture(57))
    code, report = hospital.check(wardround)
    assert code == 1
    assert found(report, "leakage") == [("fault", [3, 57])]
    assert found(report, "duplicates") == [("look", [4, 6])]
    assert found(report, "near duplicates") == [("look", [9, 59])]


def test_a_picture_under_two_labels_and_a_patient_in_two_parts_are_faults(
    hospital: Hospital, wardround: Run
) -> None:
    hospital.picture(3).write_bytes(hospital.picture(2).read_bytes())
    hospital.rows[59][0] = hospital.rows[0][0]
    code, report = hospital.check(wardround)
    assert code == 1
    assert ("fault", [4, 5]) in found(report, "duplicates")
    assert found(report, "leakage") == [("fault", [2, 61])]


def test_planted_label_errors_are_among_the_hints(hospital: Hospital, wardround: Run) -> None:
    planted = (5, 12, 33, 48)
    for number in planted:
        hospital.rows[number][2] = "dark" if hospital.rows[number][2] == "bright" else "bright"
    code, report = hospital.check(wardround)
    assert code == 0
    ((status, rows),) = found(report, "label errors")
    assert status == "look"
    assert set(rows) <= {number + 2 for number in planted}
    assert len(rows) >= 2
    assert {one["row"] for one in report["suspects"]} == set(rows)
    assert all(one["suggested"][1] > one["labelled"][1] for one in report["suspects"])
    (hint,) = (f for f in report["findings"] if f["name"] == "label errors")
    assert "trained 5 times without a fifth of the patients" in hint["fact"]
    assert "no verdict" in hint["remedy"]


def test_labels_that_nothing_explains_are_not_doubted(hospital: Hospital, wardround: Run) -> None:
    labels = hospital.draw.permutation([row[2] for row in hospital.rows])
    for row, label in zip(hospital.rows, labels, strict=True):
        row[2] = str(label)
    _, report = hospital.check(wardround)
    (hint,) = (f for f in report["findings"] if f["name"] == "label errors")
    assert len(report["suspects"]) < 10 or "learnt nothing" in hint["fact"]


def test_files_sizes_and_intensities_that_differ_are_pointed_at(
    hospital: Hospital, wardround: Run
) -> None:
    hospital.picture(8).write_bytes(hospital.picture(8).read_bytes()[:60])
    Image.fromarray(np.full((24, 24), 7, np.uint8)).save(hospital.picture(9))
    big = hospital.draw.integers(40, 90, (48, 24)).astype(np.uint8)
    Image.fromarray(big).save(hospital.picture(10))
    pixels = np.asarray(Image.open(hospital.picture(11)), np.int32) * 200
    Image.fromarray(pixels.astype(np.uint16)).save(hospital.picture(11))
    code, report = hospital.check(wardround)
    assert code == 1
    assert found(report, "files") == [("fault", [10])]
    assert found(report, "channels") == [("look", [11])]
    assert found(report, "sizes") == [("look", [12])]
    ((status, rows),) = found(report, "intensities")
    assert status == "look"
    assert 13 in rows


def test_impossible_values_and_outliers_of_covariates(hospital: Hospital, wardround: Run) -> None:
    for number, age in ((3, "-2"), (4, "733"), (5, "sixty"), (6, ""), (7, "?")):
        hospital.rows[number][4] = age
    hospital.rows[8][5] = "F"
    code, report = hospital.check(wardround)
    assert code == 1
    assert ("fault", [5, 6]) in found(report, "covariate age")
    assert ("fault", [7]) in found(report, "covariate age")
    assert found(report, "covariate sex")[1][0] == "look"
    assert any("2 of 60 missing" in f["fact"] for f in report["findings"])


def test_a_class_that_a_part_lacks_is_said(hospital: Hospital, wardround: Run) -> None:
    for row in hospital.rows[50:]:
        row[2] = "dark"
    _, report = hospital.check(wardround, hospital.study())
    (classes,) = (f for f in report["findings"] if f["name"] == "classes")
    assert classes["status"] == "look"
    assert classes["fact"] == "no patient of test is bright"


def test_a_study_s_refusal_stands_in_the_report_and_the_rest_is_looked_at(
    hospital: Hospital, wardround: Run
) -> None:
    hospital.rows[20][2] = "grey"
    code, report = hospital.check(wardround, hospital.study())
    assert code == 1
    (manifest,) = (f for f in report["findings"] if f["name"] == "manifest")
    assert "names no class of the study in row 22" in manifest["fact"]
    assert (report["study"], report["examinations"]) == ("spots", 59)
    assert (hospital.folder / "checks" / "spots.html").exists()
    assert not (hospital.folder / "parts").exists()


def write_volume(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> str:
    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    nibabel.save(image, path)
    return path.name


def test_volumes_and_masks(hospital: Hospital, wardround: Run) -> None:
    hospital.header, hospital.rows = ["patient", "image", "mask"], []
    turned = np.diag([-1.0, 1.0, 2.0, 1.0])
    for number in range(12):
        values = hospital.draw.normal(size=(8, 9, 10)).astype(np.float32)
        mask = np.zeros((8, 9, 10), np.uint8)
        mask[2:4, 2:5, 3:6] = number != 3
        mask[0, 0, 0] = 5 if number == 5 else 0
        if number == 6:
            mask = mask[:-1]
        affine = turned if number == 4 else None
        image = write_volume(hospital.folder / f"CANARY{number}.nii.gz", values, affine)
        where = write_volume(hospital.folder / f"CANARY{number}_m.nii.gz", mask, affine)
        hospital.rows.append([f"CANARY{number}", image, where])
    study = hospital.study(
        task="segmentation", dimensions="3", third=", 24", network="unet", more='fit = "pad"'
    )
    code, report = hospital.check(wardround, study)
    assert code == 1
    assert found(report, "masks") == [("look", [5]), ("fault", [8]), ("fault", [7])]
    assert found(report, "voxel sizes") == [("look", [6])]
    assert found(report, "orientations") == [("look", [6])]


def test_a_table_study_has_its_labels_held_against_its_covariates(
    hospital: Hospital, wardround: Run
) -> None:
    hospital.header = ["patient", "label", "age"]
    hospital.rows = [
        [f"CANARY{n}", ("dark", "bright")[n % 2], str(20 + 40 * (n % 2) + n % 5)] for n in range(60)
    ]
    hospital.rows[9][1] = "dark"
    code, report = hospital.check(wardround)
    assert (code, found(report, "label errors")) == (0, [("look", [11])])


def test_markup_in_a_manifest_is_shown_and_not_run(hospital: Hospital, wardround: Run) -> None:
    hospital.rows[0][2] = hospital.rows[1][2] = "<script>alert(1)</script>"
    hospital.header[5] = "<img src=x>"
    hospital.check(wardround)
    page = (hospital.folder / "checks" / "manifest.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page


def test_a_manifest_that_cannot_be_read_is_refused(hospital: Hospital, wardround: Run) -> None:
    (hospital.folder / "manifest.csv").write_bytes(b"PK\x03\x04")
    said = wardround("site", "check", "--site", hospital.folder)
    assert said.code == 2
    assert "a workbook" in said.err
    assert not (hospital.folder / "checks").exists()
