"""Numbers of the sections of evidence as they are printed."""

import math
from collections.abc import Sequence

from wardround.common.statistics.interval import Interval
from wardround.simulations.report.charts.tables import Cell
from wardround.simulations.report.wording import number


def interval_cell(found: Interval, note: str = "") -> Cell:
    """Return a value with its interval below it."""
    if math.isnan(found.value):
        return Cell("–", note)
    if not found.is_known:
        return Cell(number(found.value), note or "no interval: too few patients")
    # Not broken between lines, so that a row stays low on a narrow page.
    return Cell(number(found.value), f"{number(found.low)}\u00a0to\u00a0{number(found.high)}")


def percent(share: float) -> str:
    """Return a share as read: ``83 %``, ``0.4 %``; an en dash for NaN."""
    if math.isnan(share):
        return "–"
    value = 100 * share
    near = 0 < value < 1 or 99 < value < 100
    return f"{value:.1f}\u00a0%" if near else f"{value:.0f}\u00a0%"


def out_of_100(found: Interval, of: str = "") -> str:
    """Return a share as a sentence has it: ``91 of 100 cases (95\u00a0% interval 88 to 94)``."""
    said = f"{_count(found.value)} of 100{' ' if of else ''}{of}"
    if not found.is_known:
        return f"{said} (too few patients for an interval)"
    return f"{said} (95\u00a0% interval {_count(found.low)} to {_count(found.high)})"


def listed(words: Sequence[str]) -> str:
    """Return words as a sentence lists them."""
    return ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else "".join(words)


def plural(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun."""
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


def _count(share: float) -> str:
    return percent(share).removesuffix("\u00a0%")
