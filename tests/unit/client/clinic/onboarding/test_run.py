"""``wardround site import`` from a folder: what a hospital types, and what lies there then."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid
from tests.unit.client.clinic.onboarding.made_dicom import SIZE, made_slice, with_meta, write_series
from typer.testing import CliRunner

from wardround.client.cli.site import site_app
from wardround.client.clinic.onboarding.run import import_images
from wardround.client.clinic.pacs import archive as archive_module
from wardround.client.clinic.pacs.archive import FoundSeries, FoundStudy, StudyQuery
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.readers import read_image
from wardround.common.errors import InputError, RunError

RULES = """
[[channels]]
modality = "MR"
description = ["*t1*"]

[deidentification]
burned_in_text = "unchecked"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "north"
    folder.mkdir()
    (folder / "site.toml").write_text('name = "north"\n')
    return folder


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "import.toml"
    path.write_text(RULES)
    return path


def _study(folder: Path, number: int, patient: str = "MRN-004711", **values: object) -> None:
    study = f"1.2.826.55.{number}"
    said = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.1",
        "PatientID": patient,
        "AccessionNumber": f"ACC-{number}",
        **values,
    }
    write_series(folder / str(number), **said)


def _rows(site: Path) -> list[dict[str, str]]:
    with (site / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_folder_becomes_images_and_a_manifest(tmp_path: Path, site: Path, rules: Path) -> None:
    source = tmp_path / "export"
    _study(source, 1)
    (source / "README.txt").write_text("no DICOM")
    run = CliRunner().invoke(site_app, ["import", str(source), "--rules", str(rules), str(site)])
    assert run.exit_code == 0, run.output
    assert "Imported 1 of 1 examinations, of 1 patients" in run.output
    assert "1  not DICOM" in run.output
    assert "no guarantee" in run.output.replace("\n", " ")
    (row,) = _rows(site)
    image = read_image(Location(site / row["image"]), 3)
    assert image.array.shape == (1, SIZE, SIZE, 4)
    assert row["examination"] == "0"


def test_one_pattern_needs_no_brackets(tmp_path: Path, site: Path, rules: Path) -> None:
    rules.write_text(RULES.replace('["*t1*"]', '"*t1*"'))
    _study(tmp_path / "export", 1)
    assert import_images(str(tmp_path / "export"), rules, site).imported == 1


def test_no_identifier_is_in_the_site_folder_nor_in_what_is_said(
    tmp_path: Path, site: Path, rules: Path
) -> None:
    source = tmp_path / "export"
    _study(source, 1)
    run = CliRunner().invoke(site_app, ["import", str(source), "--rules", str(rules), str(site)])
    written = _everything_in(site) + run.output.encode()
    for word in (
        b"004711",
        b"Schmidt",
        b"Erika",
        b"ACC-1",
        b"1.2.826.55",
        b"19610203",
        b"20210504",
    ):
        assert word not in written
    names = " ".join(str(path.relative_to(site)) for path in site.rglob("*"))
    assert "004711" not in names


def test_studies_over_time_are_days_apart_and_of_one_patient(
    tmp_path: Path, site: Path, rules: Path
) -> None:
    source = tmp_path / "export"
    _study(source, 1, StudyDate="20210504")
    _study(source, 2, StudyDate="20211104", PatientID=" MRN-004711 ")
    _study(source, 3, patient="other", StudyDate="19990101")
    import_images(str(source), rules, site)
    found = {(row["patient"], row["examination"]) for row in _rows(site)}
    assert len({patient for patient, _ in found}) == 2
    assert sorted(days for _, days in found) == ["0", "0", "184"]


def test_only_what_is_new_comes_the_next_time(tmp_path: Path, site: Path, rules: Path) -> None:
    source = tmp_path / "export"
    _study(source, 1)
    import_images(str(source), rules, site)
    first = (site / "manifest.csv").read_text()
    _study(source, 2, StudyDate="20220101")
    report = import_images(str(source), rules, site)
    assert (report.imported, report.already) == (1, 1)
    assert (site / "manifest.csv").read_text().startswith(first)
    assert len(_rows(site)) == 2


def test_a_row_that_the_hospital_took_out_does_not_come_back(
    tmp_path: Path, site: Path, rules: Path
) -> None:
    source = tmp_path / "export"
    _study(source, 1)
    _study(source, 2, patient="other")
    import_images(str(source), rules, site)
    lines = (site / "manifest.csv").read_text().splitlines()
    (site / "manifest.csv").write_text("\n".join(lines[:2]) + "\n")
    import_images(str(source), rules, site)
    assert len(_rows(site)) == 1


def test_a_dry_run_writes_nothing_and_shows_pseudonyms(
    tmp_path: Path, site: Path, rules: Path
) -> None:
    source = tmp_path / "export"
    _study(source, 1)
    run = CliRunner().invoke(
        site_app, ["import", str(source), "--rules", str(rules), str(site), "--dry-run"]
    )
    assert "Would import 1 of 1" in run.output
    assert "004711" not in run.output
    assert sorted(path.name for path in site.iterdir()) == ["site.toml"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"Modality": "CT"}, "another modality"),
        ({"SeriesDescription": "t2_tse"}, "another description"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "an image type that is excluded"),
        ({"SeriesDescription": "t1 scout"}, "an image type that is excluded"),
    ],
)
def test_what_is_left_out_is_counted_by_reason(
    tmp_path: Path, site: Path, rules: Path, values: dict[str, object], reason: str
) -> None:
    source = tmp_path / "export"
    _study(source, 1, **values)
    report = import_images(str(source), rules, site)
    assert report.series == {reason: 1}
    assert report.studies == {"no series for the channel image": 1}
    assert not (site / "manifest.csv").exists()


def test_an_incomplete_series_is_not_imported(tmp_path: Path, site: Path, rules: Path) -> None:
    source = tmp_path / "export"
    _study(source, 1, patient="whole")
    _study(source, 2)
    sorted((source / "2").iterdir())[1].unlink()
    report = import_images(str(source), rules, site)
    assert report.imported == 1
    (reason,) = report.studies
    assert "gaps between slices" in reason
    assert len(list((site / "data").glob("*/*"))) == 1


def test_copies_and_files_without_a_preamble_are_known_for_what_they_are(
    tmp_path: Path, site: Path, rules: Path
) -> None:
    source = tmp_path / "export"
    _study(source, 1)
    files = sorted((source / "1").iterdir())
    (source / "copy.bin").write_bytes(files[0].read_bytes())
    for path in files:
        path.write_bytes(path.read_bytes()[132:])
    report = import_images(str(source), rules, site)
    assert report.imported == 1
    assert report.files == {"a copy of another file": 1}


def test_several_series_become_channels(tmp_path: Path, site: Path) -> None:
    rules = tmp_path / "import.toml"
    channel = '[[channels]]\nname = "{0}"\ndescription = ["*{0}*"]\nchoose = "newest"\n'
    rules.write_text(channel.format("t1") + channel.format("flair") + RULES[RULES.index("[deid") :])
    source = tmp_path / "export"
    _study(source, 1)
    _study(source / "f", 1, SeriesInstanceUID="1.2.826.55.1.7", SeriesDescription="flair")
    newer = {"SeriesTime": "110000", "SeriesDescription": "flair again"}
    _study(source / "g", 1, SeriesInstanceUID="1.2.826.55.1.8", **newer)
    report = import_images(str(source), rules, site)
    assert report.series == {"another series of the study was chosen": 1}
    (row,) = _rows(site)
    assert row["image.t1"].endswith("/t1")
    assert row["image.flair"].endswith("/flair")


def test_labels_come_from_a_table_and_words_of_its_reports(tmp_path: Path, site: Path) -> None:
    rules = tmp_path / "import.toml"
    rules.write_text(
        RULES
        + '[labels.table]\nfile = "ris.csv"\nby = "accession"\nkey = "Acc"\n'
        + 'columns = { age = "Age" }\n[labels.report]\ntable_column = "Report"\n'
        + 'words = { abnormal = ["les.on", "oedema"], normal = ["unremarkable"] }\n'
    )
    (tmp_path / "ris.csv").write_text(
        "Acc;Age;Report\nACC-1;61;A LESION of 4 mm\nACC-2;50;unremarkable\nACC-9;1;x\n"
    )
    source = tmp_path / "export"
    for number in (1, 2, 3):
        _study(source, number, patient=f"MRN-{number}00")
    report = import_images(str(source), rules, site)
    assert report.studies == {"no label: not in the table": 1}
    assert {(row["age"], row["label"]) for row in _rows(site)} == {
        ("61", "abnormal"),
        ("50", "normal"),
    }


def test_a_cell_with_the_patients_identifier_is_no_label(tmp_path: Path, site: Path) -> None:
    rules = tmp_path / "import.toml"
    rules.write_text(
        RULES
        + '[labels.table]\nfile = "ris.csv"\nby = "patient"\nkey = "Id"\n'
        + 'columns = { note = "Note" }\n'
    )
    (tmp_path / "ris.csv").write_text("Id,Note\nMRN-004711,see mrn-004711\n")
    _study(tmp_path / "export", 1)
    report = import_images(str(tmp_path / "export"), rules, site)
    assert report.studies == {"no label: a cell of the table has an identifier in it": 1}


def test_a_label_comes_from_a_coded_finding_of_a_structured_report(
    tmp_path: Path, site: Path
) -> None:
    rules = tmp_path / "import.toml"
    rules.write_text(
        RULES
        + "[labels.structured_report]\n"
        + 'columns = { label = "DCM:121071", volume = "SCT:118565006" }\n'
        + 'values = { "SCT:52988006" = "lesion" }\n'
    )
    _study(tmp_path / "export", 1)
    report = with_meta(_structured_report())
    report.save_as(tmp_path / "export" / "sr", enforce_file_format=True)
    import_images(str(tmp_path / "export"), rules, site)
    (row,) = _rows(site)
    assert (row["label"], row["volume"]) == ("lesion", "12.5")


def _code(scheme: str, value: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "meant"
    return Sequence([item])


def _structured_report() -> Dataset:
    report = Dataset()
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    report.SOPInstanceUID = generate_uid()
    report.StudyInstanceUID, report.SeriesInstanceUID = "1.2.826.55.1", "1.2.826.55.1.90"
    report.PatientID, report.Modality = "MRN-004711", "SR"
    finding, volume, group = Dataset(), Dataset(), Dataset()
    finding.ValueType, finding.ConceptNameCodeSequence = "CODE", _code("DCM", "121071")
    finding.ConceptCodeSequence = _code("SCT", "52988006")
    volume.ValueType, volume.ConceptNameCodeSequence = "NUM", _code("SCT", "118565006")
    measured = Dataset()
    measured.NumericValue = "12.50"
    volume.MeasuredValueSequence = Sequence([measured])
    group.ValueType, group.ContentSequence = "CONTAINER", Sequence([finding, volume])
    report.ContentSequence = Sequence([group])
    return report


def test_a_segmentation_of_the_series_becomes_the_mask(tmp_path: Path, site: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    from pydicom.sr.codedict import codes

    rules = tmp_path / "import.toml"
    rules.write_text(RULES + '[labels.masks]\nnames = ["lesion"]\n')
    _study(tmp_path / "export", 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    images = [pydicom.dcmread(path) for path in sorted((tmp_path / "export" / "1").iterdir())]
    mask = np.zeros((4, SIZE, SIZE), np.uint8)
    mask[1:3, 4:8, 4:8] = 1
    segment = highdicom.seg.SegmentDescription(
        1,
        "lesion",
        codes.SCT.MorphologicallyAbnormalStructure,
        codes.SCT.Lesion,
        highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    for image in images:
        image.PatientBirthDate, image.StudyID, image.ReferringPhysicianName = "19610203", "", ""
    seg = highdicom.seg.Segmentation(
        images,
        mask,
        highdicom.seg.SegmentationTypeValues.BINARY,
        [segment],
        generate_uid(),
        9,
        generate_uid(),
        1,
        "maker",
        "model",
        "1",
        "serial 00012345",
    )
    seg.save_as(tmp_path / "export" / "mask")
    report = import_images(str(tmp_path / "export"), rules, site)
    assert report.studies == {}
    (row,) = _rows(site)
    written = pydicom.dcmread(site / row["mask"])
    image = pydicom.dcmread(next((site / row["image"]).iterdir()))
    assert written.SegmentSequence[0].SegmentLabel == "lesion"
    assert written.ReferencedSeriesSequence[0].SeriesInstanceUID == image.SeriesInstanceUID
    assert written.FrameOfReferenceUID == image.FrameOfReferenceUID
    assert np.array_equal(written.pixel_array, seg.pixel_array)


def test_an_unknown_key_of_the_rules_is_refused_with_a_suggestion(
    tmp_path: Path, site: Path, rules: Path
) -> None:
    rules.write_text(RULES.replace("modality", "modalitty"))
    with pytest.raises(InputError, match="did you mean 'modality'"):
        import_images(str(tmp_path), rules, site)


def test_a_manifest_of_other_columns_is_refused_before_anything_is_read(
    tmp_path: Path, site: Path, rules: Path
) -> None:
    (site / "manifest.csv").write_text("patient,image,label\n")
    _study(tmp_path / "export", 1)
    with pytest.raises(InputError, match="has the columns patient, image, label"):
        import_images(str(tmp_path / "export"), rules, site)
    assert not (site / "data").exists()


def test_a_disk_without_room_is_said_before_anything_is_written(
    tmp_path: Path, site: Path, rules: Path
) -> None:
    rules.write_text(RULES + "[limits]\nfree_gigabytes = 1e9\n")
    _study(tmp_path / "export", 1)
    with pytest.raises(RunError, match="make room, then import again"):
        import_images(str(tmp_path / "export"), rules, site)
    assert not (site / "data").exists()


def test_a_lost_secret_is_not_made_anew(tmp_path: Path, site: Path, rules: Path) -> None:
    _study(tmp_path / "export", 1)
    import_images(str(tmp_path / "export"), rules, site)
    secret = site / "import" / "secret.key"
    assert secret.stat().st_mode & 0o777 == 0o600
    secret.unlink()
    with pytest.raises(InputError, match="put it back from a backup"):
        import_images(str(tmp_path / "export"), rules, site)


def test_a_backup_holds_the_secret_and_the_journal(tmp_path: Path, site: Path, rules: Path) -> None:
    _study(tmp_path / "export", 1)
    import_images(str(tmp_path / "export"), rules, site)
    runner = CliRunner()
    runner.invoke(site_app, ["backup", str(site), str(tmp_path / "site.tar")])
    runner.invoke(site_app, ["restore", str(tmp_path / "site.tar"), str(tmp_path / "again")])
    report = import_images(str(tmp_path / "export"), rules, tmp_path / "again")
    assert (report.imported, report.already) == (0, 1)


def test_the_audit_log_has_counts_alone(tmp_path: Path, site: Path, rules: Path) -> None:
    _study(tmp_path / "export", 1)
    import_images(str(tmp_path / "export"), rules, site)
    (line,) = (site / "audit" / "log.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert "1 examinations imported, 1 in all" in line
    assert "004711" not in str(entry)


def test_an_import_killed_again_and_again_ends_as_one_that_was_not(
    tmp_path: Path, site: Path, rules: Path
) -> None:
    source, numbers = tmp_path / "export", range(12)
    for number in numbers:
        _study(source, number, patient=f"MRN-{number:06}")
    command = "from wardround.client.cli.site import site_app; site_app()"
    run = [sys.executable, "-c", command, "import", str(source), "--rules", str(rules), str(site)]
    journal = site / "import" / "journal.jsonl"
    for there in (1, 4):
        process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and _lines(journal) < there:
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    import_images(str(source), rules, site)
    rows = _rows(site)
    assert len(rows) == len({row["image"] for row in rows}) == len(numbers)
    assert all(len(list((site / row["image"]).iterdir())) == 4 for row in rows)
    assert len(list((site / "data").glob("*/*"))) == len(numbers)
    assert not (site / "data" / ".importing").exists()


def test_one_import_at_a_time(tmp_path: Path, site: Path, rules: Path) -> None:
    from wardround.common.files.lock import held_alone

    _study(tmp_path / "export", 1)
    (site / "import").mkdir()
    with held_alone(site / "import" / "lock"), pytest.raises(InputError, match="is running"):
        import_images(str(tmp_path / "export"), rules, site)


def test_two_patients_in_one_series_are_not_mixed(tmp_path: Path, site: Path, rules: Path) -> None:
    _study(tmp_path / "export", 1)
    other = made_slice(9, StudyInstanceUID="1.2.826.55.1", SeriesInstanceUID="1.2.826.55.1.1")
    other.PatientID = "somebody else"
    other.save_as(tmp_path / "export" / "x", enforce_file_format=True)
    report = import_images(str(tmp_path / "export"), rules, site)
    assert report.studies == {"it names two patients": 1}


@pytest.mark.parametrize(
    "values",
    [
        {"NumberOfFrames": "1e308"},
        {"SeriesNumber": "inf"},
        {"Rows": 65535, "Columns": 65535, "NumberOfFrames": 99999999},
        {"SamplesPerPixel": 0},
        {"PixelData": b"\0\0"},
        {"ImagePositionPatient": ["a", "b", "c"]},
    ],
)
def test_nonsense_in_a_header_leaves_the_study_out_and_ends_in_no_traceback(
    tmp_path: Path, site: Path, rules: Path, values: dict[str, object]
) -> None:
    source = tmp_path / "export"
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    _study(source, 1, patient="whole")
    _study(source, 2)
    for path in (source / "2").iterdir():
        image = pydicom.dcmread(path)
        for keyword, value in values.items():
            kind = (
                "LO"
                if isinstance(value, str | list)
                else image[keyword].VR
                if keyword in image
                else "IS"
            )
            if keyword in image:
                del image[keyword]
            image.add_new(keyword, kind, value)
        image.save_as(path)
    run = CliRunner().invoke(site_app, ["import", str(source), "--rules", str(rules), str(site)])
    assert run.exception is None, run.exception
    assert "004711" not in run.output
    assert len(_rows(site)) >= 1


def test_a_deflated_file_is_not_unpacked(tmp_path: Path, site: Path, rules: Path) -> None:
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    _study(tmp_path / "export", 1)
    bomb = made_slice(3)
    bomb.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    bomb.save_as(tmp_path / "export" / "bomb", enforce_file_format=True)
    report = import_images(str(tmp_path / "export"), rules, site)
    assert report.files == {"deflated, which no scanner sends": 1}


def test_a_structure_set_keeps_the_names_that_the_rules_ask_for_and_no_others(
    tmp_path: Path, site: Path
) -> None:
    rules = tmp_path / "import.toml"
    rules.write_text(RULES + '[labels.masks]\nnames = ["GTV"]\n')
    _study(tmp_path / "export", 1)
    image = pydicom.dcmread(next((tmp_path / "export" / "1").iterdir()))
    contours, reference = Dataset(), Dataset()
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    reference.ReferencedSOPClassUID = image.SOPClassUID
    contours.ContourImageSequence = Sequence([reference])
    contours.ContourData = [1.5, 2, 3, 4, 5, 6, 7, 8, 9]
    roi = Dataset()
    roi.ReferencedROINumber, roi.ContourSequence = 1, Sequence([contours])
    plan = Dataset()
    plan.SOPClassUID, plan.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", generate_uid()
    plan.StudyInstanceUID, plan.SeriesInstanceUID = "1.2.826.55.1", "1.2.826.55.1.91"
    plan.PatientID, plan.Modality = "MRN-004711", "RTSTRUCT"
    names = [Dataset(), Dataset()]
    names[0].ROINumber, names[0].ROIName = 1, "GTV"
    names[1].ROINumber, names[1].ROIName = 2, "drawn by Dr. Weber"
    plan.StructureSetROISequence, plan.ROIContourSequence = Sequence(names), Sequence([roi])
    with_meta(plan).save_as(tmp_path / "export" / "plan", enforce_file_format=True)
    report = import_images(str(tmp_path / "export"), rules, site)
    assert report.studies == {}
    (row,) = _rows(site)
    written = pydicom.dcmread(site / row["mask"])
    assert [one.ROIName for one in written.StructureSetROISequence] == ["GTV", "REMOVED"]
    contour = written.ROIContourSequence[0].ContourSequence[0]
    assert contour.ContourData[0] == 1.5
    used = {pydicom.dcmread(path).SOPInstanceUID for path in (site / row["image"]).iterdir()}
    assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID in used


def test_without_the_package_of_the_table_the_command_that_installs_it_is_said(
    tmp_path: Path, site: Path, rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wardround.client.clinic.onboarding.deidentification import profile

    profile._table.cache_clear()
    monkeypatch.setitem(sys.modules, "dicomanonymizer.simpledicomanonymizer", None)
    _study(tmp_path / "export", 1)
    with pytest.raises(InputError, match="pip install 'dicom-anonymizer"):
        import_images(str(tmp_path / "export"), rules, site)
    assert sorted(path.name for path in site.iterdir()) == ["site.toml"]


class _ArchiveInMemory:
    """An archive that serves a folder, a sub-folder a series, and counts what it gives away."""

    name = "memory"

    def __init__(self, folder: Path) -> None:
        self.folder, self.fetched = folder, 0

    def find_studies(self, query: StudyQuery) -> list[FoundStudy]:
        del query
        found = [pydicom.dcmread(next(place.iterdir())) for place in sorted(self.folder.iterdir())]
        return [FoundStudy(one.StudyInstanceUID, one.PatientID) for one in found]

    def find_series(self, study_uid: str) -> list[FoundSeries]:
        places = [
            place for place in self.folder.iterdir() if f"1.2.826.55.{place.name}" == study_uid
        ]
        return [
            FoundSeries(study_uid, f"{study_uid}.1", "MR", "t1", len(list(place.iterdir())))
            for place in places
        ]

    def fetch_series(self, study_uid: str, series_uid: str, folder: Path) -> list[Path]:
        del series_uid
        self.fetched += 1
        shutil.copytree(self.folder / study_uid.rpartition(".")[2], folder)
        return sorted(folder.iterdir())


def test_what_an_archive_gave_in_vain_is_not_fetched_again_until_something_changes(
    tmp_path: Path, site: Path, rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "export"
    _study(source, 1)
    _study(source, 2, patient="other")
    lost = sorted((source / "2").iterdir())[1]
    content = lost.read_bytes()
    lost.unlink()
    archive = _ArchiveInMemory(source)
    monkeypatch.setattr(archive_module, "open_archive", lambda folder: archive)
    first = import_images("pacs", rules, site)
    assert (first.imported, sum(first.studies.values()), archive.fetched) == (1, 1, 2)
    again = import_images("pacs", rules, site)
    assert again.studies == first.studies
    assert archive.fetched == 2
    lost.write_bytes(content)  # the archive has it whole now
    assert import_images("pacs", rules, site).imported == 1
    assert len(_rows(site)) == 2
    assert b"1.2.826.55" not in _everything_in(site)
