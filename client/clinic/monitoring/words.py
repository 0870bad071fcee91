"""What was found, in words: what changed, by how much, since when, on which scanner."""

import math
from collections.abc import Iterator, Sequence

from wardround.client.clinic.monitoring.evidence import OUTSIDE, Finding

_NAMED = 3  # statistics beside a finding about all of them


def sentences(findings: Sequence[Finding], level: str) -> list[str]:
    """Return a sentence for each finding of a level, the surest first.

    A statistic that tells the same as all together is told within that sentence.
    """
    chosen = sorted((one for one in findings if one.level == level), key=lambda one: one.p)
    together = {
        one.scanner for one in findings if one.family == "images together" and one.level != "quiet"
    }
    told = []
    for one in chosen:
        is_told = one.scanner in together and one.name != OUTSIDE and level == "notice"
        if one.family == "image statistics" and (is_told or _is_beside(one, chosen)):
            continue
        told.append(_sentence(one, findings))
    return told


def _is_beside(one: Finding, chosen: Sequence[Finding]) -> bool:
    """Whether a sentence about all statistics together tells this one at the same level."""
    scanners = {other.scanner for other in chosen if other.family == "images together"}
    return one.scanner in scanners and one.name != OUTSIDE


def _sentence(one: Finding, findings: Sequence[Finding]) -> str:
    where = f" of scanner {one.scanner}" if one.scanner else ""
    since = f", since {one.since}" if one.since else ""
    if one.family == "images together":
        apart = "; ".join(_moved(findings, one.scanner))
        what = f"{apart[:1].upper()}{apart[1:]}." if apart else "No single statistic stands out."
        return f"The images{where} look different{since} ({one.cases} images). {what}"
    if one.name == OUTSIDE or (one.family == "predictions" and math.isnan(one.scale)):
        is_outside = one.name == OUTSIDE
        what = f"Images{where} {one.name}" if is_outside else f"The class {one.name} is found in"
        verb = ": " if is_outside else " "
        return (
            f"{what}{verb}{_percent(one.after)} of {one.cases} images{since}; in the reference "
            f"{_percent(one.before)}."
        )
    name = {"confidence": "The model's confidence", "entropy": "The model's uncertainty"}.get(
        one.name, f"The {one.name}{where}" if one.family == "image statistics" else one.name
    )
    return f"{name} is {_change(one)}{since} ({one.cases} images)."


def _moved(findings: Sequence[Finding], scanner: str) -> Iterator[str]:
    """Yield the statistics that moved most, those that are sure."""
    moved = [
        one
        for one in findings
        if one.family == "image statistics"
        and one.scanner == scanner
        and one.alone < 0.05
        and one.name != OUTSIDE
    ]
    for one in sorted(moved, key=lambda one: one.alone)[:_NAMED]:
        yield f"{one.name} is {_change(one)}"


def _change(one: Finding) -> str:
    """Return "190 (reference 212, -1.3 standard deviations)"."""
    if math.isnan(one.scale) or not one.scale:
        return f"{number(one.after)} (reference {number(one.before)})"
    shift = (one.after - one.before) / one.scale
    return (
        f"{number(one.after)} (reference {number(one.before)}, {shift:+.1f} standard deviations)"
    ).replace("-", "\u2212")


def number(value: float) -> str:
    """Return a number as it is printed."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
