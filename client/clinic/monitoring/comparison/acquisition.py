"""What a changed tone curve or gain would do to image statistics: the directions worth a look.

Images are seldom darker for no reason: a detector's tone curve (gamma) or its gain has moved, and
either moves all statistics in a known proportion. A test in that direction is far more powerful
than one in all directions. The proportion is worked out from the percentiles of the images
themselves, so that nothing else needs to be known of them.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_CURVES: Mapping[str, Callable[[Floats], Floats]] = {
    "tone curve": lambda grey: grey**1.2,
    "gain": lambda grey: 0.9 * grey,
}
"""Of grey values from 0 to 1; how far is of no matter, for a test looks both ways."""
_KNOWN = ("darkest 1 %", "median", "brightest 1 %", "peak")
_KNOTS = (0.01, 0.5, 0.99, 0.999)
_LEVELS = np.linspace(0.005, 0.995, 100)
_FIFTH, _MIDDLE, _LAST = 5, 50, 94  # of these levels: the 5th, the 50th and the 95th percentile


def acquisition_shifts(rows: Floats, names: Sequence[str]) -> dict[str, Floats]:
    """Return by how much each statistic would move on average, ``(F,)``, by the change.

    Args:
        rows: ``(N, F)`` finite statistics of images as they were measured.
        names: Of the columns; a channel's have its name before them.

    Returns:
        By the change's name; nothing where the columns are no statistics of images.
    """
    befores = [name.removesuffix(_KNOWN[-1]) for name in names if name.endswith(_KNOWN[-1])]
    channels = [{n: names.index(f"{b}{n}") for n in _OWN if f"{b}{n}" in names} for b in befores]
    whole = [places for places in channels if {*_KNOWN, "mean", "spread"} <= places.keys()]
    if not whole:
        return {}
    shifts = {}
    for what, curve in _CURVES.items():
        shift = np.zeros(len(names))
        for places in whole:
            for name, moved in _moved({n: rows[:, at] for n, at in places.items()}, curve).items():
                shift[places[name]] = moved
        if shift.any():
            shifts[what] = shift
    return shifts


_OWN = (*_KNOWN, "mean", "spread", "noise", "balance")


def _moved(known: Mapping[str, Floats], curve: Callable[[Floats], Floats]) -> dict[str, float]:
    """Return how far each statistic of a channel moves on average."""
    low, high = float(known[_KNOWN[0]].min()), float(known[_KNOWN[-1]].max())
    if high <= low:
        return {}

    def bend(values: Floats) -> Floats:
        return low + (high - low) * curve(np.clip((values - low) / (high - low), 0, 1))

    knots = np.stack([known[name] for name in _KNOWN], axis=1)
    old = np.array([np.interp(_LEVELS, _KNOTS, row) for row in knots])
    new = bend(old)
    spread = old.std(1)
    wider = new.std(1) / np.where(spread > 0, spread, 1.0)
    found = {name: bend(known[name]) - known[name] for name in _KNOWN}
    found["mean"] = new.mean(1) - old.mean(1)
    found["spread"] = known["spread"] * (wider - 1)
    if "noise" in known:
        found["noise"] = known["noise"] * (wider - 1)
    if "balance" in known:
        found["balance"] = _balance(new) - _balance(old)
    return {name: float(values.mean()) for name, values in found.items()}


def _balance(levels: Floats) -> Floats:
    width = levels[:, _LAST] - levels[:, _FIFTH]
    found: Floats = (levels[:, _MIDDLE] - levels[:, _FIFTH]) / np.where(width > 0, width, 1.0)
    return found
