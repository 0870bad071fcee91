"""Which part each new patient of a site gets: drawn with a key, and near its share in each class.

Counts are rounded at random and not by largest remainders: what is rounded by a rule can be worked
out by whoever writes the study, who could then choose shares that make a lone new patient, or the
only one of a class, a test patient for certain. Rounded at random, a patient is in a part with the
part's share as probability, whatever the others are.
"""

import hmac
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TypeAlias

from wardround.client.data.manifest.examination import SPLITS, SplitName
from wardround.client.tasks.task import Label
from wardround.common.study.study import Study

Shares: TypeAlias = Mapping[SplitName, float]
"""The share of each part; they add up to 1."""
Stratum: TypeAlias = tuple[float, ...]
"""What the patients of a stratum have in common: a class, or nothing."""

_PLACES = 2**48  # fractions of so many bits are exact in a float
_UNITS = 10**9  # of one patient: quotas are added up in whole numbers
_HALVINGS = 64  # more than the bits of a float


def shares_of(study: Study) -> dict[SplitName, float]:
    """Return the share of each part that a study asks for."""
    validation, test = study.evaluation.validation_fraction, study.evaluation.test_fraction
    return {"train": 1 - validation - test, "validation": validation, "test": test}


def stratify(patients: Iterable[tuple[str, Label | None]], study: Study) -> dict[str, Stratum]:
    """Return the stratum of each patient: the class with the fewest patients among its own.

    Args:
        patients: A pair an examination: its patient, and its label, None where there is none.
        study: Says whether a label is one class or one 0/1 a class.
    """
    classes: dict[str, set[Stratum]] = {}
    for patient, label in patients:
        classes.setdefault(patient, set()).update(_classes(label, study))
    counts = Counter(one for held in classes.values() for one in held)
    return {
        patient: min(held, key=lambda one: (counts[one], one), default=())
        for patient, held in classes.items()
    }


def _classes(label: Label | None, study: Study) -> list[Stratum]:
    if label is None:
        return []
    if study.data.multi_label:
        return [(float(index),) for index, present in enumerate(label) if present]
    return [tuple(float(number) for number in label)]


def draw_parts(
    strata: Mapping[str, Stratum], shares: Shares, key: bytes, lacking: Collection[SplitName] = ()
) -> dict[str, SplitName]:
    """Return the part of each of these patients, drawn among themselves.

    Each part gets its share of all of them and of each stratum, up to rounding. A stratum with at
    least a patient for each part that is asked for is in each of them, as long as the parts have
    room for all such strata; so is a class of three patients in a site of 14.

    Args:
        strata: Stratum of each patient, by a name that nobody can guess without the key.
        shares: A part whose share is 0 gets nobody.
        key: The same key, patients and shares give the same parts.
        lacking: Parts that have nobody yet: each gets one, where there are patients enough.
    """
    if not strata:
        return {}
    draw = _Draw(key, sorted(strata))
    totals = _totals(len(strata), shares, lacking, draw.fraction("totals"))
    members: dict[Stratum, list[str]] = {}
    for patient in sorted(strata, key=draw.fraction):
        members.setdefault(strata[patient], []).append(patient)
    groups = [members[stratum] for stratum in sorted(members)]
    parts: dict[str, SplitName] = {}
    for group, (held_out, test) in zip(groups, _counts(groups, totals, draw), strict=True):
        for place, patient in enumerate(group):
            rest: SplitName = "validation" if place < held_out else "train"
            parts[patient] = "test" if place < test else rest
    return parts


class _Draw:
    """Numbers in [0, 1) that follow from a key and the patients who are drawn."""

    def __init__(self, key: bytes, patients: Sequence[str]) -> None:
        self._key = hmac.digest(key, "\n".join(patients).encode(), "sha256")

    def fraction(self, word: str) -> float:
        """Return the number of a word; the same word, the same number."""
        return int.from_bytes(hmac.digest(self._key, word.encode(), "sha256")[:6], "big") / _PLACES


def _totals(
    patients: int, shares: Shares, lacking: Collection[SplitName], offset: float
) -> dict[SplitName, int]:
    """Return how many of the patients each part gets."""
    asked = [part for part in SPLITS if shares[part] > 0]
    enough = patients >= len(asked)
    lows = [int(enough and part in asked and part in lacking) for part in SPLITS]
    counts = spread(patients, [shares[part] for part in SPLITS], lows, [patients] * 3, offset)
    return dict(zip(SPLITS, counts, strict=True))


def _counts(
    groups: Sequence[Sequence[str]], totals: Mapping[SplitName, int], draw: _Draw
) -> list[tuple[int, int]]:
    """Return how many of each stratum are not trained on, and how many of these are tested on."""
    sizes, test = [len(group) for group in groups], totals["test"]
    held_out = totals["validation"] + test
    asked = [part for part in SPLITS if totals[part]]
    large = [size >= len(asked) for size in sizes]
    covered = all(totals[part] >= sum(large) for part in asked)
    in_each = [one and covered for one in large]  # these strata are in each part
    aside = spread(
        held_out,
        sizes,
        [len(asked) - 1 if one else 0 for one in in_each],
        [size - int(one) for one, size in zip(in_each, sizes, strict=True)],
        draw.fraction("held out"),
    )
    both = totals["validation"] > 0 and test > 0
    tested = spread(
        test,
        aside,
        [int(one and both) for one in in_each],
        [size - int(one and both) for one, size in zip(in_each, aside, strict=True)],
        draw.fraction("test"),
    )
    return list(zip(aside, tested, strict=True))


def spread(
    total: int,
    weights: Sequence[float],
    lows: Sequence[int],
    highs: Sequence[int],
    offset: float,
) -> list[int]:
    """Return whole numbers that add up to a total, near proportional to weights within bounds.

    The exact quotas are ``weight * c`` cut to the bounds, with the c for which they add up to the
    total. A number is its quota rounded up or down, and over a uniform offset its mean is the quota
    (systematic sampling, Madow 1949).

    Args:
        total: Between the sums of the bounds.
        weights: Not negative; where one is 0, so is its lower bound.
        lows: Lower bounds.
        highs: Upper bounds.
        offset: In [0, 1).
    """
    units = _quotas(total, weights, lows, highs)
    ends = [(end + int(offset * _UNITS)) // _UNITS for end in accumulate(units)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _quotas(
    total: int, weights: Sequence[float], lows: Sequence[int], highs: Sequence[int]
) -> list[int]:
    """Return the quotas in units of 1e-9, so that they add up to the total exactly."""

    def cut(factor: float) -> list[float]:
        bounds = zip(weights, lows, highs, strict=True)
        return [min(max(weight * factor, low), high) for weight, low, high in bounds]

    smallest = min((weight for weight in weights if weight > 0), default=1.0)
    least, most = 0.0, (max(highs) + 1) / smallest
    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        if sum(cut(middle)) < total:
            least = middle
        else:
            most = middle
    units = [round(quota * _UNITS) for quota in cut(most)]
    rest = total * _UNITS - sum(units)
    if rest:  # to one that is between its bounds, so that none leaves them
        units[max(range(len(units)), key=lambda place: units[place] % _UNITS)] += rest
    return units
