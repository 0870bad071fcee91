"""What an import refuses, or leaves out, and says so: never a traceback, never a patient."""

import sys
from pathlib import Path

import pydicom
import pytest
from tests.unit.client.clinic.onboarding.made_dicom import made_slice
from tests.unit.client.clinic.onboarding.made_import import RULES, rows_of, write_study
from typer.testing import CliRunner

from wardround.client.cli.site import site_app
from wardround.client.clinic.onboarding.run import import_images
from wardround.common.errors import InputError, RunError


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
    write_study(tmp_path / "export", 1)
    with pytest.raises(InputError, match="has the columns patient, image, label"):
        import_images(str(tmp_path / "export"), rules, site)
    assert not (site / "data").exists()


def test_a_disk_without_room_is_said_before_anything_is_written(
    tmp_path: Path, site: Path, rules: Path
) -> None:
    rules.write_text(RULES + "[limits]\nfree_gigabytes = 1e9\n")
    write_study(tmp_path / "export", 1)
    with pytest.raises(RunError, match="make room, then import again"):
        import_images(str(tmp_path / "export"), rules, site)
    assert not (site / "data").exists()


def test_a_lost_secret_is_not_made_anew(tmp_path: Path, site: Path, rules: Path) -> None:
    write_study(tmp_path / "export", 1)
    import_images(str(tmp_path / "export"), rules, site)
    secret = site / "import" / "secret.key"
    assert secret.stat().st_mode & 0o777 == 0o600
    secret.unlink()
    with pytest.raises(InputError, match="put it back from a backup"):
        import_images(str(tmp_path / "export"), rules, site)


def test_one_import_at_a_time(tmp_path: Path, site: Path, rules: Path) -> None:
    from wardround.common.files.lock import held_alone

    write_study(tmp_path / "export", 1)
    (site / "import").mkdir()
    with held_alone(site / "import" / "lock"), pytest.raises(InputError, match="is running"):
        import_images(str(tmp_path / "export"), rules, site)


def test_two_patients_in_one_series_are_not_mixed(tmp_path: Path, site: Path, rules: Path) -> None:
    write_study(tmp_path / "export", 1)
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
    write_study(source, 1, patient="whole")
    write_study(source, 2)
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
    assert len(rows_of(site)) >= 1


def test_a_deflated_file_is_not_unpacked(tmp_path: Path, site: Path, rules: Path) -> None:
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    write_study(tmp_path / "export", 1)
    bomb = made_slice(3)
    bomb.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    bomb.save_as(tmp_path / "export" / "bomb", enforce_file_format=True)
    report = import_images(str(tmp_path / "export"), rules, site)
    assert report.files == {"deflated, which no scanner sends": 1}


def test_without_the_package_of_the_table_the_command_that_installs_it_is_said(
    tmp_path: Path, site: Path, rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wardround.client.clinic.onboarding.deidentification import profile

    profile._table.cache_clear()
    monkeypatch.setitem(sys.modules, "dicomanonymizer.simpledicomanonymizer", None)
    write_study(tmp_path / "export", 1)
    with pytest.raises(InputError, match="pip install 'dicom-anonymizer"):
        import_images(str(tmp_path / "export"), rules, site)
    assert sorted(path.name for path in site.iterdir()) == ["site.toml"]
