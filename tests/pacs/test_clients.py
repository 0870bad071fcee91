"""Both clients and a real archive: searched, read from, written to; what is said if not."""

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from tests.pacs.orthanc import Orthanc
from tests.pacs.site import pixels, site_folder
from tests.support.studies.tiny_study import Said

from wardround.client.clinic.pacs.archive import (
    PacsAwayError,
    PacsError,
    StudyQuery,
    open_archive,
)

pytestmark = pytest.mark.pacs
PROTOCOLS = ("web", "get", "move")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_series_is_found_and_fetched_whole(
    protocol: str, orthanc: Orthanc, t1_series: list[Path], tmp_path: Path
) -> None:
    orthanc.add_files(t1_series)
    first = pydicom.dcmread(t1_series[0], stop_before_pixels=True)
    archive = open_archive(site_folder(tmp_path / "site", orthanc, protocol))
    archive.ping()
    (study,) = archive.find_studies(StudyQuery(modality="MR"))
    assert study.uid == first.StudyInstanceUID
    assert study.patient_id == first.PatientID
    assert "MR" in study.modalities
    (series,) = archive.find_series(study.uid)
    assert (series.uid, series.modality) == (first.SeriesInstanceUID, "MR")
    assert series.objects == len(t1_series)
    paths = archive.fetch_series(study.uid, series.uid, tmp_path / "fetched")
    assert pixels(paths) == pixels(t1_series)
    assert [path.name for path in paths[:2]] == ["00001.dcm", "00002.dcm"]
    assert paths[0].stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("protocol", ["web", "get"])
def test_what_is_stored_is_found_by_a_query(
    protocol: str, orthanc: Orthanc, t1_series: list[Path], tmp_path: Path
) -> None:
    archive = open_archive(site_folder(tmp_path / "site", orthanc, protocol))
    datasets = [pydicom.dcmread(path) for path in t1_series[:3]]
    archive.store(datasets)
    archive.store(datasets)  # again: the same objects
    study, series = datasets[0].StudyInstanceUID, datasets[0].SeriesInstanceUID
    held = archive.find_objects(study, series)
    assert {one.uid for one in held} == {str(one.SOPInstanceUID) for one in datasets}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_query_narrows(
    protocol: str, orthanc: Orthanc, t1_series: list[Path], tmp_path: Path
) -> None:
    orthanc.add_files(t1_series[:1])
    archive = open_archive(site_folder(tmp_path / "site", orthanc, protocol))
    assert archive.find_studies(StudyQuery(modality="CT")) == []
    assert archive.find_studies(StudyQuery(date_from="20990101")) == []
    assert archive.find_studies(StudyQuery(patient_id="nobody")) == []
    assert len(archive.find_studies(StudyQuery(date_to="20981231"))) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_series_that_is_not_there_is_said_to_be_empty(
    protocol: str, orthanc: Orthanc, tmp_path: Path
) -> None:
    archive = open_archive(site_folder(tmp_path / "site", orthanc, protocol))
    assert archive.find_objects("1.2.3", "1.2.3.4") == []
    with pytest.raises(PacsError, match="no object of this series"):
        archive.fetch_series("1.2.3", "1.2.3.4", tmp_path / "fetched")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_series_larger_than_the_limits_is_refused(
    protocol: str, orthanc: Orthanc, t1_series: list[Path], tmp_path: Path
) -> None:
    orthanc.add_files(t1_series[:6])
    site = site_folder(tmp_path / "site", orthanc, protocol)
    with (site / "pacs.toml").open("a") as stream:
        stream.write("\n[limits]\nseries_objects = 5\n")
    archive = open_archive(site)
    (study,) = archive.find_studies(StudyQuery())
    (series,) = archive.find_series(study.uid)
    with pytest.raises(PacsError, match="series_objects = 5"):
        archive.fetch_series(study.uid, series.uid, tmp_path / "fetched")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_archive_that_is_away_is_said_to_be(
    protocol: str, orthanc: Orthanc, tmp_path: Path
) -> None:
    archive = open_archive(site_folder(tmp_path / "site", orthanc, protocol))
    orthanc.stop()
    with pytest.raises(PacsAwayError, match="refuses connections"):
        archive.ping()
    orthanc.start()
    archive.ping()


def test_a_wrong_password_is_said(orthanc: Orthanc, tmp_path: Path) -> None:
    site = site_folder(tmp_path / "site", orthanc)
    (site / "pacs-password").write_text("another\n")
    with pytest.raises(PacsError, match=r"does not know this user.*HTTP 401"):
        open_archive(site).ping()


def test_a_wrong_title_is_said(orthanc: Orthanc, tmp_path: Path) -> None:
    site = site_folder(tmp_path / "site", orthanc, "get")
    text = (site / "pacs.toml").read_text()
    (site / "pacs.toml").write_text(text.replace('title = "ORTHANC"\nr', 'title = "OTHER"\nr'))
    with pytest.raises(PacsError, match=r"look at classic\.title"):
        open_archive(site).ping()


def test_a_title_that_the_archive_does_not_know_is_said(orthanc: Orthanc, tmp_path: Path) -> None:
    site = site_folder(tmp_path / "site", orthanc, "get")
    text = (site / "pacs.toml").read_text()
    (site / "pacs.toml").write_text(text.replace("retrieve", 'own_title = "STRANGER"\nretrieve'))
    with pytest.raises(PacsError, match=r"does not know 'STRANGER'"):
        open_archive(site).ping()


def test_a_move_to_a_title_that_the_archive_does_not_know_is_said(
    orthanc: Orthanc, t1_series: list[Path], tmp_path: Path
) -> None:
    orthanc.add_files(t1_series[:1])
    site = site_folder(tmp_path / "site", orthanc, "move")
    text = (site / "pacs.toml").read_text()
    (site / "pacs.toml").write_text(text.replace("[receiver]", '[receiver]\ntitle = "NEWNAME"'))
    archive = open_archive(site)
    (study,) = archive.find_studies(StudyQuery())
    (series,) = archive.find_series(study.uid)
    with pytest.raises(PacsError, match="C-MOVE to 'NEWNAME', whose address"):
        archive.fetch_series(study.uid, series.uid, tmp_path / "fetched")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_command_says_that_the_archive_answers(
    protocol: str, orthanc: Orthanc, tmp_path: Path, wardround: Callable[..., Said]
) -> None:
    site = site_folder(tmp_path / "site", orthanc, protocol)
    said = wardround("site", "pacs", "test", site)
    assert said.code == 0, said.err
    assert "answers" in said.out
    orthanc.stop()
    said = wardround("site", "pacs", "test", site)
    assert said.code == 3
    assert "refuses connections" in said.err


def test_tls_where_the_archive_speaks_none_is_said(orthanc: Orthanc, tmp_path: Path) -> None:
    site = site_folder(tmp_path / "site", orthanc)
    text = (site / "pacs.toml").read_text().replace("http://", "https://")
    (site / "pacs.toml").write_text(text)
    with pytest.raises(PacsError, match="does not speak TLS"):
        open_archive(site).ping()
    site = site_folder(tmp_path / "site", orthanc, "get")
    text = (site / "pacs.toml").read_text().replace("retrieve", "tls = true\nretrieve")
    (site / "pacs.toml").write_text(text)
    with pytest.raises(PacsError, match="TLS failed"):
        open_archive(site).ping()
