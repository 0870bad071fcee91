"""``outcomes.csv``: what models said of each examination's number, or time to an event.

As ``predictions.csv`` it names an examination by its row and a patient by a number, and stays in
the run folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.common.files.tables import read_table
from wardround.common.metrics.censoring import CensoredCases

OUTCOMES = "outcomes.csv"
Floats = NDArray[np.float64]
_ERRORS = ("brier", "told", "alive", "weight")


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """What one model said of one examination.

    Attributes:
        model: As in ``predictions.csv``.
        site: Whose examination.
        split: ``validation`` or ``test``.
        case: The row of the site's manifest.
        patient: Number of the patient within the site's split, from 0.
        truth: The number in the study's unit, or the time, cut at the horizon.
        event: 1 where it is the time of an event, 0 where follow-up ended; 1 of a number.
        estimate: The number in the study's unit, or the risk in [0, 1].
        hazard: The cumulative hazard up to the time; 0 where there is none.
        brier: Squared error weighted for censoring, as a mean over the time to the horizon.
        told: Share of the time at which the site knows it; 0 where there is none, as of a number.
        alive: The probability of no event up to the horizon.
        weight: How often it counts at the horizon: 0 where it was not followed so far.
    """

    model: str
    site: str
    split: str
    case: int
    patient: int
    truth: float
    event: int
    estimate: float
    hazard: float
    brier: float
    told: float
    alive: float
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What one model said of N examinations of one site's split; ``(N,)`` each, as in the rows.

    Attributes:
        kind: What it is about, as a task's ``outcome`` says: "number" or "time".
    """

    kind: str
    cases: NDArray[np.int64]
    patients: NDArray[np.int64]
    truth: Floats
    events: NDArray[np.bool_]
    estimates: Floats
    hazards: Floats
    errors: CensoredCases

    def chosen(self, some: NDArray[np.bool_]) -> "Outcomes":
        """Return some of the N examinations, by flags ``(N,)``."""
        return Outcomes(
            self.kind,
            self.cases[some],
            self.patients[some],
            self.truth[some],
            self.events[some],
            self.estimates[some],
            self.hazards[some],
            CensoredCases(*(getattr(self.errors, name)[some] for name in _ERRORS)),
        )


def read_outcomes(folder: Path, kind: str) -> Mapping[tuple[str, str, str], Outcomes]:
    """Return every model's answers by (model, site, split); empty where the run left none.

    Args:
        folder: Of a run.
        kind: "number" or "time".

    Raises:
        ValueError, TypeError, KeyError: The file is not such a table.
        OSError: It cannot be read.
    """
    rows = read_table(folder / OUTCOMES, OutcomeRow)
    grouped = groupby(rows, key=lambda row: (row.model, row.site, row.split))
    return {key: outcomes_of(list(some), kind) for key, some in grouped}


def outcomes_of(rows: Sequence[OutcomeRow], kind: str) -> Outcomes:
    """Return the rows of one model and split as arrays."""

    def column(name: str) -> Floats:
        return np.array([getattr(row, name) for row in rows], dtype=np.float64)

    return Outcomes(
        kind,
        column("case").astype(np.int64),
        column("patient").astype(np.int64),
        column("truth"),
        column("event") > 0,
        column("estimate"),
        column("hazard"),
        CensoredCases(*map(column, _ERRORS)),
    )


def outcomes_together(parts: Sequence[Outcomes]) -> Outcomes:
    """Return the examinations of several sites as one, their patients told apart."""
    patients, first = [], 0
    for part in parts:
        patients.append(part.patients + first)
        first += int(part.patients.max(initial=-1)) + 1
    return Outcomes(
        parts[0].kind,
        np.concatenate([part.cases for part in parts]),
        np.concatenate(patients),
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.events for part in parts]),
        np.concatenate([part.estimates for part in parts]),
        np.concatenate([part.hazards for part in parts]),
        CensoredCases(
            *(np.concatenate([getattr(part.errors, name) for part in parts]) for name in _ERRORS)
        ),
    )
