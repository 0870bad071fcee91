"""A model file is whole or absent, and damage is said so."""

from pathlib import Path

import pytest
import torch
from torch import nn

from wardround.common.errors import ModelError
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.model_file import StoredModel, load_model, save_model
from wardround.common.parameters.schema import read_parameters, schema

TENSORS = {
    "w": torch.randn(3, 5),
    "half": torch.randn(4).half(),
    "brain": torch.randn(4).bfloat16(),
    "wide": torch.randn(2, 2).double(),
    "count": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "codes": torch.arange(-3, 3, dtype=torch.int8),
    "none": torch.zeros(0, 3),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "model.safetensors"
    save_model(place, TENSORS, {"round": "1"})
    return place


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


def test_a_stored_model_holds_what_a_loaded_model_holds_in_the_same_order(path: Path) -> None:
    stored, loaded = StoredModel(path), load_model(path).parameters
    assert schema(stored) == schema(loaded)
    assert all(torch.equal(stored[name], loaded[name]) for name in loaded)
    assert len(stored) == len(TENSORS)


def test_changing_a_tensor_of_a_stored_model_changes_nothing_on_disk(path: Path) -> None:
    stored = StoredModel(path)
    stored["w"].zero_()
    assert torch.equal(stored["w"], TENSORS["w"])


def test_a_stored_model_can_be_read_when_its_file_was_removed(path: Path) -> None:
    stored = StoredModel(path)
    path.unlink()
    assert torch.equal(stored["w"], TENSORS["w"])


def test_a_stored_model_whose_file_is_damaged_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for content in (b"", b"no", whole[:20], b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="cannot read the model"):
            StoredModel(path)
    path.write_bytes(whole[:-1])
    cut = StoredModel(path)
    with pytest.raises(ModelError, match="cut off"):
        _ = [cut[name] for name in cut]
    with pytest.raises(ModelError):
        StoredModel(path.with_name("absent"))
