"""``contributions.csv``: what each site's updates did to the federated model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wardround.common.files.tables import read_table

CONTRIBUTIONS = "contributions.csv"


@dataclass(frozen=True, slots=True)
class ContributionRow:
    """One site's part in how much better the federated model is than the untrained one.

    Attributes:
        rounds: From the first on, whose updates were kept.
        split: Whose patients the metric is of: ``validation``, or ``test`` where there are none.
        patients: How many, of all sites together.
        start: Value of the metric before the first round.
        end: And after the last of these rounds.
        leave_one_out: How much worse the model is whose rounds are aggregated without the site;
            positive is a site that helps, whatever the metric's direction.
        shapley: Its share of the whole improvement; all sites' shares add up to it.
        error: Standard error of a share that was estimated from drawn orders; 0 where exact.
        method: ``exact`` over all subsets, or ``sampled`` orders.
    """

    site: str
    rounds: int
    split: str
    patients: int
    start: float
    end: float
    leave_one_out: float
    shapley: float
    error: float
    method: str


Method = Literal["exact", "sampled"]


def read_contributions(folder: Path) -> tuple[ContributionRow, ...]:
    """Return the rows of a run; empty where it has none.

    Raises:
        ValueError, TypeError, KeyError: The file is not such a table.
        OSError: It cannot be read.
    """
    return tuple(read_table(folder / CONTRIBUTIONS, ContributionRow))
