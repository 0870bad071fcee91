"""Model folders as a run leaves them, without the run: a drawn network and a few pictures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import wardround
from wardround.client.clinic.inference.seen import look_at
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.readers import read_image
from wardround.common.models.card import Origin, licence_text, model_card
from wardround.common.models.contract import Contract, study_content
from wardround.common.models.model_folder import write_model_folder
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

MakeModel = Callable[..., Path]


def study_of(task: str = "classification", **sections: dict[str, object]) -> Study:
    """Return a small study; sections are merged over it."""
    network = "small-cnn" if task == "classification" else "unet"
    base: dict[str, dict[str, object]] = {
        "study": {"name": "tiny", "task": task},
        "data": {"classes": ["normal", "abnormal"]},
        "model": {"network": network, "features": [4, 8]},
        "training": {"batch_size": 4},
    }
    if task == "classification":
        base["data"]["size"] = [16, 16]
    return parse_study(
        {name: {**base.get(name, {}), **sections.get(name, {})} for name in {**base, **sections}}
    )


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eight grey pictures of 24 x 20, in two folders that share their file names."""
    drawn = np.random.default_rng(0)
    for folder in ("a", "b"):
        (tmp_path / "pictures" / folder).mkdir(parents=True)
        for number in range(4):
            values = (drawn.random((24, 20)) * 180 + 20).astype(np.uint8)
            PIL.Image.fromarray(values).save(tmp_path / "pictures" / folder / f"{number}.png")
    return tmp_path / "pictures"


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Return a function that writes a model folder of a study with drawn weights."""

    def make(
        study: Study, name: str = "model", seed: int = 0, looked_at: Path | None = None
    ) -> Path:
        weights = read_parameters(build_network(study, seed))
        seen = None
        for file in [] if looked_at is None else sorted(looked_at.rglob("*.png")):
            one = look_at([read_image(Location(file), 2, study.data.colour)]).as_seen()
            seen = one if seen is None else seen.plus(one)
        contract = Contract(
            wardround=wardround.__version__,
            name=name,
            study=study_content(study),
            study_digest=study.digest,
            parameters=digest(weights),
            seen=seen,
        )
        texts = model_card(contract, study, Origin((), (), "none"), ()), licence_text("none")
        write_model_folder(tmp_path / name, weights, contract, (), texts)
        return tmp_path / name

    return make
