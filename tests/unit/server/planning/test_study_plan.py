"""A plan from nothing is refused, and says whether a policy or the noise hid the patients."""

import numpy as np
import pytest
from tests.support.hospitals.image_ward import ward_study

from wardround.common.errors import RunError
from wardround.common.study.plans.statistics import asked_histograms
from wardround.server.planning import study_plan
from wardround.server.planning.collection import Collected
from wardround.server.planning.merging import MergedHistogram


@pytest.mark.parametrize(
    ("noise", "words"),
    [(4.0, "the noise that protects patients .4 patients a cell."), (0.0, "the sites' policies")],
)
def test_what_hid_the_sizes_of_images_is_said(
    monkeypatch: pytest.MonkeyPatch, noise: float, words: str
) -> None:
    asked = ward_study("none", {"intensity": [-500, 500]})
    empty = {
        one.name: MergedHistogram(one, np.zeros(one.cells), 0.0, noise)
        for one in asked_histograms(asked)
    }
    monkeypatch.setattr(study_plan, "merge_statistics", lambda *said: empty)
    with pytest.raises(RunError, match=words):
        study_plan.plan_study(Collected({}), asked)
