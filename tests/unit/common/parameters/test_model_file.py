"""A model file is whole or absent, and damage is said so."""

from pathlib import Path

import pytest
import torch
from torch import nn

from wardround.common.errors import ModelError
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.model_file import load_model, save_model
from wardround.common.parameters.schema import (
    read_parameters,
)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def test_a_model_file_gives_back_parameters_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    parameters = read_parameters(network()) | {"half": torch.ones(3, dtype=torch.bfloat16)}
    save_model(path, parameters, {"round": "7"})
    save_model(path, parameters, {"round": "8"})
    loaded = load_model(path)
    assert loaded.metadata == {"round": "8"}
    assert digest(loaded.parameters) == digest(parameters)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_half_written_file_never_replaces_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, {"x": torch.ones(1)}, {})

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ModelError, match="No space left"):
        save_model(path, {"x": torch.zeros(1)}, {})
    assert load_model(path).parameters["x"].item() == 1
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 100], ids=["absent", "empty", "junk"])
def test_a_damaged_model_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"give a whole \.safetensors file"):
        load_model(path)


def test_a_folder_that_does_not_exist_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot write the model"):
        save_model(tmp_path / "absent" / "model.safetensors", {"x": torch.ones(1)}, {})
