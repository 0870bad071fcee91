"""What the commands of 'wardround site monitor' print: periods, alarms, what could not be used."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wardround.client.clinic.monitoring.gathering import Gathered

MOST_SHOWN = 10  # of a list, in a terminal


def failed_inputs(gathered: "Gathered") -> list[dict[str, str]]:
    """Return the inputs that could not be used, and why, for ``--json``."""
    return [{"input": text, "reason": why} for text, why in gathered.failed]


def failure_lines(gathered: "Gathered") -> list[str]:
    """Return the first inputs that could not be used, and why."""
    return [f"Not used: {text}: {why}" for text, why in gathered.failed[:MOST_SHOWN]]


def entry_lines(closed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the periods that were looked at, each with its alarms and notices."""
    lines = []
    for entry in closed:
        lines.append(_summary(entry))
        lines += [f"ALARM {entry['period']}: {text}" for text in entry["alarms"]]
        lines += [f"  worth a look: {text}" for text in entry["notices"]]
    return lines


def summary_lines(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line an entry of the record."""
    return [_summary(entry) for entry in entries]


def _summary(entry: Mapping[str, Any]) -> str:
    if entry["kind"] == "closed":
        return f"{entry['at'][:10]}: {entry['account']} closed {entry['alarms']}: {entry['reason']}"
    words = {"notice": "worth a look", "too few": "too few to look at"}
    verdict = {**words, "learning": "learnt for the reference, not looked at"}.get(
        entry["verdict"], entry["verdict"]
    )
    return f"{entry['period']}: {entry['cases']} images, {verdict}."


def lacking_lines(count: int) -> list[str]:
    """Return what a new reference still lacks, in words; nothing where it is whole."""
    if not count:
        return []
    return [f"The new reference lacks {count} images: until then periods are not looked at."]


def performance_line(name: str, one: Any) -> str:
    """Return how good the model was on labelled cases.

    Args:
        one: A ``monitoring.labels.Performance``; what is NaN of it is left out.
    """
    from math import isnan

    pairs = (
        ("accuracy", one.accuracy),
        ("AUROC", one.auroc),
        ("mean loss", one.loss),
        ("calibration error", one.calibration_error),
    )
    told = ", ".join(f"{what} {value:.3f}" for what, value in pairs if not isnan(value))
    return f"{name}, {one.cases} labelled: {told}."
