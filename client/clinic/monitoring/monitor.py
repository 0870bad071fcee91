"""Monitoring as it goes: cases come in, periods end and are looked at, a person closes alarms.

A period is looked at **once**, when it is over: that is what the false alarms of a year are
rationed by. Cases that come later for it are refused.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from wardround.client.clinic.monitoring.case import Case
from wardround.client.clinic.monitoring.comparison.evidence import (
    LEAST_CASES,
    Budget,
    Finding,
    look_at_period,
)
from wardround.client.clinic.monitoring.periods import (
    PERIODS_A_YEAR,
    first_day,
    next_period,
    period_of,
)
from wardround.client.clinic.monitoring.renewal import (
    CLOSED,
    LEARNING,
    PERIOD,
    TOO_FEW,
    Entry,
    InForce,
    Renewal,
    changed_scanners,
    first_changed,
    joining,
    reference_in_force,
)
from wardround.client.clinic.monitoring.store import MonitorFolder, Reference
from wardround.client.clinic.monitoring.words import sentences
from wardround.client.policy.monitoring_word import note_look
from wardround.common.errors import InputError

POOLED_CASES, _POOLED_PERIODS = 100, 8
_FAR_AHEAD = timedelta(days=62)  # nobody closes so many periods before their time


@dataclass(frozen=True, slots=True)
class Added:
    """What became of cases that came in.

    Attributes:
        period: Of which they are.
        new: How many were written.
        known: How many were there already.
    """

    period: str
    new: int
    known: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that nobody has closed.

    Attributes:
        period: In which it was raised.
        words: A sentence a finding.
    """

    period: str
    words: tuple[str, ...]


def add_cases(
    monitor: MonitorFolder, cases: Sequence[Case], period: str = "", today: date | None = None
) -> Added:
    """Write cases of a period; those that are there already are not counted twice.

    Args:
        period: Its name; "" for the one that runs.

    Raises:
        InputError: The period has been looked at already, lies ahead, or is none.
    """
    today = today or datetime.now(UTC).date()
    with monitor.alone():
        named = _checked_period(monitor, period, today) if period else _running(monitor, today)
        held = {case.state for some in monitor.cases().values() for case in some}
        held |= {case.state for case in monitor.reference_cases()}  # they would hide any change
        new = {case.state: case for case in cases if case.state not in held}
        monitor.add_cases(named, list(new.values()))
        return Added(named, len(new), len(cases) - len(new))


def _checked_period(monitor: MonitorFolder, period: str, today: date) -> str:
    every = monitor.reference.every
    day = first_day(period, every)
    if day > today:
        msg = f"{period} lies ahead: today is {today.isoformat()}."
        raise InputError(msg)
    if closed := _looked_at(monitor.entries()):
        last = max(closed)
        if period <= last:
            msg = (
                f"{period} is over: {last} was looked at already, and a second look would cost "
                f"false alarms. Add the images to {next_period(last, every)} or later."
            )
            raise InputError(msg)
    return period


def _running(monitor: MonitorFolder, today: date) -> str:
    """Return the period that runs; the next one where this was looked at before its end."""
    every = monitor.reference.every
    named = period_of(today, every)
    closed = _looked_at(monitor.entries())
    if not closed or max(closed) < named:
        return named
    last = max(closed)
    if last > period_of(today + _FAR_AHEAD, every):
        msg = (
            f"{last} was looked at already, and today is {today.isoformat()}: the clock stood "
            "ahead then, or is behind now. Put it right; if it is, set a new reference (wardround "
            "site monitor reference)."
        )
        raise InputError(msg)
    return next_period(last, every)


def _looked_at(entries: Sequence[Entry]) -> list[str]:
    return [str(entry["period"]) for entry in entries if entry["kind"] == PERIOD]


def close_periods(
    monitor: MonitorFolder, until: str = "", today: date | None = None
) -> list[dict[str, Any]]:
    """Look at every period that is over and was not looked at, in order; return what was found.

    Args:
        until: A period that is looked at too, though the calendar says that it still runs.

    Raises:
        InputError: There are no cases of that period, or it was looked at.
    """
    every = monitor.reference.every
    now = datetime.now(UTC)
    today = today or now.date()
    with monitor.alone():
        cases, entries = monitor.cases(), monitor.entries()
        closed = set(_looked_at(entries))
        if until:
            first_day(until, every)
            if until in closed:
                msg = f"{until} was looked at already: wardround site monitor status shows it."
                raise InputError(msg)
            if until not in cases:
                known = ", ".join(sorted(set(cases) - closed)[-5:]) or "none"
                msg = f"there are no images of {until}. There are of: {known}."
                raise InputError(msg)
        last = until or period_of(today, every)
        over = sorted(p for p in cases if p not in closed and (p < last or p == until))
        found = []
        reference = monitor.reference_cases() if over else ()
        rules = Rules(alpha_of(monitor.reference), monitor.reference.digest)
        for period in over:
            entry = look_back(reference, (period, cases), monitor.entries(), rules)
            entry["at"] = now.isoformat(timespec="seconds")
            monitor.add_entry(entry)
            if entry["verdict"] not in (LEARNING, TOO_FEW):
                note_look(monitor.folder.parent, period, entry["verdict"] == "alarm")
            found.append(entry)
        return found


@dataclass(frozen=True, slots=True)
class Rules:
    """What a look at a period needs beside the cases.

    Attributes:
        alpha: The probability of a false alarm that it may have.
        seed: Of its permutations.
    """

    alpha: float
    seed: str


def look_back(
    reference: Sequence[Case],
    named: tuple[str, Mapping[str, Sequence[Case]]],
    entries: Sequence[Entry],
    rules: Rules,
) -> dict[str, Any]:
    """Return what is found in a period, as its entry holds it; nothing is written.

    Args:
        reference: As it was set.
        named: The period, and the cases of all periods.
        entries: What was found before.
    """
    period, cases = named
    held = reference_in_force(reference, cases, entries)
    carried = _carried(entries)
    own = [case for name in (*carried, period) for case in cases.get(name, ())]
    entry: dict[str, Any] = {
        "kind": PERIOD,
        "period": period,
        "with": list(carried),
        "cases": len(own),
        "scanners": _counts(own),
        "alpha": rules.alpha,
        "findings": [],
        "alarms": [],
        "notices": [],
    }
    if held.lacking:
        return {**entry, "verdict": LEARNING}
    if len(own) < LEAST_CASES:
        return {**entry, "verdict": TOO_FEW}
    pooled = _pooled(own, cases, entries)
    found = [
        replace(one, since=_since(one, period, entries))
        for one in look_at_period(
            held.cases, own, pooled, Budget(rules.alpha, f"{rules.seed} {period}")
        )
    ]
    return {**entry, **judged(found, _new_scanners(held.cases, own))}


def judged(found: Sequence[Finding], notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return findings as an entry holds them, with what they amount to."""
    alarms = sentences(found, "alarm")
    notices = [*notes, *sentences(found, "notice")]
    verdict = "alarm" if alarms else "notice" if notices else "quiet"
    return {
        "verdict": verdict,
        "findings": [_as_json(one) for one in found],
        "alarms": alarms,
        "notices": notices,
    }


def alpha_of(reference: Reference) -> float:
    """Return the probability of a false alarm that a period may have."""
    return reference.alarms_a_year / PERIODS_A_YEAR[reference.every]


def _carried(entries: Sequence[Entry]) -> list[str]:
    """Return the periods just before that had too few cases to be looked at."""
    found: list[str] = []
    for entry in reversed(entries):
        if entry["kind"] == PERIOD and entry["verdict"] == TOO_FEW:
            found.insert(0, str(entry["period"]))
        elif entry["kind"] == PERIOD:
            break
    return found


def _pooled(
    own: Sequence[Case], cases: Mapping[str, Sequence[Case]], entries: Sequence[Entry]
) -> list[Case]:
    """Return the cases with those of periods before until there are enough for rates.

    What lies before an alarm, or before a person closed one, is another time.
    """
    pooled = list(own)
    for entry in list(reversed(entries))[:_POOLED_PERIODS]:
        if len(pooled) >= POOLED_CASES or entry["kind"] == CLOSED:
            break
        if entry["kind"] != PERIOD or entry["verdict"] == TOO_FEW:
            continue
        if entry["verdict"] == "alarm":
            break
        for name in (entry["period"], *entry["with"]):
            pooled += cases.get(name, ())
    return pooled


def _since(one: Finding, period: str, entries: Sequence[Entry]) -> str:
    """Return the first period of those in a row in which this test pointed the same way."""
    since = period
    for entry in reversed(entries):
        if entry.get("reference", "keep") != "keep":
            break  # before it, images were held against others
        if entry["kind"] != PERIOD or entry["verdict"] == TOO_FEW:
            continue
        before = next((found for found in _findings(entry) if _same(one, found)), None)
        if before is None or before.alone > 0.05:
            break
        up, was_up = one.after > one.before, before.after > before.before
        if one.name and up != was_up:
            break
        since = str(entry["period"])
    return since


def _same(one: Finding, other: Finding) -> bool:
    return (one.family, one.name, one.scanner) == (other.family, other.name, other.scanner)


def _findings(entry: Entry) -> Iterator[Finding]:
    for content in entry["findings"]:
        yield finding_from_json(content)


def finding_from_json(content: Mapping[str, Any]) -> Finding:
    """Return a finding of an entry."""
    numbers = {name: content[name] for name in ("before", "after", "scale")}
    known = {name: math.nan if value is None else value for name, value in numbers.items()}
    return Finding(**{**content, **known})


def _as_json(one: Finding) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(one).items()
    }


def _counts(cases: Sequence[Case]) -> dict[str, int]:
    found: dict[str, int] = {}
    for case in cases:
        found[case.scanner] = found.get(case.scanner, 0) + 1
    return dict(sorted(found.items()))


def _new_scanners(reference: Sequence[Case], own: Sequence[Case]) -> list[str]:
    known = _counts(reference)
    return [
        f"The scanner {name} is new: {count} images, and none in the reference."
        for name, count in _counts(own).items()
        if name and name not in known
    ]


def open_alarms(entries: Sequence[Entry]) -> list[Alarm]:
    """Return the alarms that nobody has closed, the oldest first."""
    found: list[Alarm] = []
    for entry in entries:
        if entry["kind"] == CLOSED:
            found = []
        elif entry["verdict"] == "alarm":
            found.append(Alarm(str(entry["period"]), tuple(entry["alarms"])))
    return found


def in_force(monitor: MonitorFolder) -> InForce:
    """Return what the next period of a folder is held against."""
    return reference_in_force(monitor.reference_cases(), monitor.cases(), monitor.entries())


def close_alarms(
    monitor: MonitorFolder, reason: str, account: str, renewal: Renewal = "keep"
) -> int:
    """Write down that a person has looked at the open alarms; return how many there were.

    Args:
        renewal: What becomes of the reference: :mod:`wardround.client.clinic.monitoring.renewal`.

    Raises:
        InputError: No alarm is open, no reason is given, or the alarm is one of labels alone.
    """
    reason = " ".join(reason.split())[:500]
    if not reason:
        msg = "say what was found out: --reason 'the new scanner, calibrated on Tuesday'."
        raise InputError(msg)
    with monitor.alone():
        entries = monitor.entries()
        alarms = open_alarms(entries)
        if not alarms:
            msg = "no alarm is open: there is nothing to close."
            raise InputError(msg)
        since = first_changed(entries)
        if renewal == "renew" and not since:
            msg = (
                "the open alarm is about labels, and a reference is of images: close it with "
                "--reference keep."
            )
            raise InputError(msg)
        monitor.add_entry(
            {
                "kind": CLOSED,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "reason": reason,
                "account": account,
                "alarms": len(alarms),
                "reference": renewal,
                "scanners": changed_scanners(entries),
                "joined": joining(entries, renewal, since),
            }
        )
    return len(alarms)
