"""What ``wardround evaluate`` leaves behind.

======================= ==================================================================
``evaluation.json``     :class:`EvaluationFacts`: the model, the hospital, what was measured
``study.toml``          the model's study
``predictions.csv``     what the model said of each examination, or ``cases.csv``,
                        ``outcomes.csv``, ``detections.csv``
``groups.csv``          the groups of each examination, of a study with subgroups
``report.html``         the report
======================= ==================================================================
"""

import json
from dataclasses import dataclass
from pathlib import Path

from wardround.common.errors import InputError
from wardround.common.runtime.fields import of_its_types

EVALUATION = "evaluation.json"


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One metric at the hospital.

    Attributes:
        metric: A key of METRICS, or ``ece``.
        low, high: Of the 95 % interval over patients; NaN where there is none.
        in_the_run: The same metric of the same model as the mean over the run's own hospitals; NaN
            where it was not measured.
    """

    metric: str
    value: float
    low: float
    high: float
    patients: int
    in_the_run: float


@dataclass(frozen=True, slots=True)
class EvaluationFacts:
    """A model at a hospital that took no part.

    Attributes:
        run: The folder that the model is from.
        split: Which of the hospital's patients were tested.
        are_new: Whether it is known that none of them trained or chose the model.
    """

    wardround: str
    command: tuple[str, ...]
    run: str
    model: str
    model_digest: str
    site: str
    split: str
    are_new: bool
    patients: int
    examinations: int
    started: str
    metrics: tuple[MetricValue, ...]
    notes: tuple[str, ...]


def read_evaluation(folder: Path) -> EvaluationFacts:
    """Read ``evaluation.json``.

    Raises:
        InputError: The folder holds no evaluation, or one that this version cannot read.
    """
    try:
        content = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
        metrics = tuple(MetricValue(**one) for one in content["metrics"])
        lists = {"command": tuple(content["command"]), "notes": tuple(content["notes"])}
        return of_its_types(EvaluationFacts(**{**content, **lists, "metrics": metrics}))
    except OSError:
        msg = f"{folder} holds no evaluation: give the folder that 'wardround evaluate' wrote."
        raise InputError(msg) from None
    except (ValueError, KeyError, TypeError) as error:
        msg = (
            f"{folder / EVALUATION} cannot be read ({type(error).__name__}): it was changed, or "
            "another version of wardround wrote it. Evaluate again."
        )
        raise InputError(msg) from None
