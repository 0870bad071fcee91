"""One look at a period: every test, its p-value, and its share of the false alarms of a year.

Alarms are rationed by **alpha spending**: a year without any change may have so many false alarms
as expected (a quarter of one, unless said otherwise), each period spends its part of them, and a
period's part is shared among five families of tests. That the expectation is kept follows from
Boole's inequality, whatever depends on what: also that each period is held against one reference.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wardround.client.clinic.monitoring.case import Case
from wardround.client.clinic.monitoring.comparison.joint import (
    images_p_value,
    soft_rates_p_value,
)
from wardround.client.clinic.monitoring.comparison.two_samples import ks_p_values, rates_p_value
from wardround.common.statistics.multiple import holm_p_values

Family = Literal["image statistics", "images together", "predictions", "confidence", "performance"]
SHARES: Mapping[Family, float] = {
    "image statistics": 0.02,
    "images together": 0.48,
    "predictions": 0.46,
    "confidence": 0.01,
    "performance": 0.03,
}
"""Of a period's false alarms. A single statistic that has moved is seen at any level, and labels
come seldom; a change of prevalence or of all statistics a little needs most."""
LEAST_CASES = 8
"""Of a period: fewer are looked at together with the next period's."""
NOTICE_LEVEL = 0.05
OUTSIDE = "outside what the model was made for"
LEAST_OF_SCANNER, _LEAST_NEW = 20, 5  # in the reference, and in the period
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Finding:
    """One test of a period.

    Attributes:
        name: What was tested: a statistic, a class, an output; "" for all together.
        scanner: Of whose images; "" for all.
        p: Adjusted for the other tests of the family (Holm).
        alone: The p-value of this test of the period's own cases, for when it began.
        before: Median or rate of the reference; NaN where there is none.
        after: Of the period.
        scale: Robust standard deviation of the reference; NaN for a rate.
        cases: How many of the period.
        level: "alarm" under the run-length control, "notice" at 5 % of this family alone.
        since: The first period of those in a row in which it was so.
    """

    family: Family
    name: str
    scanner: str
    p: float
    alone: float
    before: float
    after: float
    scale: float
    cases: int
    level: Literal["alarm", "notice", "quiet"] = "quiet"
    since: str = ""


@dataclass(frozen=True, slots=True)
class _Single:
    """One test before it is adjusted for the others of its family."""

    scanner: str
    name: str
    before: Floats
    after: Floats
    p: float
    is_rate: bool = False


@dataclass(frozen=True, slots=True)
class Budget:
    """What one look may spend.

    Attributes:
        alpha: The probability of a false alarm in a period.
        seed: Of the permutations.
    """

    alpha: float
    seed: str

    def limit(self, family: Family) -> float:
        """From which adjusted p-value down a family raises an alarm."""
        return self.alpha * SHARES[family]

    def permutations(self, family: Family) -> int:
        """Return how many are needed to tell p-values at the family's limit."""
        return int(min(max(2_000, 12 / self.limit(family)), 50_000))

    def generator(self, *words: str) -> np.random.Generator:
        """Return the draws of one test: the same again for the same period."""
        text = "\0".join((self.seed, *words)).encode(errors="surrogatepass")
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))

    def level_of(self, family: Family, p: float) -> Literal["alarm", "notice", "quiet"]:
        """Return what a p-value amounts to."""
        if p <= self.limit(family):
            return "alarm"
        return "notice" if p <= NOTICE_LEVEL else "quiet"


def look_at_period(
    reference: Sequence[Case], own: Sequence[Case], pooled: Sequence[Case], budget: Budget
) -> list[Finding]:
    """Return every test of a period.

    Args:
        reference: The reference cases.
        own: The period's own.
        pooled: The period's, and those of periods before it until there are enough to see a change
            of rates.
        budget: What it may spend.
    """
    return [
        *_image_findings(reference, own, budget),
        *_prediction_findings(reference, (own, pooled), budget),
        *_confidence_findings(reference, own, budget),
    ]


def strata(
    reference: Sequence[Case], own: Sequence[Case]
) -> list[tuple[str, list[Case], list[Case]]]:
    """Return what is held against what: the images of a scanner against the same scanner's.

    A scanner of which the reference has few is held against the whole reference: whoever brings it
    in should hear that its images differ.
    """
    scanners = sorted({case.scanner for case in own})
    if len(scanners) < 2 and {case.scanner for case in reference} <= set(scanners):
        return [(scanners[0] if scanners else "", list(reference), list(own))]
    found, rest = [], []
    for scanner in scanners:
        new = [case for case in own if case.scanner == scanner]
        old = [case for case in reference if case.scanner == scanner]
        known = len(old) >= LEAST_OF_SCANNER
        if not scanner or len(new) < _LEAST_NEW:
            rest += new
        else:
            found.append((scanner, old if known else list(reference), new))
    if len(rest) >= _LEAST_NEW:
        found.append(("", list(reference), rest))
    return found


def columns(cases: Sequence[Case], names: Sequence[str], of: str) -> Floats:
    """Return ``(cases, names)``: looks or outputs; NaN for what is not known."""
    rows = [[getattr(case, of).get(name, np.nan) for name in names] for case in cases]
    return np.array(rows, dtype=np.float64).reshape(len(cases), len(names))


def names_of(cases: Sequence[Case], of: str) -> list[str]:
    """Return the names of looks or outputs, in the order in which they are met."""
    return list(dict.fromkeys(name for case in cases for name in getattr(case, of)))


def rates(cases: Sequence[Case], names: Sequence[str]) -> list[int]:
    """Return how many cases each class was found in."""
    return [sum(name in case.found for case in cases) for name in names]


def has_classes(cases: Sequence[Case]) -> bool:
    """Whether each case has one class, as in a classification."""
    return all(len(case.found) == 1 for case in cases)


def _image_findings(
    reference: Sequence[Case], own: Sequence[Case], budget: Budget
) -> Iterator[Finding]:
    names = names_of(reference, "looks")
    parts = strata(reference, own)
    singles = list(_outside(reference, own, budget))
    for scanner, old, new in parts:
        singles += _columns_apart(scanner, names, (old, new), "looks")
    yield from _adjusted("image statistics", singles, budget)
    together = []
    for scanner, old, new in parts:
        kept, before, after = _complete(names, (old, new))
        generator = budget.generator("together", scanner)
        count = budget.permutations("images together")
        p = images_p_value((before, after), kept, count, generator)
        together.append(_Single(scanner, "", np.empty(0), np.empty(len(new)), p))
    yield from _adjusted("images together", together, budget)


def _complete(
    names: Sequence[str], cases: tuple[Sequence[Case], Sequence[Case]]
) -> tuple[list[str], Floats, Floats]:
    """Return the statistics that are known of most, and the rows that are known in all of these."""
    before, after = (columns(some, names, "looks") for some in cases)
    is_kept = np.isfinite(before).mean(0) > 0.5
    before, after = before[:, is_kept], after[:, is_kept]
    kept = [name for name, known in zip(names, is_kept, strict=True) if known]
    return kept, before[np.isfinite(before).all(1)], after[np.isfinite(after).all(1)]


def _prediction_findings(
    reference: Sequence[Case], looks: tuple[Sequence[Case], Sequence[Case]], budget: Budget
) -> Iterator[Finding]:
    own, pooled = looks
    classes = list(dict.fromkeys(name for case in reference for name in case.outputs))
    if has_classes([*reference, *pooled]):
        yield _class_finding(reference, looks, classes, budget)
        return
    names = names_of(reference, "outputs")
    singles = _columns_apart("", names, (reference, own), "outputs")
    yield from _adjusted("predictions", singles, budget)


def _columns_apart(
    scanner: str, names: Sequence[str], looks: tuple[Sequence[Case], Sequence[Case]], of: str
) -> "list[_Single]":
    """Return the KS test of each column."""
    before, after = (columns(cases, names, of) for cases in looks)
    found = ks_p_values(before, after).tolist()
    return [
        _Single(scanner, name, before[:, place], after[:, place], found[place])
        for place, name in enumerate(names)
    ]


def _class_finding(
    reference: Sequence[Case],
    looks: tuple[Sequence[Case], Sequence[Case]],
    classes: Sequence[str],
    budget: Budget,
) -> Finding:
    """Return the test of the rates of predicted classes (soft BBSE, Lipton et al., ICML 2018).

    The class that has moved most is named.
    """
    own, pooled = looks
    count, generator = budget.permutations("predictions"), budget.generator("classes")
    old, new = (rates(cases, classes) for cases in (reference, pooled))
    sure, sure_new, sure_now = (
        columns(some, classes, "outputs") for some in (reference, pooled, own)
    )
    p = soft_rates_p_value(sure, sure_new, count, generator)
    alone = p if len(own) == len(pooled) else soft_rates_p_value(sure, sure_now, count, generator)
    shares = [(o / len(reference), n / len(pooled)) for o, n in zip(old, new, strict=True)]
    most = max(range(len(shares)), key=lambda place: shares[place][1] - shares[place][0])
    if len(classes) == 2:
        most = 1  # of two the second is the finding
    before, after = shares[most]
    level = budget.level_of("predictions", p)
    return Finding(
        "predictions", classes[most], "", p, alone, before, after, np.nan, len(pooled), level
    )


def _outside(reference: Sequence[Case], own: Sequence[Case], budget: Budget) -> Iterator[_Single]:
    """Yield the test of how many images the model was not made for, where there are any."""
    before, after = (np.array([float(c.outside) for c in cases]) for cases in (reference, own))
    if not before.any() and not after.any():
        return
    tables = [(int(rows.sum()), int(len(rows) - rows.sum())) for rows in (before, after)]
    count, generator = budget.permutations("image statistics"), budget.generator("outside")
    p = rates_p_value(tables[0], tables[1], count, generator)
    yield _Single("", OUTSIDE, before, after, p, is_rate=True)


def _confidence_findings(
    reference: Sequence[Case], own: Sequence[Case], budget: Budget
) -> Iterator[Finding]:
    singles = []
    for name in ("confidence", "entropy"):
        before, after = (
            np.array([[getattr(case, name)] for case in cases], dtype=np.float64)
            for cases in (reference, own)
        )
        if np.isfinite(before).any():
            p = float(ks_p_values(before, after)[0])
            singles.append(_Single("", name, before[:, 0], after[:, 0], p))
    yield from _adjusted("confidence", singles, budget)


def _adjusted(family: Family, singles: Sequence["_Single"], budget: Budget) -> Iterator[Finding]:
    adjusted = holm_p_values([one.p for one in singles])
    for one, p in zip(singles, adjusted, strict=True):
        known = one.before[np.isfinite(one.before)]
        new = one.after[np.isfinite(one.after)]
        scale = np.nan
        if len(known) and not one.is_rate:
            low, high = np.percentile(known, (25, 75))
            scale = float(high - low) / 1.349 or float(known.std()) or np.nan
        middles = [np.nan, np.nan]
        if len(known) and len(new):
            rows = (known, new)
            middles = [float(v.mean() if one.is_rate else np.median(v)) for v in rows]
        yield Finding(
            family=family,
            name=one.name,
            scanner=one.scanner,
            p=p,
            alone=one.p,
            before=middles[0],
            after=middles[1],
            scale=scale,
            cases=len(one.after),
            level=budget.level_of(family, p),
        )
