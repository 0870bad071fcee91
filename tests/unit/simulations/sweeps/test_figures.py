import math
import re

import pytest

from wardround.common.study.loading import parse_study
from wardround.simulations.sweeps.figures import draw_course, draw_slices
from wardround.simulations.sweeps.folder import SweepContents, SweepFacts, Trial

STUDY = parse_study(
    {
        "study": {"name": "tiny", "task": "classification"},
        "data": {"classes": ["no", "yes"], "size": [32, 32]},
        "model": {"network": "small-cnn"},
    }
)
PARAMETERS = (
    "training.learning_rate=1e-4..1e-1:log",
    "training.optimiser=sgd,adam",
    "training.local_epochs=1..5",
)


def a_trial(number: int, value: float, status: str = "finished", **changes: object) -> Trial:
    values = {
        "training.learning_rate": 1e-3,
        "training.optimiser": "sgd",
        "training.local_epochs": 2,
        **{f"training.{key}": value for key, value in changes.items()},
    }
    return Trial(number, status, values, value, 1.0)


def contents(*trials: Trial, metric: str = "auroc") -> SweepContents:
    facts = SweepFacts("0.1.0", ("wardround",), "d", PARAMETERS, len(trials), metric, 0, "today")
    return SweepContents(facts, STUDY, trials)


def heights_of_best(html: str) -> list[float]:
    """Return how far down the line of the best so far lies, trial by trial."""
    (path,) = re.findall(r'<path class="stroke" d="([^"]+)"[^>]*><title>best so far', html)
    return [float(y) for y in re.findall(r"(?: |V)([\d.]+)", path)]


@pytest.mark.parametrize(("metric", "rises"), [("auroc", True), ("loss", False)])
def test_the_best_so_far_never_gets_worse(metric: str, rises: bool) -> None:
    values = (0.6, 0.7, 0.5, 0.8, 0.4)
    figure = draw_course(contents(*(a_trial(n, v) for n, v in enumerate(values, 1)), metric=metric))
    assert figure is not None
    heights = heights_of_best(figure.html)
    assert len(heights) == 5
    assert heights == sorted(heights, reverse=rises)
    assert len(set(heights)) == 3


def test_a_trial_stopped_early_has_a_mark_of_its_own_and_is_never_the_best() -> None:
    figure = draw_course(contents(a_trial(1, 0.6), a_trial(2, 0.9, "stopped early")))
    assert figure is not None
    assert "stopped early: trial 2, 0.9<" in figure.html
    assert len(heights_of_best(figure.html)) == 1
    outlines = set(re.findall(r'class="mark"[^>]* d="([^"]+)"', figure.html))
    assert len(outlines) == 2


def test_each_parameter_has_a_chart_with_the_axis_that_suits_it() -> None:
    trials = (
        a_trial(1, 0.6, learning_rate=1e-4, optimiser="adam", local_epochs=1),
        a_trial(2, 0.7, learning_rate=1e-1, optimiser="sgd", local_epochs=3),
    )
    rate, optimiser, epochs = (figure.html for figure in draw_slices(contents(*trials)))
    ticks = [re.findall(r'text-anchor="middle">([^<]+)<', html)[:-1] for html in (rate, optimiser)]
    assert ticks == [["0.0001", "0.001", "0.01", "0.1"], ["sgd", "adam"]]
    assert "finished: training.optimiser adam, 0.6, trial 1" in optimiser
    assert re.findall(r'text-anchor="middle">([^<]+)<', epochs)[:-1] == ["1", "2", "3"]


def test_a_sweep_without_a_score_has_no_charts() -> None:
    failed = contents(a_trial(1, math.nan, "failed"))
    assert draw_course(failed) is None
    assert draw_slices(failed) == []
