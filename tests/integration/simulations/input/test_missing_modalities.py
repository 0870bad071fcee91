"""A whole simulated run whose hospitals lack images and values, and its model at work."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wardround.client.clinic.inference.inputs import find_inputs, read_images
from wardround.client.clinic.inference.prediction import Classified
from wardround.client.clinic.inference.predictor import load_predictor
from wardround.common.errors import DataError
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import SimulationRequest, simulate

MACHINE = Machine(device="cpu", engine="in-process", threads=1)
HEADER = ["patient", "image.t1", "image.t2", "label", "age"]


def write_manifest(folder: Path) -> Path:
    """Write 30 patients; the second channel alone says which class it is."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(30):
        cells = [f"p{number}"]
        for channel in ("t1", "t2"):
            bright = 120 * (number % 2) if channel == "t2" else 0
            pixels = generator.integers(0, 100, (8, 8)) + bright
            path = folder / f"{number}-{channel}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            cells.append(path.name)
        rows.append([*cells, "ab"[number % 2], "" if number % 5 == 0 else str(40 + number)])
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([HEADER, *rows])
    return folder / "manifest.csv"


def study_of(manifest: Path, fusion: str, mode: str) -> Study:
    content = {
        "study": {"name": "lacks", "task": "classification"},
        "data": {
            "channels": ["t1", "t2"],
            "classes": ["a", "b"],
            "size": [8, 8],
            "covariates": [{"name": "age", "mean": 55, "scale": 10}],
            "optional": ["t2", "age"],
        },
        "model": {"network": "small-cnn", "features": [4], "fusion": fusion},
        "training": {"batch_size": 4, "local_steps": 2, "modality_dropout": 0.3},
        "federation": {"rounds": 1},
        "evaluation": {"validation_fraction": 0.2, "test_fraction": 0.3, "keep": "last"},
        "simulation": {
            "data": "folder",
            "options": {"manifest": str(manifest)},
            "sites": 2,
            "compare": False,
            "lacking": [{"names": ["t2", "age"], "sites": ["hospital-2"]}],
        },
    }
    if mode == "patient":
        content["privacy"] = {"mode": mode, "noise_multiplier": 1.0, "sampling_rate": 0.5}
    return parse_study(content)


@pytest.mark.parametrize(
    ("fusion", "mode"),
    [
        ("late", "none"),
        pytest.param("intermediate", "patient", marks=pytest.mark.long),
        pytest.param("early", "patient", marks=pytest.mark.long),
    ],
)
def test_a_hospital_without_a_channel_takes_part_and_its_patients_are_predicted(
    fusion: str, mode: str, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path)
    study = study_of(manifest, fusion, mode)
    run = tmp_path / "run"
    assert simulate(SimulationRequest(study, run, MACHINE)).is_file()
    with (run / "sites" / "hospital-2" / "manifest.csv").open(newline="") as stream:
        held = list(csv.DictReader(stream))
    assert held
    assert {(row["image.t2"], row["age"]) for row in held} == {("", "")}
    card = (run / "model-card.md").read_text()
    assert "may be missing: t2, age; the others must be there" in card

    table = tmp_path / "new.csv"
    table.write_text("image.t1,image.t2,age\n1-t1.png,1-t2.png,50\n1-t1.png,,50\n1-t1.png,,\n")
    predictor = load_predictor(run / "models" / "federated", "cpu")
    given = [(read_images(one, study), one.covariates) for one in find_inputs([str(table)], study)]
    found = predictor.predict_prepared(predictor.prepare_several(given))
    scores = [one.probabilities for one in found if isinstance(one, Classified)]
    assert len(set(scores)) == 3, "what is missing is not as if it were there"
    table.write_text("image.t1\n1-t1.png\n")
    assert len(find_inputs([str(table)], study)) == 1, "columns may be missing too"
    table.write_text("image.t1,image.t2\n,1-t2.png\n")
    (without,) = find_inputs([str(table)], study)
    with pytest.raises(DataError, match="lacks the channel t1"):
        read_images(without, study)
