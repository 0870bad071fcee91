"""One way of answering on the examinations of some hospitals, put together from a run's scores."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.simulations.run_files.folder import FEDERATED, POOLED, local_model
from wardround.simulations.run_files.predictions import Key, Scores

OWN = "own"  # each hospital's examinations answered by the model of its own data alone
WAYS = (FEDERATED, OWN, POOLED)
Floats = NDArray[np.float64]
AllScores = Mapping[Key, Scores]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """N examinations with a score of each of K classes.

    Attributes:
        scores: ``(N, K)`` in [0, 1].
        labels: ``(N, K)``.
        patients: ``(N,)``; no number means two patients, over hospitals too.
        multi_label: Whether each label is a question of its own.
    """

    scores: Floats
    labels: NDArray[np.bool_]
    patients: NDArray[np.int64]
    multi_label: bool

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def asked(self) -> tuple[int, ...]:
        """The classes that are a question of their own: of two exclusive ones only the second."""
        classes = self.scores.shape[1]
        return (1,) if classes == 2 and not self.multi_label else tuple(range(classes))

    @property
    def people(self) -> int:
        """How many patients there are."""
        return len(np.unique(self.patients))

    @property
    def found(self) -> NDArray[np.bool_]:
        """``(N, K)`` what is answered: the most probable class, or every label from 0.5 on."""
        if self.multi_label:
            return self.scores >= 0.5
        return np.asarray(
            np.arange(self.scores.shape[1]) == self.scores.argmax(axis=1, keepdims=True)
        )

    def with_scores(self, scores: Floats) -> "Answers":
        """Return the same examinations with other scores, ``(N, K)``."""
        return Answers(scores, self.labels, self.patients, self.multi_label)


def answers_at(
    scores: AllScores, way: str, sites: Sequence[str], split: str, multi_label: bool
) -> Answers | None:
    """Return what one way of answering said at these hospitals; None where it said nothing.

    Args:
        scores: Of a run.
        way: ``federated``, ``own``, ``pooled`` or ``ensemble``.
        sites: Whose examinations.
        split: ``validation`` or ``test``.
        multi_label: As the study says.
    """
    parts = [part for part in parts_at(scores, way, sites, split) if len(part.scores)]
    return joined(parts, multi_label) if parts else None


def parts_at(scores: AllScores, way: str, sites: Sequence[str], split: str) -> Iterator[Scores]:
    """Yield each hospital's part of the same, where there is one."""
    for site in sites:
        part = scores.get((local_model(site) if way == OWN else way, site, split))
        if part is not None:
            yield part


def joined(parts: Sequence[Scores], multi_label: bool) -> Answers:
    """Return the examinations of several hospitals, whose patients are different people."""
    patients, first = [], 0
    for part in parts:
        patients.append(part.patients + first)
        first += int(part.patients.max(initial=-1)) + 1
    return Answers(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate(patients),
        multi_label,
    )
