"""What left the sites as evidence of a run's model, as tables: these numbers and nothing else."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from wardround.server.checkpoints.evidence import EvidenceRow

Table = tuple[str, Sequence[str], Iterable[Sequence[str]]]
NOTHING = "–"
_CAPTIONS = {
    "intervals": "How sure each metric is: 95 % intervals whose unit is the patient.",
    "calibration": "How often the named class is right, by its score; and the temperature that "
    "would make scores mean what they say, fitted on validation patients.",
    "subgroups": "For whom the model is good, and how far the worst group is behind the best.",
    "gains": "What the training gave: each patient held against himself.",
}


@dataclass(frozen=True, slots=True)
class Told:
    """What the sites said of how much they tell.

    Attributes:
        notes: A row a site.
        tables: A table a pack, in the order in which they came.
    """

    notes: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]


def told(rows: Sequence[EvidenceRow]) -> Told:
    """Return the rows of a run as tables."""
    notes = tuple((row.site, row.note) for row in rows if not row.pack)
    packs = dict.fromkeys(row.pack for row in rows if row.pack)
    return Told(notes, tuple(_table(pack, [r for r in rows if r.pack == pack]) for pack in packs))


def _table(pack: str, rows: Sequence[EvidenceRow]) -> Table:
    head = ("site", "of", "metric", "value", "95 % interval", "lost by rounding", "patients", "")
    lost = any(row.lost for row in rows)
    caption = _CAPTIONS.get(pack, pack)
    if lost:
        caption += (
            " What rounding and merging lost is counted into the interval; the column says how "
            "far the value itself can be off."
        )
    return caption, head, list(_lines(rows))


def _lines(rows: Sequence[EvidenceRow]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        expected = "" if row.expected is None else f"mean score {row.expected:.3f}"
        yield (
            row.site,
            row.subject,
            row.metric,
            _number(row.value),
            interval_words(row),
            f"{row.lost:.3f}" if row.lost else NOTHING,
            str(row.patients) if row.patients else NOTHING,
            row.note or expected,
        )


def interval_words(row: EvidenceRow) -> str:
    """Return from where to where a number may be."""
    if row.low is None or row.high is None:
        return NOTHING
    return f"{row.low:.3f} to {row.high:.3f}"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"
