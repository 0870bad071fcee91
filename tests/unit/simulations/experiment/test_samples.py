"""What the report shows of real pictures: their own colours, and distances in their own unit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wardround.client.model_context import ModelContext
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.experiment.samples import length_unit, write_samples
from wardround.simulations.experiment.training import TrainedModel

REDDISH = (200, 90, 60)


def study_of(**data: Any) -> Study:
    return parse_study(
        {
            "study": {"name": "eyes", "task": "segmentation"},
            "data": {"classes": ["background", "vessel"], "size": [16, 16], "colour": True, **data},
            "model": {"network": "unet", "features": [4, 8]},
        }
    )


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    rows = ["patient,image,mask,split"]
    for number, split in enumerate(("train", "validation", "test")):
        colours = np.zeros((16, 16, 3), np.uint8) + np.array(REDDISH, np.uint8)
        colours[:, :4] //= 2
        Image.fromarray(colours).save(tmp_path / f"{number}.png")
        mask = np.zeros((16, 16), np.uint8)
        mask[4:8] = 255
        Image.fromarray(mask).save(tmp_path / f"{number}_mask.png")
        rows.append(f"p{number},{number}.png,{number}_mask.png,{split}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "site.toml").write_text('name = "eyes"\n')
    return tmp_path


def test_distances_in_photographs_are_counted_in_pixels(photographs: Path) -> None:
    assert length_unit([photographs], study_of()) == "pixels"
    labels = parse_study(
        {
            "study": {"name": "eyes", "task": "classification"},
            "data": {"classes": ["a", "b"], "size": [16, 16]},
            "model": {"network": "small-cnn"},
        }
    )
    assert length_unit([photographs], labels) == "mm"


@pytest.mark.parametrize("intensity", ["dermoscopy", "histology", "none"])
def test_a_photograph_is_shown_in_its_own_colours(
    photographs: Path, tmp_path: Path, intensity: str
) -> None:
    study = study_of(intensity=intensity)
    parameters = read_parameters(ModelContext.build(study, "cpu").network)
    model = TrainedModel("federated", "0" * 32, 1, parameters)
    write_samples(tmp_path / "samples.npz", [photographs], study, model)
    with np.load(tmp_path / "samples.npz") as arrays:
        shown = arrays["images"][0]
    assert (shown[:, 8] * 255).round().astype(int).tolist() == [list(REDDISH)] * 16
