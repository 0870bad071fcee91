"""A finished model at a hospital that took no part: what fits, what is refused, what is left."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.simulations.several.test_series import ALONE, tiny

from wardround.common.files.tables import read_table
from wardround.common.study.loading import load_study, with_changes
from wardround.simulations.experiment.simulate import SimulationRequest, simulate
from wardround.simulations.run_files.folder import local_model
from wardround.simulations.run_files.predictions import ScoreRow

Wardround = Callable[..., object]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two of three hospitals; the third is set aside."""
    folder = tmp_path_factory.mktemp("evaluate")
    study = with_changes(tiny(folder), {"federation.rounds": 1})
    out = folder / "run"
    simulate(SimulationRequest(study, out, ALONE, left_out="west"))
    return out


@pytest.fixture
def hospital(run: Path, tmp_path: Path) -> Path:
    """The folder of the hospital that took no part, a copy."""
    folder = tmp_path / "hospital"
    shutil.copytree(run / "left-out" / "west", folder)
    return folder


def rows_of(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write_rows(manifest: Path, rows: list[dict[str, str]]) -> None:
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def held(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_all_patients_are_tested_and_nothing_is_written_at_the_hospital(
    run: Path, hospital: Path, tmp_path: Path, wardround: Wardround
) -> None:
    before, out = held(hospital), tmp_path / "out"
    words = ("--site", hospital, "--out", out, "--subgroups", "age,b", "--json")
    said = wardround("evaluate", run, *words)
    assert said.code == 0, said.err
    assert held(hospital) == before
    content = json.loads(said.out)
    assert content["verdict"].startswith("At west the model's AUROC is ")
    assert "on 30 patients who trained nothing of it" in content["verdict"]
    metrics = {one["metric"]: one for one in content["metrics"]}
    assert {"auroc", "accuracy", "balanced-accuracy", "f1", "ece"} == metrics.keys()
    assert metrics["auroc"]["low"] < metrics["auroc"]["value"] < metrics["auroc"]["high"]
    assert {one["grouping"] for one in content["subgroups"]} <= {"age", "b"}
    rows = read_table(out / "predictions.csv", ScoreRow)
    assert {(row.model, row.site, row.split) for row in rows} == {("federated", "west", "test")}
    assert len({row.case for row in rows}) == 30
    page = (out / "report.html").read_text(encoding="utf-8")
    assert content["verdict"].split(" (")[0].replace("'", "&#39;") in page
    addresses = page.replace("http://www.w3.org/2000/svg", "")
    assert not any(link in addresses for link in ("http:", "https:", "src=", "<link"))


def test_a_manifest_alone_and_a_model_folder_will_do(
    run: Path, hospital: Path, tmp_path: Path, wardround: Wardround
) -> None:
    manifest, model = tmp_path / "theirs.csv", tmp_path / "model"
    shutil.copy(hospital / "manifest.csv", manifest)
    shutil.copytree(run / "models" / "federated", model)
    said = wardround("evaluate", model, "--site", manifest, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert "a model folder names no patient" in " ".join(said.out.split())
    assert "who trained nothing" not in said.out


def test_other_classes_are_refused_with_the_rows_and_the_classes(
    run: Path, hospital: Path, tmp_path: Path, wardround: Wardround
) -> None:
    rows = rows_of(hospital / "manifest.csv")
    for row, word in zip(rows, ("benign", "malign") * 15, strict=True):
        row["label"] = word
    write_rows(hospital / "manifest.csv", rows)
    said = wardround("evaluate", run, "--site", hospital, "--out", tmp_path / "out")
    assert said.code == 2
    assert "names no class of the study in rows" in said.err
    assert "write one of no, yes" in " ".join(said.err.split())
    assert not (tmp_path / "out").exists()


def test_a_missing_covariate_is_named(
    run: Path, hospital: Path, tmp_path: Path, wardround: Wardround
) -> None:
    rows = rows_of(hospital / "manifest.csv")
    write_rows(hospital / "manifest.csv", [{k: v for k, v in r.items() if k != "b"} for r in rows])
    said = wardround("evaluate", run, "--site", hospital, "--out", tmp_path / "out")
    assert said.code == 2
    assert "lacks the column b" in said.err


def test_patients_who_trained_the_model_are_found_whatever_folder_they_are_in(
    run: Path, tmp_path: Path, wardround: Wardround
) -> None:
    own = tmp_path / "own"
    shutil.copytree(run / "sites" / "east", own)
    said = wardround("evaluate", run, "--site", own, "--out", tmp_path / "out")
    assert said.code == 2
    assert "who trained or chose this model" in " ".join(said.err.split())
    assert "p0" not in said.err
    said = wardround("evaluate", run, "--site", own, "--out", tmp_path / "out", "--split", "test")
    assert said.code == 0, said.err


def test_a_name_that_two_hospitals_use_is_said_and_not_refused(
    run: Path, hospital: Path, tmp_path: Path, wardround: Wardround
) -> None:
    taken = [row["patient"] for row in rows_of(run / "sites" / "east" / "manifest.csv")]
    rows = rows_of(hospital / "manifest.csv")
    for row, name in zip(rows, taken, strict=True):
        row["patient"] = name
    write_rows(hospital / "manifest.csv", rows)
    said = wardround("evaluate", run, "--site", hospital, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert "are called as patients of the run's training" in " ".join(said.out.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "nobody"), "model of this run"),
        (("--split", "train"), "the manifest has no column split"),
        (("--split", "tests"), "test"),
        (("--subgroups", "age,age"), "twice"),
        (("--device", "tpu"), "unknown device"),
    ],
)
def test_words_that_mean_nothing_here_are_refused(
    words: tuple[str, ...],
    said: str,
    run: Path,
    hospital: Path,
    tmp_path: Path,
    wardround: Wardround,
) -> None:
    rows = rows_of(hospital / "manifest.csv")
    shown = [{k: v for k, v in row.items() if k != "split"} for row in rows]
    write_rows(hospital / "manifest.csv", shown)
    answer = wardround("evaluate", run, "--site", hospital, "--out", tmp_path / "out", *words)
    assert answer.code == 2, answer.out
    assert said in " ".join(answer.err.split())
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_into_the_hospitals_folder_on_request_either(
    run: Path, hospital: Path, wardround: Wardround
) -> None:
    said = wardround("evaluate", run, "--site", hospital, "--out", hospital / "results")
    assert said.code == 2
    assert "in the hospital's own folder" in " ".join(said.err.split())
    assert not (hospital / "results").exists()


def test_a_run_without_a_model_and_a_place_without_a_manifest_are_refused(
    run: Path, hospital: Path, tmp_path: Path, wardround: Wardround
) -> None:
    for place, site in ((tmp_path, hospital), (run, run / "checkpoints"), (run, tmp_path / "no")):
        said = wardround("evaluate", place, "--site", site, "--out", tmp_path / "out")
        assert said.code == 2
        assert not (tmp_path / "out").exists()


def test_a_copied_picture_under_another_name_is_found(
    tiny_study, tmp_path: Path, wardround: Wardround
) -> None:
    """The pixels that trained the model come back as another patient's of another hospital."""
    study = with_changes(load_study(tiny_study.study), {"simulation.compare": False})
    study = with_changes(study, {"federation.rounds": 1})
    run, folder = tmp_path / "run", tmp_path / "elsewhere"
    simulate(SimulationRequest(study, run, ALONE))
    assert not (run / "models" / local_model("north")).exists()
    folder.mkdir()
    lines = ["patient,image,label"]
    for number in (0, 8, 9):
        shutil.copy(tiny_study.picture(number), folder / f"{number}.png")
        lines.append(f"other{number},{number}.png,{('normal', 'abnormal')[number % 2]}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    said = wardround("evaluate", run, "--site", folder, "--out", tmp_path / "out")
    assert said.code == 2
    assert "row 2 of the manifest has the same images as patients" in " ".join(said.err.split())
    (folder / "manifest.csv").write_text("\n".join([lines[0], *lines[2:]]) + "\n", encoding="utf-8")
    said = wardround("evaluate", run, "--site", folder, "--out", tmp_path / "out")
    assert said.code == 0, said.err
