"""Every task and option that came with detection: in one process, in a pool, private or refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.hospitals.every_task import (
    CASES,
    MODES,
    PATIENTS,
    SITES,
    study_of,
    write_hospitals,
)
from tests.support.stage import bits_of
from tests.support.studies.tiny_study import Said

from wardround.common.errors import StudyError
from wardround.common.files.tables import read_table
from wardround.common.study.loading import load_study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.series.series import SeriesRequest, run_series
from wardround.simulations.experiment.simulate import SimulationRequest, simulate
from wardround.simulations.report.contents import read_contents
from wardround.simulations.run_files.detections import read_detections
from wardround.simulations.run_files.folder import MetricRow
from wardround.simulations.run_files.series import (
    LEFT_OUT,
    LEFT_OUT_EVERYBODY,
    TAKING_PART,
    MeasuredRow,
)
from wardround.simulations.run_files.stress import BOX_F1, read_attacks, read_corruptions

ALONE = Machine("cpu", "in-process", threads=1)
POOL = Machine("cpu", "pool", workers=2, threads=1)
REFUSED = [(name, *why) for name, case in CASES.items() for why in case.refused]
_REFUSED = {(name, mode) for name, mode, _ in REFUSED}
RUN = [(name, mode) for name in CASES for mode in MODES if (name, mode) not in _REFUSED]


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hospitals(tmp_path_factory.mktemp("hospitals"))


@pytest.mark.parametrize(("name", "mode", "why"), REFUSED)
def test_what_cannot_be_private_is_refused_with_the_reason(name: str, mode: str, why: str) -> None:
    with pytest.raises(StudyError, match=why):
        study_of(name, Path(), mode)


@pytest.mark.long
@pytest.mark.parametrize(("name", "mode"), RUN)
def test_what_passes_its_check_is_trained_and_tested(
    hospitals: Path, tmp_path: Path, name: str, mode: str
) -> None:
    """All 40 take a minute."""
    study = study_of(name, hospitals, mode)

    simulate(SimulationRequest(study, tmp_path / "run", ALONE))

    tested = read_table(tmp_path / "run" / "metrics.csv", MetricRow)
    kept = {row.site for row in tested if row.round == -1 and row.split == "test"}
    assert kept >= {"north", "south", "all sites"}
    assert "CANARY" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_the_pool_trains_the_model_of_one_process(
    hospitals: Path, tmp_path: Path, name: str
) -> None:
    study, bits = study_of(name, hospitals), []
    for folder, machine in (("one", ALONE), ("pool", POOL)):
        simulate(SimulationRequest(study, tmp_path / folder, machine))
        bits.append(bits_of(tmp_path / folder / "models" / "federated.safetensors"))

    assert bits[0] == bits[1]


@pytest.fixture(scope="module")
def without_south(hospitals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished detection of one hospital; the other is set aside."""
    study = study_of("detection", hospitals, training={"local_steps": 12, "learning_rate": 0.01})
    out = tmp_path_factory.mktemp("boxes") / "run"
    simulate(SimulationRequest(study, out, ALONE, left_out="south"))
    return out


def test_a_model_of_boxes_is_tested_at_a_hospital_that_took_no_part(
    without_south: Path, tmp_path: Path, wardround: Callable[..., Said]
) -> None:
    south, out = without_south / "left-out" / "south", tmp_path / "out"

    said = wardround("evaluate", without_south, "--site", south, "--out", out, "--json")

    assert said.code == 0, said.err
    content = json.loads(said.out)
    assert "on 14 patients who trained nothing of it" in content["verdict"]
    metrics = {one["metric"]: one for one in content["metrics"]}
    assert metrics.keys() == {"map50", "map", "froc"}
    assert all(0 <= one["low"] <= one["value"] <= one["high"] <= 1 for one in metrics.values())
    found = read_detections(out, ("0", "1"))["federated"]["south"]
    assert found.images == 14
    expected = next(iter(found.sums.summarise("froc", 14, load_study(out / "study.toml")))).value
    assert metrics["froc"]["value"] == pytest.approx(expected)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "What is found, and at how many false alarms?" in page
    assert "Own data alone" not in page
    assert "CANARY" not in page + said.out


@pytest.mark.long
def test_a_hospitals_gain_in_boxes_has_an_interval_over_its_patients(
    hospitals: Path, tmp_path: Path
) -> None:
    study = study_of("detection", hospitals, simulation={"compare": True})
    out = simulate(SimulationRequest(study, tmp_path / "run", machine=ALONE))

    contents = read_contents(out.parent)

    verdicts = {one.site: one for one in contents.verdict_on("map50").sites}
    assert verdicts.keys() == set(SITES)
    assert all(one.is_paired and one.patients > 1 for one in verdicts.values())
    assert all(one.error < 0.5 for one in verdicts.values())  # one half says nothing is known
    for site in (*SITES, "all sites"):
        found = contents.intervals["federated", site, "map50", ""]
        assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.long
def test_several_seeds_of_boxes_are_measured_at_each_hospital(
    hospitals: Path, tmp_path: Path
) -> None:
    study = study_of("detection", hospitals, simulation={"compare": True})
    out = tmp_path / "series"

    run_series(SeriesRequest(study, out, seeds=(0, 1), machine=ALONE))

    rows = read_table(out / "measured.csv", MeasuredRow)
    found = {(row.seed, row.site, row.model, row.metric) for row in rows}
    models = ("alone", "federated", "pooled")
    assert found == {(n, site, one, "map50") for n in (0, 1) for site in SITES for one in models}
    assert "mAP at IoU .50" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.long
def test_a_federation_of_boxes_is_tested_at_each_hospital_that_it_was_trained_without(
    hospitals: Path, tmp_path: Path
) -> None:
    study = study_of("detection", hospitals, simulation={"compare": True})
    out = tmp_path / "series"

    run_series(SeriesRequest(study, out, leave_one_site_out=True, machine=ALONE))

    rows = [one for one in read_table(out / "measured.csv", MeasuredRow) if one.metric == "map50"]
    found = {(row.site, row.model): row for row in rows}
    models = ("alone", "federated", "pooled", LEFT_OUT, LEFT_OUT_EVERYBODY, TAKING_PART)
    assert found.keys() == {(site, model) for site in SITES for model in models}
    for site in SITES:
        federated, without = found[site, "federated"], found[site, LEFT_OUT]
        gain = found[site, TAKING_PART].value
        assert gain == pytest.approx(federated.value - without.value)
        assert 0 <= without.low <= without.value <= without.high <= 1
        assert without.patients < found[site, LEFT_OUT_EVERYBODY].patients == PATIENTS // 2
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "left out, all patients" in page
    assert "CANARY" not in page


@pytest.mark.long
def test_a_model_of_boxes_meets_worse_and_attacked_images(
    without_south: Path, tmp_path: Path, wardround: Callable[..., Said]
) -> None:
    run = Path(shutil.copytree(without_south, tmp_path / "run"))

    said = wardround(
        *("stress", run, "--only", "jpeg", "--severities", "1,5"),
        *("--attacks", "--epsilons", "8", "--steps", "2", "--restarts", "1"),
    )

    assert said.code == 0, said.err
    rows = {(row.corruption, row.severity): row for row in read_corruptions(run)}
    assert rows.keys() == {("none", 0), ("jpeg", 1), ("jpeg", 5)}
    assert all(0 <= row.error <= 1 for row in rows.values())
    attacks = read_attacks(run)
    assert {row.measure for row in attacks} == {BOX_F1}
    assert {row.attack for row in attacks} == {"none", "fgsm", "pgd"}
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "1 - F1 of boxes of the federated model" in page
    assert "CANARY" not in page + said.out
