"""``wardround site import`` from a folder: what a hospital types, and what lies there then."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest
from tests.unit.client.clinic.onboarding.made_dicom import SIZE
from tests.unit.client.clinic.onboarding.made_import import RULES, rows_of, write_study
from typer.testing import CliRunner

from wardround.client.cli.site import site_app
from wardround.client.clinic.onboarding.run import import_images
from wardround.client.clinic.pacs import archive as archive_module
from wardround.client.clinic.pacs.archive import FoundSeries, FoundStudy, StudyQuery
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.readers import read_image


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_folder_becomes_images_and_a_manifest(tmp_path: Path, site: Path, rules: Path) -> None:
    source = tmp_path / "export"
    write_study(source, 1)
    (source / "README.txt").write_text("no DICOM")
    run = CliRunner().invoke(site_app, ["import", str(source), "--rules", str(rules), str(site)])
    assert run.exit_code == 0, run.output
    assert "Imported 1 of 1 examinations, of 1 patients" in run.output
    assert "1  not DICOM" in run.output
    assert "no guarantee" in run.output.replace("\n", " ")
    (row,) = rows_of(site)
    image = read_image(Location(site / row["image"]), 3)
    assert image.array.shape == (1, SIZE, SIZE, 4)
    assert row["examination"] == "0"


def test_one_pattern_needs_no_brackets(tmp_path: Path, site: Path, rules: Path) -> None:
    rules.write_text(RULES.replace('["*t1*"]', '"*t1*"'))
    write_study(tmp_path / "export", 1)
    assert import_images(str(tmp_path / "export"), rules, site).imported == 1


def test_no_identifier_is_in_the_site_folder_nor_in_what_is_said(
    tmp_path: Path, site: Path, rules: Path
) -> None:
    source = tmp_path / "export"
    write_study(source, 1)
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
    write_study(source, 1, StudyDate="20210504")
    write_study(source, 2, StudyDate="20211104", PatientID=" MRN-004711 ")
    write_study(source, 3, patient="other", StudyDate="19990101")
    import_images(str(source), rules, site)
    found = {(row["patient"], row["examination"]) for row in rows_of(site)}
    assert len({patient for patient, _ in found}) == 2
    assert sorted(days for _, days in found) == ["0", "0", "184"]


def test_only_what_is_new_comes_the_next_time(tmp_path: Path, site: Path, rules: Path) -> None:
    source = tmp_path / "export"
    write_study(source, 1)
    import_images(str(source), rules, site)
    first = (site / "manifest.csv").read_text()
    write_study(source, 2, StudyDate="20220101")
    report = import_images(str(source), rules, site)
    assert (report.imported, report.already) == (1, 1)
    assert (site / "manifest.csv").read_text().startswith(first)
    assert len(rows_of(site)) == 2


def test_a_row_that_the_hospital_took_out_does_not_come_back(
    tmp_path: Path, site: Path, rules: Path
) -> None:
    source = tmp_path / "export"
    write_study(source, 1)
    write_study(source, 2, patient="other")
    import_images(str(source), rules, site)
    lines = (site / "manifest.csv").read_text().splitlines()
    (site / "manifest.csv").write_text("\n".join(lines[:2]) + "\n")
    import_images(str(source), rules, site)
    assert len(rows_of(site)) == 1


def test_a_dry_run_writes_nothing_and_shows_pseudonyms(
    tmp_path: Path, site: Path, rules: Path
) -> None:
    source = tmp_path / "export"
    write_study(source, 1)
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
    write_study(source, 1, **values)
    report = import_images(str(source), rules, site)
    assert report.series == {reason: 1}
    assert report.studies == {"no series for the channel image": 1}
    assert not (site / "manifest.csv").exists()


def test_an_incomplete_series_is_not_imported(tmp_path: Path, site: Path, rules: Path) -> None:
    source = tmp_path / "export"
    write_study(source, 1, patient="whole")
    write_study(source, 2)
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
    write_study(source, 1)
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
    write_study(source, 1)
    write_study(source / "f", 1, SeriesInstanceUID="1.2.826.55.1.7", SeriesDescription="flair")
    newer = {"SeriesTime": "110000", "SeriesDescription": "flair again"}
    write_study(source / "g", 1, SeriesInstanceUID="1.2.826.55.1.8", **newer)
    report = import_images(str(source), rules, site)
    assert report.series == {"another series of the study was chosen": 1}
    (row,) = rows_of(site)
    assert row["image.t1"].endswith("/t1")
    assert row["image.flair"].endswith("/flair")


def test_a_backup_holds_the_secret_and_the_journal(tmp_path: Path, site: Path, rules: Path) -> None:
    write_study(tmp_path / "export", 1)
    import_images(str(tmp_path / "export"), rules, site)
    runner = CliRunner()
    runner.invoke(site_app, ["backup", str(site), str(tmp_path / "site.tar")])
    runner.invoke(site_app, ["restore", str(tmp_path / "site.tar"), str(tmp_path / "again")])
    report = import_images(str(tmp_path / "export"), rules, tmp_path / "again")
    assert (report.imported, report.already) == (0, 1)


def test_the_audit_log_has_counts_alone(tmp_path: Path, site: Path, rules: Path) -> None:
    write_study(tmp_path / "export", 1)
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
        write_study(source, number, patient=f"MRN-{number:06}")
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
    rows = rows_of(site)
    assert len(rows) == len({row["image"] for row in rows}) == len(numbers)
    assert all(len(list((site / row["image"]).iterdir())) == 4 for row in rows)
    assert len(list((site / "data").glob("*/*"))) == len(numbers)
    assert not (site / "data" / ".importing").exists()


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
    write_study(source, 1)
    write_study(source, 2, patient="other")
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
    assert len(rows_of(site)) == 2
    assert b"1.2.826.55" not in _everything_in(site)
