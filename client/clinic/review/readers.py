"""Whether two readers agree on the cases that both have read."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import nan, sqrt

import numpy as np

from wardround.client.clinic.review.cases import Case
from wardround.client.clinic.review.masks import corrected_place, image_of, read_labels
from wardround.client.clinic.review.scores import mean_dice
from wardround.client.clinic.review.taking import Desk, is_same
from wardround.client.data.manifest.corrections import Correction
from wardround.common.statistics.agreement import Bound, cohen_kappa
from wardround.common.statistics.interval import t_quantile


@dataclass(frozen=True, slots=True)
class PairOfReaders:
    """How far two readers agree.

    Attributes:
        measure: ``kappa`` or ``Dice``.
        cases: Which both have read.
        value: With its 95 % interval.
        differ: Cases in which they say different classes; of masks those below a Dice of 0.7.
    """

    first: str
    second: str
    measure: str
    cases: int
    value: Bound
    differ: tuple[str, ...]

    def in_words(self) -> str:
        """Return it as a sentence."""
        found = self.value
        between = (
            f" (95 % interval {found.low:.2f} to {found.high:.2f})"
            if found.low == found.low
            else ""
        )
        number = f"{self.measure} {found.value:.2f}{between}"
        if found.value != found.value:
            number = f"{self.measure} cannot be told, for both say one class alone"
        apart = f"; they differ in {', '.join(self.differ[:8])}" if self.differ else ""
        return f"{self.first} and {self.second}, {self.cases} cases: {number}{apart}."


_LOW_DICE = 0.7


def compare_readers(desk: Desk) -> list[PairOfReaders]:
    """Return how far each two readers of a queue agree; empty where no case was read twice.

    What counts of each reader is what they said last.
    """
    said: dict[str, dict[str, Correction]] = {}
    for one in desk.listed.corrections.lines:
        if one.queue == desk.queue.name and one.case in desk.cases:
            said.setdefault(one.reader, {})[one.case] = one
    pairs = []
    for first, second in combinations(sorted(said), 2):
        both = sorted(said[first].keys() & said[second].keys())
        if both:
            answers = [(said[first][case], said[second][case]) for case in both]
            pairs.append(_compared(desk, (first, second), both, answers))
    return pairs


def _compared(
    desk: Desk,
    names: tuple[str, str],
    cases: Sequence[str],
    answers: Sequence[tuple[Correction, Correction]],
) -> PairOfReaders:
    if desk.study.task.column == "label":
        words = sorted({one.new.casefold() for pair in answers for one in pair})
        numbers = np.array(
            [[words.index(one.new.casefold()) for one in pair] for pair in answers], dtype=np.int64
        )
        value = cohen_kappa(numbers[:, 0], numbers[:, 1])
        differ = tuple(
            case for case, (a, b) in zip(cases, answers, strict=True) if not is_same(a.new, b)
        )
        return PairOfReaders(*names, "kappa", len(cases), value, differ)
    found = [_dice(desk, desk.cases[case], pair) for case, pair in zip(cases, answers, strict=True)]
    differ = tuple(case for case, one in zip(cases, found, strict=True) if one < _LOW_DICE)
    return PairOfReaders(*names, "Dice", len(cases), _mean(found), differ)


def _mean(values: Sequence[float]) -> Bound:
    mean = float(np.mean(values))
    if len(values) < 2:
        return Bound(mean, nan, nan)
    reach = t_quantile(len(values) - 1) * float(np.std(values, ddof=1)) / sqrt(len(values))
    return Bound(mean, max(mean - reach, 0.0), min(mean + reach, 1.0))


def _dice(desk: Desk, case: Case, pair: tuple[Correction, Correction]) -> float:
    image = image_of(case, desk.study)
    first, second = (
        read_labels(corrected_place(desk.site, one), image, desk.site, desk.study) for one in pair
    )
    return mean_dice(first, second)
