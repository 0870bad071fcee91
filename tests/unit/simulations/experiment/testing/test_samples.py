"""What the report shows of real pictures: their own colours, and distances in their own unit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from wardround.client.session.model_context import ModelContext
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.experiment.testing.samples import length_unit, upright, write_samples
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
        colours[0, 0] = number  # no two patients have one photograph
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


@pytest.mark.parametrize(
    ("axes", "dimensions", "sides"),
    [("RAS", 3, "RL"), ("LPS", 3, "RL"), ("ARS", 3, "RL"), ("ASR", 3, "AP"), ("RSA", 3, "RL"),
     ("", 3, ""), ("PL", 2, "RL"), ("LP", 2, "RL"), ("IL", 2, "RL"), ("IP", 2, "AP"), ("", 2, "")],
)  # fmt: skip
def test_pictures_are_upright_with_the_patients_right_at_the_left(
    axes: str, dimensions: int, sides: str
) -> None:
    # Each pixel holds how far it lies to the right, and to the front or the head.
    size = (5, 7)
    steps = {"R": (1, 0), "L": (-1, 0), "A": (0, 1), "P": (0, -1), "S": (0, 1), "I": (0, -1)}
    if sides == "AP":  # from the side the front is across, and the head is up
        steps |= {"A": (1, 0), "P": (-1, 0)}
    first, second = (steps[letter] for letter in (axes or "RA")[:2])
    places = torch.stack(torch.meshgrid(*(torch.arange(side) for side in size), indexing="ij"))
    plane = torch.stack([first[k] * places[0] + second[k] * places[1] for k in (0, 1)])
    shown, marks = upright(plane, axes, flat_study(dimensions))
    assert marks == sides
    if dimensions == 2 and not axes:
        assert torch.equal(shown, plane), "a photograph stays as it is"
        return
    across, up = shown
    assert (across.diff(dim=1) == -1).all(), "from the right, or the front, to the other side"
    assert (across.diff(dim=0) == 0).all()
    assert (up.diff(dim=0) == -1).all(), "down from the front, or the head"


def flat_study(dimensions: int) -> Study:
    return parse_study(
        {
            "study": {"name": "slices", "task": "segmentation"},
            "data": {"classes": ["background", "organ"], "dimensions": dimensions},
            "model": {"network": "unet"},
        }
    )
