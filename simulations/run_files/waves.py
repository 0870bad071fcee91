"""``waves.csv``: how good a run's model is on each wave of data, and the models that went before.

A run that goes on from another one begins with that one's rows, so that the last has all of them.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from wardround.common.files.tables import read_kept_table

WAVES = "waves.csv"
MADE, PARENT, DRAWN = "made", "parent", "drawn"  # the run's model, the one it starts from, a draw


@dataclass(frozen=True, slots=True)
class WaveRow:
    """One model on one site's test patients of one wave.

    Attributes:
        study: The digest of the run's study.
        after: The wave that the run's study learnt.
        model: ``made`` by the run; ``parent``, which it starts from; ``drawn``, untrained.
        site: Whose patients, or ``all sites`` for the sites' sums merged.
        wave: Of the patients' examinations.
        metric: The study's.
        value: NaN where it is not defined.
        support: Examinations behind it.
        patients: Whose they are; 0 where it was not counted.
        reach: Of the parent's model at a site: half of the 95 % interval of what the run's model
            gained over it; NaN where that cannot be told.
    """

    study: str
    after: int
    model: str
    site: str
    wave: int
    metric: str
    value: float
    support: int
    patients: int = 0
    reach: float = math.nan


def read_waves(folder: Path) -> tuple[WaveRow, ...]:
    """Return the rows of a run folder; none where it has none.

    Raises:
        InputError: The file is not such a table.
    """
    return tuple(read_kept_table(folder / WAVES, WaveRow))
