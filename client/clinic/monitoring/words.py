"""What was found, in words: what changed, by how much, since when, on which scanner."""

import math
from collections.abc import Sequence

from wardround.client.clinic.monitoring.comparison.evidence import OUTSIDE, Finding

_NAMED = 3  # statistics of a sentence
_MOVED = 0.05
_NAMES = {"confidence": "the model's confidence", "entropy": "the model's uncertainty"}


def sentences(findings: Sequence[Finding], level: str) -> list[str]:
    """Return what was found at a level, the surest first; image statistics are told together."""
    chosen = sorted((one for one in findings if one.level == level), key=lambda one: one.p)
    told, done = [], set[str]()
    for one in chosen:
        if not _is_of_images(one):
            told.append(_sentence(one))
        elif one.scanner not in done:
            done.add(one.scanner)
            if not (level == "notice" and _has_alarm(findings, one.scanner)):
                told.append(_images_sentence(findings, one.scanner, level))
    return told


def _is_of_images(one: Finding) -> bool:
    return one.family in ("image statistics", "images together") and one.name != OUTSIDE


def _has_alarm(findings: Sequence[Finding], scanner: str) -> bool:
    return any(f.level == "alarm" and f.scanner == scanner and _is_of_images(f) for f in findings)


def _images_sentence(findings: Sequence[Finding], scanner: str, level: str) -> str:
    """Return "The images of scanner A look different", with the statistics that moved most."""
    of = [one for one in findings if _is_of_images(one) and one.scanner == scanner]
    since = min((one.since for one in of if one.level == level), default="")
    moved = sorted((o for o in of if o.name and o.alone < _MOVED), key=lambda o: o.alone)
    apart = "; ".join(f"{one.name} is {_change(one)}" for one in moved[:_NAMED])
    more = f"; and {len(moved) - _NAMED} more" if len(moved) > _NAMED else ""
    what = f"{apart[:1].upper()}{apart[1:]}{more}." if apart else "No single statistic stands out."
    return f"The images{_of(scanner)} look different{_since(since)} ({of[0].cases} images). {what}"


def _sentence(one: Finding) -> str:
    where, since = _of(one.scanner), _since(one.since)
    if one.name == OUTSIDE:
        return (
            f"Images{where} {one.name}: {_percent(one.after)} of {one.cases}{since}; in the "
            f"reference {_percent(one.before)}."
        )
    if one.family == "predictions" and math.isnan(one.scale):
        return (
            f"The class {one.name} is found in {_percent(one.after)} of {one.cases} images{since}; "
            f"in the reference {_percent(one.before)}."
        )
    name = _NAMES.get(one.name, one.name)
    return f"{name[:1].upper()}{name[1:]} is {_change(one)}{since} ({one.cases} images)."


def _of(scanner: str) -> str:
    return f" of scanner {scanner}" if scanner else ""


def _since(period: str) -> str:
    return f", since {period}" if period else ""


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
