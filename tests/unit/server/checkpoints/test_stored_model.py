"""A model that stays on disk."""

from pathlib import Path

import pytest
import torch

from wardround.common.errors import ModelError
from wardround.common.parameters.model_file import load_model, save_model
from wardround.common.parameters.schema import schema
from wardround.server.checkpoints.stored_model import StoredModel

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


def test_it_holds_what_a_loaded_model_holds_in_the_same_order(path: Path) -> None:
    stored, loaded = StoredModel(path), load_model(path).parameters
    assert schema(stored) == schema(loaded)
    assert all(torch.equal(stored[name], loaded[name]) for name in loaded)
    assert len(stored) == len(TENSORS)


def test_changing_a_tensor_changes_nothing_on_disk(path: Path) -> None:
    stored = StoredModel(path)
    stored["w"].zero_()
    assert torch.equal(stored["w"], TENSORS["w"])


def test_it_can_be_read_when_its_file_was_removed(path: Path) -> None:
    stored = StoredModel(path)
    path.unlink()
    assert torch.equal(stored["w"], TENSORS["w"])


def test_a_damaged_file_is_refused(path: Path) -> None:
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
