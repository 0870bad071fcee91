"""What the report says of volumes: more or less than is true, how sure, how far single ones."""

import numpy as np
import pytest

from wardround.common.statistics.agreement import bland_altman
from wardround.simulations.evidence.segmentation import Volumes
from wardround.simulations.report.sections.segmentation import volume_words

TRUE = np.array([40.0, 42.0, 39.0, 44.0, 41.0, 43.0])


def volumes_of(off: list[float], patients: list[int] | None = None) -> Volumes:
    found = TRUE + np.array(off)
    numbers = np.array(patients or range(6))
    return Volumes("all sites", "left-ventricle", TRUE, found, bland_altman(found - TRUE, numbers))


@pytest.mark.parametrize(
    ("off", "said"),
    [
        ([1.0, 3.0, 2.0, 1.0, 3.0, 2.0], "marks 2.00 ml more than the true 41.50 ml in the mean"),
        ([-1.0, -3.0, -2.0, -1.0, -3.0, -2.0], "marks 2.00 ml less than the true 41.50 ml"),
    ],
)
def test_a_bias_is_more_or_less_than_the_true_volume(off: list[float], said: str) -> None:
    words = volume_words(volumes_of(off))
    assert said in words
    assert "95% interval" in words
    assert "of 100 single differences lie between" in words


def test_one_patient_tells_no_interval_and_a_class_keeps_its_hyphen() -> None:
    words = volume_words(volumes_of([1.0, 3.0, 2.0, 1.0, 3.0, 2.0], [0] * 6))
    assert "interval" not in words
    assert words.startswith("left-ventricle: ")
