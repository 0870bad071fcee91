"""The model of a run is fetched whole, or not at all."""

from pathlib import Path

import pytest
import torch

from wardround.common.errors import InputError, RunError
from wardround.common.models.model_folder import open_model_folder
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.model_file import save_model
from wardround.common.study.loading import parse_study
from wardround.server.operators import run_model
from wardround.server.operators.messages import ModelPart
from wardround.server.operators.run_model import model_parts, write_model
from wardround.server.operators.run_summaries import record_of
from wardround.server.scheduling.folder import RunFolder, RunStatus
from wardround.server.scheduling.queue import StudyQueue
from wardround.server.scheduling.store import RunRow, find_run
from wardround.server.scheduling.submission import submit_study

MODEL = {"layer.weight": torch.arange(1000.0), "layer.bias": torch.ones(3)}


def finished(folder: Path, log: bool = True) -> RunRow:
    study = parse_study(
        {
            "study": {"name": "tiny", "task": "classification"},
            "data": {"kind": "table", "classes": ["no", "yes"], "covariates": [{"name": "a"}]},
            "model": {"network": "mlp", "features": []},
        }
    )
    run, queue = submit_study(folder, study).run, StudyQueue(folder)
    place = RunFolder(folder, run)
    queue.started(run)
    with pytest.raises(InputError, match="it has a model once it has finished"):
        [*model_parts(folder, find_run(folder, run))]
    save_model(place.model_path, MODEL, {"round": "4"})
    place.put_status(RunStatus(run, "tiny", study.digest, round=5, without=("east",)))
    if log:
        place.log("finished", kept_round=4, model=digest(MODEL))
    queue.finished(run)
    return find_run(folder, run)


def test_a_model_comes_in_parts_and_is_written_with_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_model, "_PART_BYTES", 100)
    row, out = finished(tmp_path), tmp_path / "out"
    parts = [*model_parts(tmp_path, row)]
    assert len(parts) > 10
    card = write_model(parts, record_of(tmp_path, row), out)
    found = open_model_folder(out)
    assert digest(found.weights()) == digest(MODEL)
    assert found.card == card
    assert found.contract.complete
    for words in (digest(MODEL), "round 4", "without east", "let out", "not for diagnosis"):
        assert words in card
    with pytest.raises(InputError, match="exists already"):
        write_model(parts, record_of(tmp_path, row), out)


@pytest.mark.parametrize("fault", ["cut", "changed", "nothing"])
def test_what_is_not_the_model_of_the_log_is_not_written(tmp_path: Path, fault: str) -> None:
    row, out = finished(tmp_path), tmp_path / "out"
    (whole,) = model_parts(tmp_path, row)
    faulty = {"cut": whole.data[:-4], "changed": whole.data[:-4] + b"\0\0\0\1", "nothing": b""}
    parts = [ModelPart(whole.digest, 4, faulty[fault])] if fault != "nothing" else []
    with pytest.raises(RunError, match="fetch it again"):
        write_model(parts, record_of(tmp_path, row), out)
    assert [path.name for path in tmp_path.glob("*out*")] == []


def test_a_run_whose_log_or_model_is_lost_says_so(tmp_path: Path) -> None:
    row = finished(tmp_path, log=False)
    RunFolder(tmp_path, row.run).log("round", round=1)
    with pytest.raises(RunError, match="does not say which model it kept"):
        [*model_parts(tmp_path, row)]
    RunFolder(tmp_path, row.run).log("finished", kept_round=4, model=digest(MODEL))
    RunFolder(tmp_path, row.run).model_path.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        [*model_parts(tmp_path, row)]
