"""A hospital whose images are looked for in all that leaves it."""

import csv
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from tests.support.hospitals.watched_ward import PATIENTS, SIDE, Ward, needles_of

from wardround.client.app import close_sessions
from wardround.client.policy.policy import POLICY_FILE
from wardround.common.study.loading import parse_study


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("ward") / "north"
    (folder / "images").mkdir(parents=True)
    drawn = np.random.default_rng(0)
    images, rows = [], [("patient", "image", "label", "split")]
    splits = ("train",) * 40 + ("validation",) * 20 + ("test",) * 20
    for number in range(PATIENTS):
        pixels = drawn.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        rows.append((f"p{number}", f"images/{number}.png", "ab"[number % 2], splits[number]))
        images.append(pixels)
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    study = parse_study(
        {
            "study": {"name": "smuggling", "task": "classification"},
            "data": {"classes": ["a", "b"], "size": [SIDE, SIDE]},
            "model": {"network": "small-cnn", "features": [16, 8], "normalisation": "group"},
            "training": {"local_steps": 2, "batch_size": 8},
            "federation": {"rounds": 2},
        }
    )
    (folder / "site.toml").write_text('name = "north"\n')
    (folder / POLICY_FILE).write_text(
        f'privacy_required = false\nrounds_factor = 1000\napproved = ["{study.digest}"]\n',
        encoding="utf-8",
    )
    yield Ward(folder, study, tuple(images), needles_of(tuple(images)))
    close_sessions()
