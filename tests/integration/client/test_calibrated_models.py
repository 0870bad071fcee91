"""A simulated run fits a temperature, and wardround predict gives calibrated probabilities."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from tests.support.studies import tiny_runs
from typer.testing import CliRunner

from wardround.cli import app
from wardround.common.models.contract import Contract
from wardround.common.statistics.decisions.recalibration import with_temperature
from wardround.simulations.run_files.predictions import read_scores


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_runs, "PATIENTS", 480)  # 120 of them for validation
        tiny_runs.write_tiny_study(folder, evaluation__operating_point={"sensitivity": 0.9})
    words = ["simulate", str(folder / "study.toml"), "--out", str(folder / "run"), "--quiet"]
    result = CliRunner().invoke(app, [*words, "--engine", "in-process"])
    assert result.exit_code == 0, result.output
    return folder


def contract_of(run: Path, name: str) -> Contract:
    text = (run / "run" / "models" / name / "contract.json").read_text()
    return Contract.model_validate_json(text)


def test_predict_gives_the_probabilities_that_the_fitted_temperature_makes(run: Path) -> None:
    contract = contract_of(run, "federated")
    assert contract.temperature is not None, contract.calibration
    assert "120 validation patients" in contract.calibration
    words = ["predict", str(run / "run"), str(run / "manifest.csv"), "--out", str(run / "said")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "its probabilities are calibrated: a temperature of" in result.output
    said = json.loads((run / "said" / "predictions.json").read_text())
    assert said["is_calibrated"] is True
    assert said["operating_point"] == contract.threshold
    with (run / "said" / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    classes = contract.study["data"]["classes"]
    predicted = np.array([float(row[f"probability of {classes[1]}"]) for row in rows])
    scores = read_scores(run / "run", classes)
    known = np.concatenate(
        [part.scores for (model, _, _), part in scores.items() if model == "federated"]
    )
    for value in with_temperature(known, contract.temperature)[:, 1]:
        assert np.abs(predicted - value).min() < 1e-5


def test_the_report_says_what_the_temperature_does(run: Path) -> None:
    page = (run / "run" / "report.html").read_text()
    for anchor in ("discrimination", "calibration", "decisions"):
        assert f'<section id="{anchor}">' in page
    assert "It is part of the model&#39;s folder" in page
    assert "Operating point: a sensitivity of 90\u00a0%" in page


def test_a_hospital_with_too_few_validation_patients_is_told_so(run: Path) -> None:
    contract = contract_of(run, "local-north")
    (card,) = (run / "run" / "models" / "local-north").glob("*.md")
    if contract.temperature is None:
        assert contract.calibration in card.read_text()
    assert "validation patients" in contract.calibration
