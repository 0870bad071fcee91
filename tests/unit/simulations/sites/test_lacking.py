"""Simulated hospitals that lack a channel."""

import pytest

from wardround.common.errors import InputError
from wardround.common.study.loading import parse_study
from wardround.simulations.datasets.examinations import PublicExamination
from wardround.simulations.sites.lacking import without_lacking

STUDY = parse_study(
    {
        "study": {"name": "lacking", "task": "classification"},
        "data": {
            "classes": ["a", "b"],
            "channels": ["t1", "t2"],
            "optional": ["t1", "t2"],
            "size": [16, 16],
        },
        "model": {"network": "small-cnn"},
        "simulation": {"lacking": [{"names": ["t1"], "sites": ["hospital-1"]}]},
    }
)


def _row(patient: str, **images: str) -> PublicExamination:
    return PublicExamination(patient=patient, images=images, label="a")


def test_a_hospital_that_lacks_a_channel_keeps_its_others() -> None:
    rows = [_row("p1", t1="/a.png", t2="/b.png"), _row("p2", t2="/c.png")]
    left = without_lacking(rows, "hospital-1", STUDY)
    assert [row.images for row in left] == [{"t2": "/b.png"}, {"t2": "/c.png"}]
    assert without_lacking(rows, "hospital-2", STUDY) == rows


def test_an_examination_that_would_be_left_without_an_image_is_told_by_the_study_s_words() -> None:
    rows = [_row("p1", t1="/a.png", t2=""), _row("p2", t1="/b.png", t2="/c.png")]
    with pytest.raises(InputError, match=r"takes t1 from hospital-1, where 1 of 2 examinations"):
        without_lacking(rows, "hospital-1", STUDY)
