"""``groups.csv``: in which group each examination of a run is, by what the study asks for.

It names an examination by its row of the site's manifest, and stays in the run folder: no message
carries it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wardround.common.files.tables import read_kept_table

GROUPS = "groups.csv"


@dataclass(frozen=True, slots=True)
class GroupRow:
    """The group of one examination by one grouping.

    Attributes:
        split: ``validation`` or ``test``.
        case: The row of the site's manifest, as in ``predictions.csv``.
        grouping: E.g. ``sex``.
        group: E.g. ``female``, or ``missing``.
    """

    site: str
    split: str
    case: int
    grouping: str
    group: str


Place = tuple[str, str]  # site, split


def read_groups(folder: Path) -> Mapping[str, Mapping[Place, Mapping[int, str]]]:
    """Return by each grouping the group of each examination by place and row; may be empty.

    Raises:
        InputError: The file is not such a table.
    """
    found: dict[str, dict[Place, dict[int, str]]] = {}
    for row in read_kept_table(folder / GROUPS, GroupRow):
        places = found.setdefault(row.grouping, {})
        places.setdefault((row.site, row.split), {})[row.case] = row.group
    return found
