"""What a user gets wrong: exit code 2, one paragraph with fact, value and remedy, no folder left.

Every case goes through the real front door of the command line.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

Run = Callable[..., "object"]
FAST = ("--engine", "in-process", "--threads", "1", "--quiet", "--no-compare", "--rounds", "1")


def refuse(said, *words: str) -> str:  # type: ignore[no-untyped-def] # conftest's Said
    """Check the shape of a refusal and that it says these words; return its text."""
    assert said.code == 2, said.err
    assert said.err.startswith("wardround: ")
    assert said.err.count("\n") == 1, "one paragraph"
    assert "Traceback" not in said.err
    assert "CANARY" not in said.out + said.err
    for word in words:
        assert word in said.err
    return str(said.err)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("batch_size", "bach_size", ("training.bach_size", "did you mean 'batch_size'?")),
        ("small-cnn", "smal-cnn", ("'smal-cnn'", "Did you mean 'small-cnn'?", "resnet18")),
        ('"folder"', '"foldr"', ("'foldr'", "Did you mean 'folder'?", "medmnist")),
        ('"natural"', '"naturl"', ("'naturl'", "'natural'", "'dirichlet'")),
        ("rounds = 2", 'strategy = "fedvg"', ("'fedvg'", "Did you mean 'fedavg'?")),
        ("rounds = 2", "rounds = 2\n[evaluation]\nmetric = 'aurc'", ("'aurc'", "'auroc'")),
        ("[study]", "[study", ("is not a TOML file", "line 2", "Mend that line")),
        ('task = "classification"', "", ("study.task is missing", "add it")),
        ("batch_size = 4", "learning_rate = inf", ("learning_rate = inf", "finite number")),
        ("manifest = ", "manifst = ", ("'manifst'", "manifest")),
        ("manifest.csv", "nothing.csv", ("nothing.csv",)),
    ],
)
def test_a_mistake_in_the_study_file_is_named_with_its_remedy(
    tiny_study, wardround, tmp_path, old, new, words
) -> None:
    tiny_study.change_study(old, new)
    refuse(wardround("simulate", tiny_study.study, "--out", tmp_path / "run", *FAST), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--device", "cuda:7"), ("'cuda:7' is not there", "--device cpu")),
        (("--device", "gpu"), ("'gpu'", "auto, cpu, cuda")),
        (("--engine", "spark"), ("'spark'", "in-process, pool")),
        (
            ("--engine", "stacked", "--set", "model.normalisation=batch"),
            ("'stacked' cannot train this study", "couples the examples", "--engine auto"),
        ),
        (("--set", "training.batch_size"), ("training.batch_size has no value",)),
        (("--set", "batch_size=3"), ("'batch_size'", "name the section too")),
        (("--set", "training.bach_size=3"), ("training.bach_size", "did you mean 'batch_size'?")),
        (("--set", "simulation.options.x=3"), ("'x'", "manifest")),
        (("--set", "study.name.x=3"), ("study.name.x", "is not a table")),
        (("--sites", "0"), ("simulation.sites = 0", "greater than or equal to 1")),
        (("--seed", "-1"), ("federation.seed = -1",)),
        (("--split", "iid", "--sites", "13"), ("12 train patients", "13 sites", "lower")),
        (("--assignment", "nothing.csv"), ("nothing.csv", "patient and site")),
        (("--data-root", "/no/such/folder"), ("/no/such/folder", "--data-root")),
    ],
)
def test_a_mistake_on_the_command_line_is_named_with_its_remedy(
    tiny_study, wardround, tmp_path, options, words
) -> None:
    said = wardround("simulate", tiny_study.study, "--out", tmp_path / "run", *FAST, *options)
    refuse(said, *words)
    assert not (tmp_path / "run").exists()


def test_a_missing_study_file_and_an_unknown_built_in_study_are_refused(
    wardround, tmp_path
) -> None:
    refuse(wardround("simulate", tmp_path / "a.toml"), "there is no study file", "study new")
    refuse(wardround("simulate", "brain-tisue"), "'brain-tisue'", "Did you mean 'brain-tissue'?")


def missing_file(tiny_study) -> None:
    tiny_study.picture(3).unlink()


def truncated_file(tiny_study) -> None:
    picture = tiny_study.picture(3)
    picture.write_bytes(picture.read_bytes()[:100])


def text_for_an_image(tiny_study) -> None:
    tiny_study.picture(3).write_text("CANARYPATIENT003", encoding="utf-8")


def unknown_label(tiny_study) -> None:
    tiny_study.change_manifest("CANARYFILE003.png,abnormal", "CANARYFILE003.png,CANARY")


def damaged_test_image(tiny_study) -> None:
    tiny_study.picture(8).write_bytes(b"\x89PNG CANARY")


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (missing_file, ("north", "row 5", "missing", "put the files there")),
        (truncated_file, ("north", "row 5", "column image", "damaged", "replace it")),
        (text_for_an_image, ("north", "row 5", "column image", "replace it")),
        (unknown_label, ("row 5", "names no class", "normal, abnormal")),
        (damaged_test_image, ("north", "row 10", "column image", "replace it")),
    ],
)
@pytest.mark.parametrize("engine", ["in-process", "pool"])
def test_a_bad_examination_is_named_by_its_row_and_never_by_its_name(
    tiny_study, wardround, tmp_path, break_it, words, engine
) -> None:
    break_it(tiny_study)
    said = wardround(
        "simulate", tiny_study.study, "--out", tmp_path / "run", *FAST, "--engine", engine
    )
    refuse(said, *words, str(tiny_study.manifest))
    assert not (tmp_path / "run").exists()


def test_a_patient_in_two_splits_is_refused(tiny_study, wardround, tmp_path) -> None:
    tiny_study.change_manifest("CANARYPATIENT007", "CANARYPATIENT000")
    said = wardround("simulate", tiny_study.study, "--out", tmp_path / "run", *FAST)
    refuse(said, "also in another split in row 9", "give all rows of a patient the same split")
    assert not (tmp_path / "run").exists()


def test_a_site_without_patients_of_a_split_is_refused(tiny_study, wardround, tmp_path) -> None:
    tiny_study.change_manifest(",test", ",train")
    said = wardround("simulate", tiny_study.study, "--out", tmp_path / "run", *FAST)
    refuse(said, "north has no test patients", "evaluation.test_fraction = 0")
    assert not (tmp_path / "run").exists()


def test_a_relative_manifest_is_the_one_beside_the_study_whatever_lies_elsewhere(
    tiny_study, wardround, tmp_path, monkeypatch
) -> None:
    tiny_study.change_study(f'"{tiny_study.manifest}"', '"manifest.csv"')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "manifest.csv").write_text("patient,image,label\nx,y.png,normal\n")
    monkeypatch.chdir(elsewhere)
    for more in ((), ("--data-root", elsewhere)):
        said = wardround("split", tiny_study.study, *more, "--out", "run")
        assert said.code == 0, said.err
        assert "north" in said.out
        shutil.rmtree(elsewhere / "run")


def test_a_number_of_sites_beside_the_hospitals_of_the_data_is_refused(
    tiny_study, wardround, tmp_path
) -> None:
    for words in (("simulate",), ("federation", "try")):
        said = wardround(*words, tiny_study.study, "--sites", 3, "--out", tmp_path / "run")
        assert said.code == 2
        assert "leave --sites out, or add --split iid" in " ".join(said.err.split())
        assert not (tmp_path / "run").exists()


def test_a_run_without_comparison_has_a_mean_and_its_json_no_blank_in_a_key(
    tiny_study, wardround, tmp_path
) -> None:
    words = ("--no-compare", "--rounds", 1, "--engine", "in-process", "--threads", 1)
    said = wardround("simulate", tiny_study.study, *words, "--quiet", "--out", tmp_path / "a")
    assert said.code == 0, said.err
    (mean,) = [line for line in said.out.splitlines() if "│" in line and "mean" in line]
    assert any(cell.strip().startswith(("0.", "1.")) for cell in mean.split("│")), mean
    said = wardround("simulate", tiny_study.study, *words, "--json", "--out", tmp_path / "b")
    keys = re.findall(r'"([^"]+)":', said.out)
    assert "all_sites" in keys
    assert not [key for key in keys if " " in key]


def test_an_assignment_of_other_data_is_refused(tiny_study, wardround, tmp_path) -> None:
    other = tmp_path / "assignment.csv"
    other.write_text("patient,site\nCANARYPATIENT000,north\n", encoding="utf-8")
    said = wardround(
        "simulate", tiny_study.study, "--out", tmp_path / "run", *FAST, "--assignment", other
    )
    refuse(said, "no site for 19 of the data set's patients", "Split again")
    assert not (tmp_path / "run").exists()


# --- Segmentation --------------------------------------------------------------
def as_segmentation(tiny_study) -> None:
    """Turn the pictures into a segmentation study whose masks are the bright square."""
    tiny_study.change_study('"classification"', '"segmentation"')
    tiny_study.change_study('"small-cnn"', '"unet"')
    for number in range(20):
        mask = np.zeros((16, 16), np.uint8)
        mask[4:12, 4:12] = 1
        np.save(tiny_study.folder / f"mask{number}.npy", mask)
        label = ("normal", "abnormal")[number % 2]
        row = f"CANARYFILE{number:03d}.png,"
        tiny_study.change_manifest(f"{row}{label}", f"{row}mask{number}.npy")
    tiny_study.change_manifest(",label,", ",mask,")


def test_a_mask_of_another_shape_than_its_image_is_refused(tiny_study, wardround, tmp_path) -> None:
    as_segmentation(tiny_study)
    np.save(tiny_study.folder / "mask3.npy", np.zeros((12, 16), np.uint8))
    said = wardround("simulate", tiny_study.study, "--out", tmp_path / "run", *FAST)
    refuse(said, "row 5", "mask", "16")
    assert not (tmp_path / "run").exists()


def test_a_mask_with_an_unknown_class_is_refused(tiny_study, wardround, tmp_path) -> None:
    as_segmentation(tiny_study)
    np.save(tiny_study.folder / "mask3.npy", np.full((16, 16), 7, np.uint8))
    said = wardround("simulate", tiny_study.study, "--out", tmp_path / "run", *FAST)
    refuse(said, "row 5", "column mask", "7")


def test_pixels_that_are_not_numbers_are_refused(tiny_study, wardround, tmp_path) -> None:
    pixels = np.zeros((16, 16), np.float32)
    pixels[3, 3] = np.nan
    np.save(tiny_study.folder / "images" / "CANARYFILE.npy", pixels)
    tiny_study.change_manifest("CANARYFILE003.png", "CANARYFILE.npy")
    said = wardround("simulate", tiny_study.study, "--out", tmp_path / "run", *FAST)
    refuse(said, "row 5", "column image")
    assert not (tmp_path / "run").exists()


# --- Going on all the same -----------------------------------------------------
def test_unreadable_images_can_be_skipped_and_are_reported(tiny_study, wardround, tmp_path) -> None:
    truncated_file(tiny_study)
    run = tmp_path / "run"
    said = wardround("simulate", tiny_study.study, "--out", run, *FAST, "--skip-unreadable")
    assert said.code == 0, said.err
    assert "north: row 5 could not be read and was skipped" in " ".join(said.out.split())
    assert "row 5 could not be read" in (run / "report.html").read_text(encoding="utf-8")


def test_no_patient_or_file_name_leaves_the_manifests(tiny_study, wardround, tmp_path) -> None:
    truncated_file(tiny_study)
    run = tmp_path / "run"
    said = wardround("simulate", tiny_study.study, "--out", run, *FAST, "--skip-unreadable")
    assert "CANARY" not in said.out + said.err
    holding = {
        str(path.relative_to(run))
        for path in run.rglob("*")
        if path.is_file() and b"CANARY" in path.read_bytes()
    }
    manifests = {"sites/north/manifest.csv", "sites/south/manifest.csv", "pooled/manifest.csv"}
    assert holding == manifests | {"assignment.csv"}


def test_a_class_that_a_site_does_not_hold_is_reported_and_trains_on(
    tiny_study, wardround, tmp_path
) -> None:
    tiny_study.change_manifest("abnormal,south", "normal,south")
    run = tmp_path / "run"
    said = wardround("simulate", tiny_study.study, "--out", run, *FAST)
    assert said.code == 0, said.err
    assert "south has no training patient of abnormal." in said.out
    assert "south has no training patient of abnormal." in (run / "run.json").read_text()


# --- Folders -------------------------------------------------------------------
def test_a_folder_that_holds_something_is_not_written_to(tiny_study, wardround, tmp_path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "thesis.txt").write_text("mine")
    said = wardround("simulate", tiny_study.study, "--out", run, *FAST)
    refuse(said, str(run), "is not empty", "choose another --out")
    refuse(wardround("split", tiny_study.study, "--out", run), "is not empty")
    assert [path.name for path in run.iterdir()] == ["thesis.txt"]


def test_a_place_that_cannot_be_written_is_refused(tiny_study, wardround, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        said = wardround("simulate", tiny_study.study, "--out", place, *FAST)
        refuse(said, f"cannot write to {place}", "choose another --out")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_read_only_folder_is_refused(tiny_study, wardround, tmp_path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    said = wardround("simulate", tiny_study.study, "--out", tmp_path / "locked" / "run", *FAST)
    refuse(said, "Permission denied", "choose another --out")


def test_a_full_disk_is_said_in_plain_words(tiny_study, wardround, tmp_path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "CANARYFILE003.png")

    monkeypatch.setattr("wardround.simulations.experiment.whole_run.write_samples", full)
    run = tmp_path / "run"
    said = wardround("simulate", tiny_study.study, "--out", run, *FAST)
    assert said.code == 3
    assert "No space left on device" in said.err
    assert "--resume" in said.err
    assert said.err.count("\n") == 1
    assert "CANARY" not in said.err
    assert (run / "report.html").exists()
    monkeypatch.undo()


def test_a_defect_of_ours_does_not_quote_what_it_failed_on(
    tiny_study, wardround, tmp_path, monkeypatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError(*["CANARYPATIENT003"])

    monkeypatch.setattr("wardround.simulations.sites.preparation.split_examinations", broken)
    said = wardround("simulate", tiny_study.study, "--out", tmp_path / "run", *FAST)
    assert said.code == 1
    assert "KeyError" in said.err
    assert "test_bad_input.py" in said.err
    assert "WARDROUND_TRACEBACK=1" in said.err
    assert "CANARY" not in said.err


def test_resuming_what_is_no_run_is_refused(wardround, tmp_path) -> None:
    refuse(wardround("simulate", "--resume", tmp_path), str(tmp_path), "holds no run")
    refuse(wardround("report", tmp_path), str(tmp_path), "holds no run")
    (tmp_path / "run.json").write_text("{}")
    refuse(wardround("simulate", "--resume", tmp_path), "run.json cannot be read")


def test_resuming_takes_no_other_study(tiny_study, wardround, tmp_path) -> None:
    said = wardround("simulate", tiny_study.study, "--resume", tmp_path)
    refuse(said, "the study cannot be changed: leave it out")


@pytest.mark.parametrize("option", [("--rounds", "9"), ("--set", "a.b=1"), ("--sites", "3")])
def test_what_a_resumed_run_would_ignore_is_refused(wardround, tmp_path, option) -> None:
    said = wardround("simulate", "--resume", tmp_path, *option)
    refuse(said, option[0], "goes on with the run as it began")


def test_a_study_that_was_changed_after_the_run_began_is_refused(
    tiny_study, wardround, tmp_path
) -> None:
    run = tmp_path / "run"
    assert wardround("simulate", tiny_study.study, "--out", run, *FAST).code == 0
    study = run / "study.toml"
    study.write_text(study.read_text().replace("batch_size = 4", "batch_size = 5"))
    refuse(wardround("simulate", "--resume", run), "study.toml was changed", "start a new run")


def test_an_image_of_another_kind_than_the_study_asks_for_is_refused(
    tiny_study, wardround, tmp_path
) -> None:
    tiny_study.change_study("size = [16, 16]", "size = [16, 16, 16]\ndimensions = 3")
    Image.new("L", (16, 16)).save(tiny_study.picture(0))
    said = wardround("simulate", tiny_study.study, "--out", tmp_path / "run", *FAST)
    refuse(said, "row", "column image")
