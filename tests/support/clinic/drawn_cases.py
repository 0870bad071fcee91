"""Cases without images or a model: numbers that are drawn."""

from collections.abc import Sequence

import numpy as np

from wardround.client.clinic.monitoring.case import Case
from wardround.client.clinic.monitoring.store import Reference

CLASSES = ("normal", "abnormal")


def drawn_cases(
    count: int,
    seed: int,
    *,
    shift: float = 0.0,
    rate: float = 0.5,
    scanners: Sequence[str] = ("",),
    classes: Sequence[str] = CLASSES,
) -> list[Case]:
    """Return cases with three image statistics and a class.

    Args:
        shift: Standard deviations that the statistic "mean" is moved by.
        rate: Of the second class.
        scanners: One after the other.
    """
    draw = np.random.default_rng(seed)
    found = []
    for place in range(count):
        mean, noise, other = draw.normal(size=3).tolist()
        is_second = float(draw.random() < rate)
        sure = 0.7 + 0.3 * draw.random()
        p = sure if is_second else 1 - sure
        looks = {"mean": mean + shift, "noise": noise, "spread": other + 0.5 * mean}
        said = {classes[0]: 1 - p, classes[1]: p}
        found.append(
            Case(
                *(f"k{seed}-{place}", f"s{seed}-{place}", scanners[place % len(scanners)]),
                *(looks, said, (classes[int(is_second)],), max(p, 1 - p), 4 * p * (1 - p)),
            )
        )
    return found


def reference_of(digest: str, created: str) -> Reference:
    """Return what a reference of these cases says of itself.

    Args:
        digest: Of the model folder.
        created: ISO 8601.
    """
    return Reference(
        model="tiny",
        digest=digest,
        folder="models/tiny",
        study="tiny",
        task="classification",
        classes=CLASSES,
        multi_label=False,
        every="week",
        alarms_a_year=0.25,
        created=created,
    )
