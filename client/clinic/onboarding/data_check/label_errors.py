"""Labels that are probably wrong, by confident learning: a hint, and no verdict.

A small model of the site's own data (a ridge-penalised multinomial regression on the small pictures
and intensities) is trained five times, each time without a fifth of the patients, and asked about
those. An examination is suspect where the model is as sure of another class as it is, on average,
of the examinations that carry that class's label (C. Northcutt, L. Jiang, I. Chuang: Confident
Learning, JAIR 70, 2021: off the diagonal of the confident joint), surer than of its own, and surer
than :data:`SURE`, so that a model which knows little says little.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wardround.client.clinic.onboarding.data_check.findings import Suspect

FOLDS = 5
SURE = 0.7
FEWEST = 10  # patients of a class: two a fold
_COMPONENTS = 40
_RIDGE = 0.02
_STEPS = 100
_SEED = 0
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """What the labels are held against.

    Attributes:
        features: ``(N, D)``.
        labels: Of N examinations.
        patients: Of N examinations; all of one patient are left out together.
    """

    rows: tuple[int, ...]
    features: Array
    labels: tuple[str, ...]
    patients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelHints:
    """What was found.

    Attributes:
        suspects: The surest first.
        accuracy: Of the model on patients that it had not seen: of a model that knows nothing, its
            doubts are worth nothing.
        chance: Of always saying the largest class.
        classes: Those that have patients enough.
    """

    suspects: tuple[Suspect, ...]
    accuracy: float
    chance: float
    classes: tuple[str, ...]


def find_label_errors(data: Labelled) -> LabelHints | None:
    """Return the examinations whose label is probably wrong; None where there are too few.

    Args:
        data: Of a classification into one class an examination.
    """
    counted = {name: set[str]() for name in data.labels}
    for name, patient in zip(data.labels, data.patients, strict=True):
        counted[name].add(patient)
    classes = tuple(sorted(name for name, held in counted.items() if len(held) >= FEWEST))
    kept = [place for place, name in enumerate(data.labels) if name in classes]
    if len(classes) < 2:
        return None
    targets = np.array([classes.index(data.labels[place]) for place in kept])
    folds = _folds(targets, [data.patients[place] for place in kept])
    chances = _cross_validated(data.features[kept], targets, folds, len(classes))
    suspects = _off_the_diagonal(chances, targets)
    shown = tuple(
        Suspect(
            data.rows[kept[place]],
            (classes[targets[place]], float(chances[place, targets[place]])),
            (classes[other], float(chances[place, other])),
        )
        for place, other in suspects
    )
    accuracy = float((chances.argmax(axis=1) == targets).mean())
    chance = float(np.bincount(targets).max() / len(targets))
    return LabelHints(shown, accuracy, chance, classes)


def _folds(targets: NDArray[np.int64], patients: Sequence[str]) -> NDArray[np.int64]:
    """Return the fold of each examination: by patient, and each class in all of them."""
    first: dict[str, int] = {}
    for patient, target in zip(patients, targets.tolist(), strict=True):
        first.setdefault(patient, target)
    names = sorted(first)
    order = np.random.default_rng(_SEED).permutation(len(names)).tolist()
    by_class = sorted(order, key=lambda place: first[names[place]])  # stable: drawn within a class
    fold_of = {names[place]: number % FOLDS for number, place in enumerate(by_class)}
    return np.array([fold_of[patient] for patient in patients])


def _cross_validated(
    features: Array, targets: NDArray[np.int64], folds: NDArray[np.int64], classes: int
) -> Array:
    """Return ``(N, K)``: how probable a model finds each class that had not seen the patient."""
    chances = np.zeros((len(targets), classes))
    for fold in range(FOLDS):
        away = folds == fold
        if away.any():
            basis = _Basis(features[~away])
            weights = _fit(basis.of(features[~away]), targets[~away], classes)
            scores = torch.from_numpy(basis.of(features[away])) @ weights[:-1] + weights[-1]
            chances[away] = torch.softmax(scores, dim=1).numpy()
    return chances


class _Basis:
    """Scaled features in their directions of most variance, from the training folds alone."""

    def __init__(self, features: Array) -> None:
        self._middle = features.mean(axis=0)
        self._scale = features.std(axis=0)
        self._scale[self._scale == 0] = 1.0
        scaled = torch.from_numpy((features - self._middle) / self._scale)
        count = min(_COMPONENTS, *scaled.shape)
        torch.manual_seed(_SEED)
        _, sizes, directions = torch.svd_lowrank(scaled, q=count, niter=4)
        spread = sizes / max(1.0, len(features)) ** 0.5
        self._directions = (directions / spread.clamp(min=1e-6)).numpy()

    def of(self, features: Array) -> Array:
        """Return ``(N, components)``, each of variance 1 in training."""
        projected: Array = ((features - self._middle) / self._scale) @ self._directions
        return np.clip(projected, -6.0, 6.0)


def _fit(features: Array, targets: NDArray[np.int64], classes: int) -> torch.Tensor:
    """Return ``(D + 1, K)`` weights of a multinomial regression, the intercept last."""
    inputs, wanted = torch.from_numpy(features), torch.from_numpy(targets)
    weights = torch.zeros((features.shape[1] + 1, classes), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        scores = inputs @ weights[:-1] + weights[-1]
        total = torch.nn.functional.cross_entropy(scores, wanted)
        total = total + _RIDGE * weights[:-1].square().sum()
        total.backward()  # type: ignore[no-untyped-call] # torch's own
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call] # torch's own
    return weights.detach()


def _off_the_diagonal(chances: Array, targets: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return examinations with the class that they are confidently counted to, the surest first."""
    classes = chances.shape[1]
    sure = np.array([chances[targets == k, k].mean() for k in range(classes)])
    confident = np.where((chances >= sure) & (chances >= SURE), chances, -1.0)
    other = confident.argmax(axis=1)
    own = chances[np.arange(len(targets)), targets]
    margin = chances[np.arange(len(targets)), other] - own
    doubtful = (confident.max(axis=1) >= 0) & (other != targets) & (margin > 0)
    places = np.flatnonzero(doubtful)
    return [(int(p), int(other[p])) for p in places[np.argsort(-margin[places], kind="stable")]]
