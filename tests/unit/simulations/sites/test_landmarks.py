"""Landmarks of a public reference: the numbers that images are matched to, in the study."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from wardround.common.errors import InputError
from wardround.common.study.loading import load_study, parse_study
from wardround.common.study.sections.harmonisation import LANDMARK_PERCENTS
from wardround.common.study.study import Study
from wardround.simulations.sites.landmarks import landmarks_of_files, write_landmarks


def study_of(channels: tuple[str, ...] = ("image",), **data: object) -> Study:
    return parse_study(
        {
            "study": {"name": "s", "task": "classification"},
            "data": {"classes": ["a", "b"], "size": [32, 32], "channels": channels, **data},
            "model": {"network": "small-cnn"},
        }
    )


def picture(path: Path, seed: int) -> Path:
    values = np.random.default_rng(seed).integers(1, 255, (32, 32), dtype=np.uint8)
    values[:8] = 0
    Picture.fromarray(values).save(path)
    return path


def test_the_landmarks_are_the_mean_quantiles_of_what_is_not_zero(tmp_path: Path) -> None:
    files = [picture(tmp_path / f"{seed}.png", seed) for seed in range(3)]
    found = landmarks_of_files(study_of(), files)
    seen = [np.asarray(Picture.open(file)) for file in files]
    expected = np.mean([np.percentile(v[v > 0], LANDMARK_PERCENTS) for v in seen], axis=0)
    (row,) = found.study.data.harmonisation.landmarks
    np.testing.assert_allclose(row, expected, atol=1e-4)
    out = tmp_path / "alike.toml"
    assert "3 images (3 examinations)" in write_landmarks(found, out)
    assert load_study(out).digest == found.study.digest
    with pytest.raises(InputError, match=r"alike.toml cannot be written .*choose another --out"):
        write_landmarks(found, out)
    assert "[data.harmonisation]" in write_landmarks(found, None)


def test_a_reference_that_cannot_serve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no image"):
        landmarks_of_files(study_of(), [tmp_path / "none.png"])
    with pytest.raises(InputError, match="name images for a study of one channel"):
        landmarks_of_files(study_of(("t1", "t2")), [picture(tmp_path / "a.png", 0)])
    black = tmp_path / "black.png"
    Picture.fromarray(np.zeros((32, 32), np.uint8)).save(black)
    with pytest.raises(InputError, match="plane 0 of the reference is empty"):
        landmarks_of_files(study_of(), [black])
