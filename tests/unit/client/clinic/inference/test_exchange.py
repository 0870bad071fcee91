"""A model as a MONAI bundle, as ONNX and as a program of torch.export says what it says here."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from tests.unit.client.clinic.inference.conftest import MakeModel, study_of

from wardround.client.clinic.inference.predictor import load_predictor
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.readers import read_image
from wardround.common.models.bundle import write_bundle
from wardround.common.models.exchange import write_exported, write_onnx
from wardround.common.models.imported import import_bundle
from wardround.common.models.model_folder import open_model_folder
from wardround.common.parameters.arithmetic import digest
from wardround.common.study.study import Study

SAME = 1e-6


def windows() -> Study:
    return study_of(
        "segmentation",
        data={"intensity": "xray"},
        model={"network": "unet", "features": [4, 8]},
        training={"patch_size": [16, 16], "batch_size": 2},
    )


@pytest.mark.parametrize(
    "study",
    [
        study_of(),
        study_of("segmentation", model={"network": "basic-unet", "features": [8] * 6}),
        windows(),
    ],
    ids=["own", "monai", "windows"],
)
def test_a_bundle_runs_under_monai_with_equal_logits_and_comes_back_equal(
    study: Study, make_model: MakeModel, pictures: Path, tmp_path: Path
) -> None:
    import monai.bundle

    model = open_model_folder(make_model(study))
    write_bundle(model, tmp_path / "bundle")
    (pictures / "a").rename(tmp_path / "bundle" / "data")
    config = tmp_path / "bundle" / "configs" / "inference.json"
    monai.bundle.run(config_file=str(config), bundle_root=str(tmp_path / "bundle"))
    predictor, network = load_predictor(model.path, "cpu"), model.network()
    for number in range(4):
        theirs = torch.load(tmp_path / "bundle" / "eval" / f"{number}.pt", weights_only=True)
        image = read_image(Location(tmp_path / "bundle" / "data" / f"{number}.png"), 2)
        prepared = predictor.prepare(image)
        assert prepared.image is not None
        from wardround.client.data.batch import Batch
        from wardround.client.training.evaluation import evaluating, predict

        batch = Batch(prepared.image[None], None, torch.zeros(1, dtype=torch.int64))
        with evaluating(network):
            ours = predict(network, batch, study)
        inside = tuple(
            slice((big - small) // 2, (big - small) // 2 + small)
            for big, small in zip(theirs.shape[2:], ours.shape[2:], strict=True)
        )
        difference = (ours - torch.as_tensor(theirs)[(..., *inside)]).abs().max()
        assert float(difference) <= SAME * max(1.0, float(ours.abs().max()))
    import_bundle(tmp_path / "bundle", None, tmp_path / "back")
    back = open_model_folder(tmp_path / "back")
    assert digest(back.weights()) == digest(model.weights())
    assert back.study.data == study.data


def test_onnx_and_torch_export_are_compared_on_a_real_image(
    make_model: MakeModel, pictures: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    model = open_model_folder(make_model(study_of()))
    image = read_image(Location(pictures / "a" / "0.png"), 2)
    prepared = load_predictor(model.path, "cpu").prepare(image).image
    assert prepared is not None
    inputs = [torch.stack([prepared, prepared])]
    assert write_onnx(model.network(), inputs, tmp_path / "m.onnx") < 1e-5
    assert write_exported(model.network(), inputs, tmp_path / "m.pt2") < 1e-6
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    (five,) = session.run(None, {"input0": np.repeat(inputs[0][:1].numpy(), 5, axis=0)})
    assert five.shape == (5, 2), "the number of images is free"
    assert PIL.Image.open(pictures / "a" / "0.png").size == (20, 24)
