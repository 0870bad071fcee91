"""What goes into a model's folder beside its weights: its temperature and its threshold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wardround.common.statistics.decisions.recalibration import with_temperature
from wardround.common.study.study import Study
from wardround.simulations.evidence.acting import Goal, goal_of, thresholds_of
from wardround.simulations.evidence.answers import AllScores, joined
from wardround.simulations.evidence.calibrated import Temperature, find_temperature
from wardround.simulations.run_files.folder import FEDERATED, local_model
from wardround.simulations.run_files.predictions import Scores

_USUAL = 0.5
_EDGE = 1e-9  # a threshold is kept inside (0, 1)
_PRIVATE = (
    "the study promises privacy, and a temperature would tell of validation patients what no noise "
    "covers"
)
_INCOMPLETE = "the weights here are not all that the network needs"


@dataclass(frozen=True, slots=True)
class Release:
    """How a model's outputs become answers.

    Attributes:
        temperature: What logits are divided by; None where probabilities are not calibrated.
        threshold: From which probability on a class is reported.
        note: How they were found, or why there is no temperature; "" where nothing is known.
    """

    temperature: float | None = None
    threshold: float = _USUAL
    note: str = ""


def release_of(
    name: str, scores: AllScores, sites: Sequence[str], study: Study, complete: bool
) -> Release:
    """Return what a model's folder says of its probabilities.

    Args:
        name: Of the folder: a model, or ``federated-SITE`` for a site's own version of it.
        scores: Of the run; may be empty.
        sites: All of the run.
        study: That the model followed.
        complete: Whether the folder has all weights.
    """
    if not study.task.classifies:
        return Release()
    if study.privacy.mode != "none":
        return Release(note=_PRIVATE)
    if not complete:
        return Release(note=_INCOMPLETE)
    held = _validation_of(name, scores, sites)
    found = find_temperature(held, study.data.multi_label)
    threshold = _threshold(held, study, found)
    if threshold is None:
        return Release(found.used, note=found.note)
    return Release(found.used, threshold, f"{found.note}; {_threshold_words(threshold, study)}")


def _validation_of(name: str, scores: AllScores, sites: Sequence[str]) -> list[Scores]:
    """Return the model's scores of the validation patients of those who trained it."""
    for site in sites:
        if name == local_model(site):
            keys = [(name, site, "validation")]
            break
        if name == f"{FEDERATED}-{site}":
            keys = [(FEDERATED, site, "validation")]
            break
    else:
        keys = [(name, site, "validation") for site in sites]
    return [scores[key] for key in keys if key in scores and len(scores[key].scores)]


def _threshold(held: Sequence[Scores], study: Study, found: Temperature) -> float | None:
    """Return the study's operating point of two classes; None where it has none."""
    classes = len(study.data.classes)
    if study.evaluation.operating_point is None or study.data.multi_label or classes != 2:
        return None
    if not held:
        return None
    answers = joined(held, multi_label=False)
    if found.used is not None:
        answers = answers.with_scores(with_temperature(answers.scores, found.used))
    threshold = thresholds_of(answers, goal_of(study), classes)[1]
    return None if math.isnan(threshold) else min(max(threshold, _EDGE), 1 - _EDGE)


def _threshold_words(threshold: float, study: Study) -> str:
    goal: Goal = goal_of(study)
    what = "finds" if goal.aim == "sensitivity" else "leaves alone"
    whom = "the cases" if goal.aim == "sensitivity" else "the others"
    return (
        f"{study.data.classes[1]} is reported from {threshold:.3f} on, which {what} "
        f"{100 * goal.wanted:g} % of {whom} among them"
    )
