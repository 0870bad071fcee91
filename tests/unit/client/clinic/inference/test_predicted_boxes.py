"""A detection predicts: boxes in the image as it is stored, in tables, or refused in words."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.clinic.model_folders import untrained_model
from tests.support.hospitals.blobs import blob_study
from typer.testing import CliRunner

from wardround.cli import app
from wardround.client.clinic.inference.predictor import load_predictor
from wardround.client.data.reading.boxes.text import read_table
from wardround.client.data.reading.image import Image
from wardround.common.errors import InputError
from wardround.common.models.bundle import write_bundle
from wardround.common.models.exchange import write_onnx
from wardround.common.models.model_folder import open_model_folder

SURE = {"head.classes.bias": 6.0}  # every anchor holds something


@pytest.fixture
def sure(tmp_path: Path) -> Path:
    return untrained_model(tmp_path / "model", blob_study(), added=SURE)


def test_boxes_are_told_in_the_image_as_it_was_read_and_reach_its_edges(sure: Path) -> None:
    image = Image(np.random.default_rng(0).random((1, 96, 160)).astype(np.float32), None, None)

    found = load_predictor(sure, "cpu").predict(image)

    ends = np.array([[*box.low, *box.high] for box in found.boxes])
    assert ends[:, :2].min() == 0
    assert tuple(ends[:, 2:].max(0)) == pytest.approx((160, 96), abs=1)  # x before y
    assert sum(found.counts) == len([b for b in found.boxes if b.score >= 0.5]) > 10


def test_the_command_writes_a_table_of_boxes_that_reads_back_as_a_column_boxes(
    sure: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).random((48, 40)).astype(np.float32))

    said = CliRunner().invoke(
        app, ["predict", str(sure), str(tmp_path / "scan.npy"), "--out", str(tmp_path / "out")]
    )

    assert said.exit_code == 0, said.output
    details = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"][0]
    with (tmp_path / "out" / "boxes.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(details["boxes"]) > 10
    assert list(rows[0]) == ["image", "class", "score", "x0", "y0", "x1", "y1"]
    read = read_table(tmp_path / "out" / "boxes.csv", 2, tmp_path / "scan.npy")
    assert len(read.names) == len(rows)
    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        assert next(iter(csv.DictReader(stream))).keys() >= {"boxes of dark", "boxes of bright"}


def test_a_model_that_agrees_with_itself_says_what_it_says_alone(sure: Path) -> None:
    image = Image(np.random.default_rng(0).random((1, 48, 40)).astype(np.float32), None, None)

    alone = load_predictor(sure, "cpu").predict(image)
    together = load_predictor([sure, sure], "cpu").predict(image)

    assert [box.name for box in together.boxes] == [box.name for box in alone.boxes]
    ends = [[(box.score, *box.low, *box.high) for box in one.boxes] for one in (alone, together)]
    np.testing.assert_allclose(*ends, atol=1e-6)


def test_views_of_boxes_are_mirrored_and_their_boxes_turned_back(tmp_path: Path) -> None:
    study = blob_study(data={"augmentation": "histology"})
    model = untrained_model(tmp_path / "mirrored", study, added={"head.classes.bias": 3.0})
    values = np.random.default_rng(0).random((1, 48, 40)).astype(np.float32)

    predictor = load_predictor(model, "cpu", views=True)
    found, turned = (
        predictor.predict(Image(np.ascontiguousarray(one), None, None))
        for one in (values, values[:, :, ::-1])
    )

    as_seen = sorted((box.score, box.low[1], box.high[1], box.low[0]) for box in found.boxes)
    back = sorted((box.score, box.low[1], box.high[1], 40 - box.high[0]) for box in turned.boxes)
    assert len(as_seen) > 3
    np.testing.assert_allclose(as_seen, back, atol=1e-4)


def test_views_that_training_never_showed_are_refused_in_words(sure: Path) -> None:
    with pytest.raises(InputError, match="no mirrored images"):
        load_predictor(sure, "cpu", views=True)


def test_a_bundle_ends_with_the_boxes_that_the_model_finds(sure: Path, tmp_path: Path) -> None:
    import monai.bundle

    bundle = tmp_path / "bundle"
    write_bundle(open_model_folder(sure), bundle)
    values = np.random.default_rng(0).random((48, 40)).astype(np.float32)
    (bundle / "data").mkdir()
    np.save(bundle / "data" / "0.npy", values)

    monai.bundle.run(
        config_file=str(bundle / "configs" / "inference.json"), bundle_root=str(bundle)
    )

    theirs = torch.load(bundle / "eval" / "0.pt", weights_only=True)[0]
    ours = load_predictor(sure, "cpu").predict(Image(values[None]))
    assert len(ours.boxes) == len(theirs) > 10
    for box, row in zip(ours.boxes, theirs.tolist(), strict=True):  # x before y, and y before x
        told = [box.score, *box.low[::-1], *box.high[::-1]]
        np.testing.assert_allclose(told, [row[0], *row[2:]], atol=1e-4)
    said = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert said["network_data_format"]["outputs"]["pred"]["format"] == "boxes"


@pytest.mark.long
def test_an_exported_detector_says_the_same_of_each_anchor(sure: Path, tmp_path: Path) -> None:
    network = open_model_folder(sure).network()

    apart = write_onnx(network, (torch.randn(2, 1, 48, 40),), tmp_path / "model.onnx")

    assert apart < 1e-3
