"""``wardround site import --scan``: folders as they are, and the manifest they would give."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wardround.client.cli.site import site_app
from wardround.client.clinic.onboarding.scan.folder import scan_folder
from wardround.common.errors import InputError


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def _rows(folder: Path, patient: str = "") -> list[dict[str, str]]:
    return scan_folder(folder, patient).rows


def test_bids_with_sessions_masks_and_participants(tmp_path: Path) -> None:
    for subject in ("sub-01", "sub-02"):
        for session in ("ses-1", "ses-2"):
            start = f"{subject}/{session}/anat/{subject}_{session}"
            _touch(tmp_path, f"{start}_T1w.nii.gz", f"{start}_FLAIR.nii.gz", f"{start}_T1w.json")
            _touch(tmp_path, f"derivatives/manual/{start}_desc-lesion_mask.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-01\t34\nsub-02\tn/a\n")
    found = scan_folder(tmp_path)
    assert (found.layout, found.patients, len(found.rows)) == ("BIDS", 2, 4)
    assert found.rows[1] == {
        "patient": "sub-01",
        "examination": "ses-2",
        "age": "34",
        "image.t1w": "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
        "image.flair": "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz",
        "mask": "derivatives/manual/sub-01/ses-2/anat/sub-01_ses-2_desc-lesion_mask.nii.gz",
    }
    assert "mask: derivatives/manual/*_desc-lesion_mask.nii.gz" in found.explanations


def test_bids_with_two_runs_or_two_kinds_of_masks_is_refused(tmp_path: Path) -> None:
    start = "sub-01/anat/sub-01"
    _touch(tmp_path, f"{start}_run-1_T1w.nii.gz", f"{start}_run-2_T1w.nii.gz")
    with pytest.raises(InputError, match="several images T1w"):
        scan_folder(tmp_path)
    (tmp_path / f"{start}_run-2_T1w.nii.gz").unlink()
    _touch(tmp_path, f"derivatives/a/{start}_mask.nii.gz", f"derivatives/b/{start}_dseg.nii.gz")
    with pytest.raises(InputError, match="several kinds of masks: derivatives/a"):
        scan_folder(tmp_path)


def test_nnunet_gives_channels_by_name(tmp_path: Path) -> None:
    content = {"channel_names": {"0": "T1", "1": "T2 Flair"}, "labels": {"background": 0, "x": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nii.gz"}))
    _touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz")
    _touch(tmp_path, "imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz", "imagesTs/c_0000.nii.gz")
    found = scan_folder(tmp_path)
    assert found.rows == [
        {
            "patient": "a",
            "mask": "labelsTr/a.nii.gz",
            "image.t1": "imagesTr/a_0000.nii.gz",
            "image.t2_flair": "imagesTr/a_0001.nii.gz",
        }
    ]
    assert "left out: 1 cases without an image of each channel" in found.explanations


def test_decathlon_takes_its_pairs_and_no_file_outside(tmp_path: Path) -> None:
    pairs = [
        {"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"},
        {"image": "../../etc/x.nii.gz", "label": "./labelsTr/x.nii.gz"},
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": pairs, "labels": {"0": "b"}}))
    _touch(tmp_path, "imagesTr/x.nii.gz", "labelsTr/x.nii.gz")
    found = scan_folder(tmp_path)
    assert [row["image"] for row in found.rows] == ["imagesTr/x.nii.gz"]
    assert "left out: 1 entries whose files are not there" in found.explanations


def test_a_folder_a_class_below_train_and_test(tmp_path: Path) -> None:
    _touch(tmp_path, "train/normal/a.png", "train/effusion/b.png", "test/normal/c.png")
    _touch(tmp_path, "test/effusion/d.png", "train/normal/._a.png")
    found = scan_folder(tmp_path)
    assert found.columns == ("patient", "image", "label", "split")
    assert {(row["label"], row["split"]) for row in found.rows} == {
        ("normal", "train"),
        ("normal", "test"),
        ("effusion", "train"),
        ("effusion", "test"),
    }


def test_a_patient_below_train_and_test_is_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "train/normal/P1_a.png", "train/effusion/P2_a.png", "test/normal/P1_b.png")
    with pytest.raises(InputError, match="1 patients stand below train and test both"):
        scan_folder(tmp_path, "^(P[0-9]+)_")


def test_names_that_look_like_several_images_of_a_patient_need_a_pattern(tmp_path: Path) -> None:
    _touch(tmp_path, "normal/P1_1.png", "normal/P1_2.png", "effusion/P2_1.png")
    with pytest.raises(InputError, match="--patient"):
        scan_folder(tmp_path)
    assert [row["patient"] for row in _rows(tmp_path, "^(P[0-9]+)_")] == ["P2", "P1", "P1"]
    with pytest.raises(InputError, match="fits 1 of 3 names"):
        scan_folder(tmp_path, "^(P2)_")


@pytest.mark.parametrize(
    "names",
    [
        ("images/1.png", "images/2.png", "masks/1.png", "masks/2.png"),
        ("images/1.png", "images/2.png", "masks/1_mask.png", "masks/2_mask.png"),
        ("1.png", "2.png", "1_seg.png", "2_seg.png"),
    ],
)
def test_pictures_with_their_masks(tmp_path: Path, names: tuple[str, ...]) -> None:
    _touch(tmp_path, *names)
    rows = _rows(tmp_path)
    assert [row["patient"] for row in rows] == ["1", "2"]
    assert all("mask" in row and row["image"] != row["mask"] for row in rows)


def test_several_channels_beside_a_mask(tmp_path: Path) -> None:
    names = [f"{p}_{c}.nii.gz" for p in ("p07", "p19") for c in ("t1", "FLAIR", "mask")]
    _touch(tmp_path, *names)
    assert _rows(tmp_path)[0] == {
        "patient": "p07",
        "image.flair": "p07_FLAIR.nii.gz",
        "image.t1": "p07_t1.nii.gz",
        "mask": "p07_mask.nii.gz",
    }
    _touch(tmp_path, "p20_mask.nii.gz", "p20_t1.nii.gz")
    assert "left out: 1 names without a file of each channel" in scan_folder(tmp_path).explanations


def test_what_is_none_of_these_is_refused_with_the_layouts_that_are_known(tmp_path: Path) -> None:
    _touch(tmp_path, "a.txt")
    with pytest.raises(InputError, match="no layout that is known: BIDS"):
        scan_folder(tmp_path)


def test_two_layouts_in_one_folder_are_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "T1"}}')
    with pytest.raises(InputError, match="may be BIDS or nnU-Net"):
        scan_folder(tmp_path)


def test_the_command_shows_the_manifest_and_writes_it_only_if_asked(tmp_path: Path) -> None:
    _touch(tmp_path, "set/images/1.png", "set/masks/1.png")
    folder = str(tmp_path / "set")
    shown = CliRunner().invoke(site_app, ["import", "--scan", folder])
    assert "1,images/1.png,masks/1.png" in shown.output
    assert not (tmp_path / "set" / "manifest.csv").exists()
    CliRunner().invoke(site_app, ["import", "--scan", folder, "--write"])
    with (tmp_path / "set" / "manifest.csv").open(newline="") as stream:
        assert next(csv.DictReader(stream))["mask"] == "masks/1.png"
    again = CliRunner().invoke(site_app, ["import", "--scan", folder, "--write"])
    assert "is there already" in str(again.exception)


def test_into_a_site_folder_the_paths_start_from_its_data(tmp_path: Path) -> None:
    _touch(tmp_path, "set/images/1.png", "set/masks/1.png")
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "site.toml").write_text('name = "north"\ndata_root = ".."\n')
    run = ["import", "--scan", str(tmp_path / "set"), str(tmp_path / "north"), "--write"]
    assert CliRunner().invoke(site_app, run).exit_code == 0
    assert "1,set/images/1.png,set/masks/1.png" in (tmp_path / "north/manifest.csv").read_text()
