"""``wardround attack``: what a curious server would have seen, in the run's report."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wardround.client.data.cohorts import open_cohorts
from wardround.client.site.folder import open_site
from wardround.common.errors import InputError
from wardround.common.study.loading import load_study, with_changes
from wardround.simulations.run_files.attack_findings import read_attack_pictures, read_findings
from wardround.simulations.run_files.folder import RunFacts, read_facts, write_facts
from wardround.simulations.sites.preparation import prepare_sites

QUICK = ("--patients", "2", "--seconds", "2", "--canaries", "100")
MLP = ('network = "small-cnn"', 'network = "mlp"')
NO_NORMALISATION = ('normalisation = "group"', 'normalisation = "none"')


def finished_run(tiny, folder: Path, *changes: tuple[str, str]) -> Path:
    """Write the folder that a finished simulation leaves, without training anything."""
    for old, new in changes:
        tiny.change_study(old, new)
    study = load_study(tiny.study)
    folder.mkdir()
    prepare_sites(study, folder, None, None, False)
    (folder / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    facts = RunFacts(
        wardround="0.1.0",
        command=("wardround", "simulate"),
        digest=study.digest,
        seed=0,
        started="2026-11-23",
        status="finished",
    )
    write_facts(folder, facts)
    return folder


def likeness(run: Path) -> dict[tuple[str, str], float]:
    findings = read_findings(run)
    assert findings is not None
    return {(row.attack, row.protection): row.likeness for row in findings.rows}


def test_a_linear_first_layer_gives_the_image_away_in_the_report_too_and_noise_does_not(
    tiny_study, tmp_path: Path, wardround
) -> None:
    run = finished_run(tiny_study, tmp_path / "run", MLP, NO_NORMALISATION)
    said = wardround("attack", run, *QUICK)
    assert said.code == 0, said.err
    found = likeness(run)
    first = "read off the first layer"
    assert found[first, "none"] > 0.99
    assert found[first, "clipping alone"] > 0.99
    assert abs(found[first, "clipping and noise"]) < 0.5
    assert found["the same, several patients in a step", "none"] > 0.5
    assert "Planted patients: epsilon is at least" in said.out
    assert "The run itself had no such protection." in said.out
    assert "CANARY" not in said.out + said.err
    check_report(run, tmp_path)


def check_report(run: Path, folder: Path) -> None:
    """It shows the pictures, and stays one file."""
    page = (run / "report.html").read_text(encoding="utf-8")
    section = page.partition('<section id="attack">')[2].partition("</section>")[0]
    assert "What a curious server would have seen" in section
    assert "seen without protection" in section
    assert "seen with protection" in section
    assert section.count('src="data:image/png;base64,') == 2 * 2 * 3  # attacks, patients, panels
    assert not re.search(r'(src|href)="https?:', section)
    assert "CANARY" not in page.replace(str(folder), "")
    pictures = read_attack_pictures(run)
    assert pictures is not None
    assert pictures.images.shape == (4, 3, 16, 16)
    # The first panel is the patient's own image, the second what was read off: the same.
    assert np.abs(pictures.images[0, 0] - pictures.images[0, 1]).max() < 0.01


def test_a_convolution_first_is_attacked_by_matching_and_the_rest_says_why_not(
    tiny_study, tmp_path: Path, wardround
) -> None:
    run = finished_run(tiny_study, tmp_path / "run")
    said = wardround("attack", run, "--site", "south", *QUICK, "--json")
    content = json.loads(said.out)
    assert content["site"] == "south"
    assert {miss["attack"] for miss in content["not_run"]} == {
        "read off the first layer",
        "the same, several patients in a step",
    }
    found = likeness(run)
    assert found["gradient matching", "none"] > found["gradient matching", "clipping and noise"]


@pytest.mark.long
def test_a_network_that_cannot_be_private_is_attacked_without_protection_only(
    tiny_study, tmp_path: Path, wardround
) -> None:
    batch = ('normalisation = "group"', 'normalisation = "batch"')
    run = finished_run(tiny_study, tmp_path / "run", batch)
    said = wardround("attack", run, *QUICK, "--json")
    content = json.loads(said.out)
    assert {row["protection"] for row in content["rows"]} == {"none"}
    assert content["plan"] == ""
    assert "wardround study privacy STUDY" in " ".join(wardround("attack", run, *QUICK).out.split())
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Its network, or another key of its study, rules that out" in page
    assert "is refused" not in page
    assert content["audit"] is None


@pytest.mark.long
def test_the_protection_is_that_of_the_run_where_it_has_one(
    tiny_study, tmp_path: Path, wardround
) -> None:
    private = (
        "[federation]",
        '[privacy]\nmode = "patient"\nnoise_multiplier = 2.5\n\n[federation]',
    )
    run = finished_run(tiny_study, tmp_path / "run", MLP, NO_NORMALISATION, private)
    wardround("attack", run, *QUICK)
    findings = read_findings(run)
    assert findings is not None
    assert findings.own_plan
    assert "noise multiplier 2.5" in findings.plan


def test_a_table_gives_its_values_away_and_has_no_picture(
    tmp_path: Path, wardround, tiny_study
) -> None:
    rows = [
        f"P{n:02d},{('well', 'ill')[n % 2]},{n * 1.5},{n % 7},{n % 5},site-{n % 2}"
        for n in range(40)
    ]
    text = "\n".join(["patient,label,age,score,stage,site", *rows]) + "\n"
    manifest = tmp_path / "table.csv"
    manifest.write_text(text, encoding="utf-8")
    tiny_study.study.write_text(
        f"""
[study]
name = "table"
task = "classification"
[data]
kind = "table"
classes = ["well", "ill"]
covariates = [{{ name = "age", scale = 20.0 }}, {{ name = "score" }}, {{ name = "stage" }}]
[model]
network = "mlp"
features = [8]
normalisation = "none"
[federation]
rounds = 1
[simulation]
data = "folder"
split = "natural"
[simulation.options]
manifest = "{manifest}"
""",
        encoding="utf-8",
    )
    run = finished_run(tiny_study, tmp_path / "run")
    said = wardround("attack", run, *QUICK)
    assert said.code == 0, said.err
    assert likeness(run)["read off the first layer", "none"] > 0.99
    assert "a table has no image" in said.out.replace("\n", " ")
    assert read_attack_pictures(run) is None


# --- refusals ------------------------------------------------------------------------------------


def test_a_folder_without_simulated_sites_is_refused(tiny_study, tmp_path: Path, wardround) -> None:
    run = finished_run(tiny_study, tmp_path / "run")
    (run / "sites").rename(tmp_path / "elsewhere")
    said = wardround("attack", run)
    assert said.code == 2
    assert "no simulated sites" in said.err
    assert not (run / "attack.json").exists()


def test_what_is_no_finished_run_is_refused(tiny_study, tmp_path: Path, wardround) -> None:
    assert wardround("attack", tmp_path).code == 2
    run = finished_run(tiny_study, tmp_path / "run")
    write_facts(run, replace(read_facts(run), status="interrupted"))
    said = wardround("attack", run)
    assert (said.code, "is not finished" in said.err) == (2, True)


def test_an_unknown_site_is_told_the_known_ones(tiny_study, tmp_path: Path, wardround) -> None:
    said = wardround("attack", finished_run(tiny_study, tmp_path / "run"), "--site", "nort")
    assert said.code == 2
    assert "Did you mean 'north'?" in said.err


def test_damaged_findings_are_refused_with_a_remedy(tiny_study, tmp_path: Path) -> None:
    run = finished_run(tiny_study, tmp_path / "run")
    assert read_findings(run) is None
    (run / "attack.json").write_text("[]", encoding="utf-8")
    (run / "attack.npz").write_bytes(b"no")
    for read in (read_findings, read_attack_pictures):
        with pytest.raises(InputError, match="run 'wardround attack' again"):
            read(run)


# --- real images ---------------------------------------------------------------------------------


@pytest.mark.long
def test_a_chest_xray_comes_back_from_one_unprotected_step(
    shared_data: Path, tmp_path: Path, wardround
) -> None:
    from wardround.simulations.studies import find_study

    study = with_changes(
        find_study("pneumonia-xray"),
        {"simulation.sites": 2, "federation.rounds": 1, "data.augmentation": "none"},
    )
    run = tmp_path / "run"
    run.mkdir()
    prepare_sites(study, run, shared_data, None, False)
    (run / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    facts = RunFacts("0.1.0", ("wardround",), study.digest, 0, "2026-11-23", "finished")
    write_facts(run, facts)
    assert len(open_cohorts(open_site(run / "sites" / "hospital-1"), study).train) > 20
    said = wardround("attack", run, "--patients", "1", "--seconds", "10", "--canaries", "0")
    assert said.code == 0, said.err
    found = likeness(run)
    assert found["gradient matching", "none"] > 0.8
    assert abs(found["gradient matching", "clipping and noise"]) < 0.3


@pytest.mark.long
def test_of_a_masked_run_the_sum_is_attacked_and_gives_no_image(
    tiny_study, tmp_path: Path, wardround
) -> None:
    masks = '[evaluation]\nkeep = "last"\n\n[federation]\nsecure_aggregation = true'
    run = finished_run(tiny_study, tmp_path / "run", MLP, NO_NORMALISATION, ("[federation]", masks))
    said = wardround("attack", run, *QUICK)
    assert said.code == 0, said.err
    found = likeness(run)
    first = "read off the first layer"
    assert found[first, "none"] > 0.99
    assert found[first, "masks alone"] < 0.9
    assert {protection for _, protection in found} == {"none", "masks alone"}


@pytest.mark.long
def test_of_a_run_with_noise_in_the_sum_the_sum_is_audited(
    tiny_study, tmp_path: Path, wardround
) -> None:
    noise = (
        '[privacy]\nmode = "patient"\nnoise = "distributed"\nnoise_multiplier = 1.0\n'
        "sampling_rate = 0.5\nexpected_patients = 20\n\n[federation]\nminimum_sites = 3\n"
        "secure_aggregation = true"
    )
    one_step = (
        ("[federation]", noise),
        ("batch_size = 4", 'optimiser = "sgd"\nlocal_steps = 1'),
    )
    run = finished_run(tiny_study, tmp_path / "run", MLP, NO_NORMALISATION, *one_step)
    said = wardround("attack", run, *QUICK)
    assert said.code == 0, said.err
    assert "Planted patients, in the masked sum of 3 hospitals" in said.out
    findings = read_findings(run)
    assert findings is not None
    assert findings.audit is not None
    assert findings.audit.shares == 3
    assert findings.audit.proven <= findings.audit.claimed
