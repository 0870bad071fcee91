"""The reference as it is in force: as it was set, extended or renewed by who closed an alarm.

Whoever closes an alarm says what it was. Nothing had changed: the images since then are more of
the same, and a reference that was unlucky is less so (**extend**). The change will stay: the images
since it began are the new reference, and with those of the periods that follow until there are
enough (**renew**). Or neither (**keep**). All of it follows from the table of periods, which is
only appended to: nothing is overwritten, and the reference that was set is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from wardround.client.clinic.monitoring.case import Case
from wardround.common.errors import InputError, known_names

Renewal = Literal["keep", "extend", "renew"]
RENEWALS: tuple[Renewal, ...] = get_args(Renewal)
PERIOD, CLOSED, LABELS = "period", "closed", "labels"
LEARNING, TOO_FEW = "learning", "too few"
ENOUGH = 100
"""Images of a renewed reference; until there are so many, periods are learnt and not looked at."""
Entry = Mapping[str, Any]
Cases = Mapping[str, Sequence[Case]]


@dataclass(frozen=True, slots=True)
class InForce:
    """What a period is held against.

    Attributes:
        lacking: How many images a renewed reference still lacks; 0 if none.
    """

    cases: list[Case]
    lacking: int


def renewal_named(text: str) -> Renewal:
    """Return what becomes of the reference, by name.

    Raises:
        InputError: There is no such name.
    """
    for known in RENEWALS:
        if text == known:
            return known
    raise InputError(known_names("way to treat the reference", text, RENEWALS))


def reference_in_force(
    reference: Sequence[Case], cases: Cases, entries: Sequence[Entry]
) -> InForce:
    """Return what the next period is held against.

    Args:
        reference: As it was set.
        cases: Of all periods.
        entries: The table so far.
    """
    current, lacking = list(reference), 0
    for entry in entries:
        if entry["kind"] == CLOSED:
            new = [case for name in entry.get("joined", ()) for case in cases.get(name, ())]
            if entry.get("reference", "keep") == "renew":
                current = [case for case in current if _stays(case, entry["scanners"])]
                new = [case for case in new if not _stays(case, entry["scanners"])]
                lacking = max(ENOUGH - len(new), 0)
            current += new
        elif entry["kind"] == PERIOD and entry["verdict"] == LEARNING:
            new = [case for name in periods_of(entry) for case in cases.get(name, ())]
            current += new
            lacking = max(lacking - len(new), 0)
    return InForce(current, lacking)


def _stays(case: Case, scanners: Sequence[str]) -> bool:
    """Return whether a change of these scanners, of none for all, leaves a case as it is."""
    return bool(scanners) and case.scanner not in scanners


def periods_of(entry: Entry) -> tuple[str, ...]:
    """Return the periods whose images were looked at together."""
    return (*entry["with"], str(entry["period"]))


def joining(entries: Sequence[Entry], renewal: Renewal, since: str) -> list[str]:
    """Return the periods whose images join the reference, by who closes the open alarms.

    Args:
        since: When what was found began: a renewed reference begins there.
    """
    if renewal == "keep":
        return []
    done = {
        name for entry in entries if entry["kind"] == CLOSED for name in entry.get("joined", ())
    }
    found = [
        name
        for entry in entries
        if entry["kind"] == PERIOD and entry["verdict"] != LEARNING
        for name in periods_of(entry)
    ]
    if renewal == "renew":
        return [name for name in found if name >= since]
    begin = _last_renewal(entries)
    return [name for name in found if name not in done and name >= begin]


def _last_renewal(entries: Sequence[Entry]) -> str:
    """Return the first period of the last renewal; "" where there was none."""
    begins = [e["joined"][0] for e in entries if e.get("reference") == "renew" and e["joined"]]
    return str(begins[-1]) if begins else ""


def changed_scanners(entries: Sequence[Entry]) -> list[str]:
    """Return the scanners that the open alarms name; none where they are about all images."""
    found: list[str] = []
    for entry in entries:
        if entry["kind"] == CLOSED:
            found = []
        elif entry["verdict"] == "alarm":
            found += [one["scanner"] for one in entry["findings"] if one["level"] == "alarm"]
    return [] if "" in found else sorted(set(found))


def first_changed(entries: Sequence[Entry]) -> str:
    """Return since when the open alarms have been so; "" where none is open."""
    found: list[str] = []
    for entry in entries:
        if entry["kind"] == CLOSED:
            found = []
        elif entry["kind"] == PERIOD and entry["verdict"] == "alarm":
            alarms = [one for one in entry["findings"] if one["level"] == "alarm"]
            found += [str(one["since"] or entry["period"]) for one in alarms]
    return min(found, default="")
