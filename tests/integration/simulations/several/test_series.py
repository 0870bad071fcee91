"""Hospitals left out and several seeds, over a small table of three hospitals."""

import csv
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.stage import bits_of, table_study

from wardround.common.errors import InputError
from wardround.common.files.tables import read_table
from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.study import Study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.series.harmonised import UnseenRow, resume_pair
from wardround.simulations.experiment.series.series import (
    SeriesRequest,
    resume_series,
    run_series,
)
from wardround.simulations.experiment.simulate import SimulationRequest, simulate
from wardround.simulations.run_files.events import Event, RoundDone
from wardround.simulations.run_files.series import MeasuredRow
from wardround.simulations.sites.landmarks import landmarks_of_data
from wardround.simulations.studies import find_study

SITES = ("east", "north", "west")
PARTS = ("together", *(f"without-{site}" for site in SITES))
ALONE = Machine(device="cpu", engine="in-process", threads=1)
SIDE_BY_SIDE = Machine(device="cpu", engine="auto", workers=2, threads=1)


def write_manifest(path: Path, shifted: str = "", without_test: str = "") -> Path:
    """Write a table of 90 patients of three hospitals.

    Args:
        shifted: A hospital whose values and labels are others.
        without_test: A hospital that has no test patient.
    """
    drawn = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "label", "split", "site", "a", "b", "age"])
        for number in range(90):
            label, site = number % 2, SITES[number // 2 % 3]
            split = ("train", "train", "validation", "test")[number // 6 % 4]
            a, b = drawn.gauss(label, 1), drawn.gauss(0, 1)
            if site == shifted:
                a, b, label = a + 50, -b, 1 - label
            if site == without_test and split == "test":
                split = "train"
            writer.writerow([f"p{number}", label, split, site, a, b, 30 + number % 50])
    return path


def tiny(folder: Path, **more: str) -> Study:
    folder.mkdir(parents=True, exist_ok=True)
    study = table_study("three", write_manifest(folder / "manifest.csv", **more), rounds=2)
    return with_changes(study, {"simulation.compare": True, "evaluation.keep": "best"})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished series with every hospital left out."""
    folder = tmp_path_factory.mktemp("series")
    out = folder / "out"
    run_series(SeriesRequest(tiny(folder), out, leave_one_site_out=True, machine=ALONE))
    return out


def patients_of(manifest: Path) -> set[str]:
    with manifest.open(encoding="utf-8") as stream:
        return {row["patient"] for row in csv.DictReader(stream)}


def test_no_training_holds_a_patient_of_the_hospital_that_is_left_out(finished: Path) -> None:
    for site in SITES:
        run = finished / "runs" / f"without-{site}"
        theirs = patients_of(finished / "runs" / "together" / "sites" / site / "manifest.csv")
        assert len(theirs) == 30
        others = [*(run / "sites").glob("*/manifest.csv"), run / "assignment.csv"]
        others.append(run / "pooled" / "manifest.csv")
        assert len(others) == 4
        assert not any(theirs & patients_of(manifest) for manifest in others)
        assert patients_of(run / "left-out" / site / "manifest.csv") == theirs
        said = (run / "split.csv").read_text() + (run / "metrics.csv").read_text()
        assert f",{site}," not in said
        assert not said.startswith(site)


def test_the_model_is_the_same_whatever_the_left_out_hospital_holds(tmp_path: Path) -> None:
    bits: dict[str, list[str]] = {}
    for shifted in ("", "west", "east"):
        study = with_changes(tiny(tmp_path / shifted / "data", shifted=shifted), {})
        study = with_changes(study, {"simulation.compare": False})
        out = tmp_path / shifted / "run"
        simulate(SimulationRequest(study, out, ALONE, left_out="west"))
        bits.setdefault(bits_of(out / "models" / "federated.safetensors"), []).append(shifted)
    assert sorted(bits.values()) == [["", "west"], ["east"]]


def test_every_hospital_is_tested_by_four_models_on_the_same_patients(finished: Path) -> None:
    rows = read_table(finished / "measured.csv", MeasuredRow)
    aurocs = {(row.site, row.model): row for row in rows if row.metric == "auroc"}
    for site in SITES:
        models = ("alone", "federated", "pooled", "left-out")
        counts = {aurocs[site, model].patients for model in models}
        assert len(counts) == 1
        assert aurocs[site, "left-out, all patients"].patients == 30
        for model in models:
            row = aurocs[site, model]
            assert row.low <= row.value <= row.high
        gain = aurocs[site, "gain of taking part"].value
        both = (aurocs[site, "federated"].value, aurocs[site, "left-out"].value)
        assert gain == pytest.approx(both[0] - both[1])
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "At a hospital that took no part, expect an AUROC of about" in page
    assert "runs/without-north/report.html" in page
    assert "Does it work where it was not trained?" in (
        finished / "runs" / "together" / "report.html"
    ).read_text(encoding="utf-8")


@pytest.mark.long
def test_a_series_that_is_stopped_goes_on_to_the_same_models(
    finished: Path, tmp_path: Path
) -> None:
    """Runs are processes of their own here: the one at work is killed with SIGKILL."""
    study, out = tiny(tmp_path), tmp_path / "out"

    def stop(event: Event) -> None:
        if isinstance(event, RoundDone) and event.stage == "without-north/federated":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_series(SeriesRequest(study, out, True, machine=SIDE_BY_SIDE), stop)
    assert not (out / "measured.csv").exists()
    resume_series(out, SIDE_BY_SIDE)
    for part in PARTS:
        models = Path("runs") / part / "models" / "federated.safetensors"
        assert bits_of(out / models) == bits_of(finished / models), part
    assert (out / "measured.csv").read_bytes() == (finished / "measured.csv").read_bytes()


def test_a_run_that_is_gone_or_half_begun_is_made_again(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    facts = json.loads((out / "series.json").read_text())
    (out / "series.json").write_text(json.dumps({**facts, "finished": None}))
    shutil.rmtree(out / "runs" / "without-east")
    (out / "runs" / "without-west" / "run.json").unlink()
    (out / "runs" / "without-north" / "left-out" / "predictions.csv").unlink()
    resume_series(out, ALONE)
    assert (out / "measured.csv").read_bytes() == (finished / "measured.csv").read_bytes()


@pytest.mark.long
def test_the_command_prints_a_sentence_a_table_and_json(
    wardround: Callable[..., object], tmp_path: Path
) -> None:
    """Eight runs, one after the other: 8 s on an idle machine."""
    study, out = tmp_path / "study.toml", tmp_path / "out"
    study.write_text(tiny(tmp_path).to_toml(), encoding="utf-8")
    words = ("simulate", study, "--leave-one-site-out", "--seeds", "0,3", "--rounds", "1")
    said = wardround(*words, "--out", out, "--engine", "in-process", "--threads", "1", "--json")
    assert said.code == 0, said.err
    content = json.loads(said.out)
    assert content["seeds"] == [0, 3]
    assert content["seeds_draw"].endswith("the hospitals and their test patients stay the same")
    assert set(content["runs"]) == {
        name
        for seed in (0, 3)
        for name in (f"seed-{seed}", *(f"seed-{seed}-without-{site}" for site in SITES))
    }
    spread = {(s["site"], s["model"], s["metric"]): s for s in content["spread_over_seeds"]}
    east = spread["east", "federated", "auroc"]
    values = [
        row["value"]
        for row in content["measured"]
        if (row["site"], row["model"], row["metric"]) == ("east", "federated", "auroc")
    ]
    assert east["mean"] == pytest.approx(sum(values) / 2)
    assert (east["low"], east["high"]) == (min(values), max(values))
    again = wardround("simulate", "--resume", out)
    assert again.code == 0
    assert "is finished: nothing is left to do" in again.err
    assert "The seeds draw the first weights" in " ".join(again.out.split())
    assert wardround("report", out).code == 0


def test_seeds_that_draw_the_split_say_so(tmp_path: Path) -> None:
    study = with_changes(tiny(tmp_path), {"simulation.split": "iid", "simulation.sites": 2})
    manifest = tmp_path / "manifest.csv"
    text = manifest.read_text().replace("validation", "train")
    manifest.write_text(text, encoding="utf-8")
    less = {"federation.rounds": 1, "simulation.compare": False}
    study = with_changes(study, {"evaluation.validation_fraction": 0.0, **less})
    run_series(SeriesRequest(study, tmp_path / "out", seeds=(1, 2), machine=ALONE))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "and the split of the patients" in page
    assert "Does it work where it was not trained?" not in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--seeds", "a,b"), "'a' is no seed"),
        (("--seeds", ""), "'' is no seed"),
        (("--seeds", "1,1"), "names 1 twice"),
        (("--seeds", "0,-1"), "'-1' is no seed"),
        (("--seeds", "0,99999999999"), "'99999999999' is no seed"),
        (("--seeds", "0,1", "--seed", "2"), "both say which seed"),
        (("--leave-one-site-out", "--split", "iid", "--sites", "1"), "one of 1 hospitals"),
        (
            ("--leave-one-site-out", "--set", "federation.minimum_sites=3"),
            "federation.minimum_sites",
        ),
        (("--leave-one-site-out", "--set", "federation.strategy=fedper"), "a part of its own"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_trained(
    words: tuple[str, ...], said: str, wardround: Callable[..., object], tmp_path: Path
) -> None:
    study, out = tmp_path / "study.toml", tmp_path / "out"
    study.write_text(tiny(tmp_path).to_toml(), encoding="utf-8")
    answer = wardround("simulate", study, *words, "--out", out)
    assert answer.code == 2, answer.err
    assert said in " ".join(answer.err.split())
    assert not out.exists()


def test_a_hospital_without_test_patients_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    study = tiny(tmp_path, without_test="north")
    with pytest.raises(InputError, match="north has no test patients"):
        run_series(SeriesRequest(study, tmp_path / "out", True, machine=ALONE))
    assert not (tmp_path / "out").exists()


def test_a_resumed_series_takes_no_other_words(
    finished: Path, wardround: Callable[..., object]
) -> None:
    said = wardround("simulate", "--resume", finished, "--seeds", "0,1")
    assert said.code == 2
    assert "--seeds cannot be changed" in said.err


@pytest.mark.long
def test_a_pair_with_and_without_harmonisation_ends_in_a_table_and_goes_on_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: the commands of docs/how-to/harmonise.md, to their end, on 48 virtual patients."""
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    small = {
        "data.size": (16, 16),
        "model.features": (2, 4),
        "federation.rounds": 1,
        "simulation.sites": 2,
        "simulation.compare": False,
        "simulation.options.patients": 16,
        "simulation.options.slices": 1,
    }
    changed = with_changes(find_study("brain-tissue"), small)
    (tmp_path / "alike.toml").write_text(landmarks_of_data(changed, None).study.to_toml())
    line = [sys.executable, "-m", "wardround.cli", "simulate", "alike.toml", "--seeds", "0"]
    line += ["--leave-one-site-out", "--also-unharmonised", "--engine", "in-process"]
    line += ["--out", "pair"]
    told = subprocess.run(line, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "took no part" in told.stdout

    rows = read_table(tmp_path / "pair" / "unseen.csv", UnseenRow)
    dice = {(row.seed, row.site): row for row in rows if row.metric == "dice"}
    assert sorted(dice) == [(0, f"hospital-{n}") for n in (1, 2)]
    for row in dice.values():
        assert row.gain == pytest.approx(row.harmonised - row.as_they_are)
    for name, asked in (("harmonised", True), ("as-they-are", False)):
        series = tmp_path / "pair" / name
        assert load_study(series / "study.toml").data.harmonisation.is_asked is asked
        assert (series / "report.html").exists()
    alike, plain = (
        (tmp_path / "pair" / name / "runs" / "seed-0" / "assignment.csv").read_text()
        for name in ("harmonised", "as-they-are")
    )
    assert alike == plain, "the same patients in the same hospitals"

    table = (tmp_path / "pair" / "unseen.csv").read_text()
    (tmp_path / "pair" / "unseen.csv").unlink()
    shutil.rmtree(tmp_path / "pair" / "as-they-are" / "runs" / "seed-0-without-hospital-2")
    facts = tmp_path / "pair" / "as-they-are" / "series.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "finished": None}))
    assert resume_pair(tmp_path / "pair", ALONE) == tuple(rows)
    assert (tmp_path / "pair" / "unseen.csv").read_text() == table
