"""A pretraining without labels, and a study of another task that starts from it."""

from pathlib import Path
from typing import Any

import pytest

from wardround.common.files.tables import read_table
from wardround.common.models.model_folder import open_model_folder
from wardround.common.models.pretrained import offer_weights
from wardround.common.study.loading import load_study, parse_study, with_changes
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import SimulationRequest, simulate
from wardround.simulations.run_files.folder import MetricRow, TrafficRow


@pytest.mark.long
@pytest.mark.parametrize("engine", ["in-process", "pool", "stacked"])
def test_a_study_starts_from_what_hospitals_pretrained_without_labels(
    tiny_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """By hand: ``python -m benchmarks.support.transfer`` does it on HAM10000, over three seeds."""
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    machine = Machine(device="cpu", engine=engine, threads=1, workers=2)
    study = with_changes(load_study(tiny_study.study), {"simulation.compare": False})
    content = study.model_dump(mode="python", exclude_unset=True)
    for key in ("classes", "covariates"):
        content["data"].pop(key, None)
    content["study"]["task"] = "pretraining"
    content["training"] = {"local_steps": 2, "learning_rate": 0.01}
    content["evaluation"] = {}
    pretraining = parse_study(content)
    simulate(SimulationRequest(pretraining, tmp_path / "first", machine))
    sha256 = offer_weights(open_model_folder(tmp_path / "first" / "models" / "federated"))

    sent = {}
    for name, frozen in (("whole", []), ("frozen", ["0.*"])):
        moved = with_changes(study, {"model.weights_sha256": sha256, "model.frozen": frozen})
        simulate(SimulationRequest(moved, tmp_path / name, machine))
        rows = read_table(tmp_path / name / "traffic.csv", TrafficRow)
        sent[name] = {(row.bytes_down, row.bytes_up) for row in rows}
        tested = read_table(tmp_path / name / "metrics.csv", MetricRow)
        assert any(row.round == -1 for row in tested)
        card = (tmp_path / name / "models" / "federated" / "card.md").read_text()
        assert "(task pretraining of the study" in card

    assert max(sent["frozen"]) < min(sent["whole"])
