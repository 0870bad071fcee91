"""Numbers of a live page in words: values, amounts, durations, times."""

import math
from datetime import UTC, datetime

from wardround.common.study.registry import METRICS

NOTHING = "–"


def metric_title(metric: str) -> str:
    """Return what a column calls a metric."""
    return METRICS[metric].title if metric in METRICS else metric


def number(value: float) -> str:
    """Return a measured value as printed, a dash for none."""
    return NOTHING if math.isnan(value) else f"{value:.4f}"


def bytes_words(count: int) -> str:
    """Return an amount of data in words."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B" if count else NOTHING


def seconds_words(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s"


def clock(time: float) -> str:
    """Return a time of the day."""
    return f"{datetime.fromtimestamp(time, UTC):%H:%M} UTC"
