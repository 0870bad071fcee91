"""Which column of a table is which: by name, capitals and blanks aside."""

from collections.abc import Sequence
from dataclasses import dataclass

from wardround.client.data.manifest.patients import skeleton
from wardround.client.data.manifest.table import Table
from wardround.common.errors import DataError, nearest
from wardround.common.study.plans.subgroups import columns_of
from wardround.common.study.study import Study

SOURCE_ROW = "source row"
"""Of a simulated site: the row of the data set's own manifest. No study can name such a column."""
LESION_MASK = "lesion_mask"
"""Where a lesion lies, of a classification: maps are held against it; no training reads it."""
WAVE = "wave"
"""Of a study whose data come in waves: in which the row came, from 1."""
_OPTIONAL = ("split", "scanner", "site", "box", LESION_MASK, SOURCE_ROW)


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the study's columns stand.

    Attributes:
        images: Name and place of each channel's; None where the table lacks an optional one.
        target: Place of the label or the mask; of two columns time and event, that of the time.
        covariates: Place of each covariate's; None where the table lacks an optional one.
        event: Place of the second of the two.
        absent: Sentences for the optional columns that the table lacks.
        optional: Places of those that may be missing, by name.
    """

    patient: int
    images: tuple[tuple[str, int | None], ...]
    target: int | None
    covariates: tuple[int | None, ...]
    optional: dict[str, int]
    event: int | None = None
    absent: tuple[str, ...] = ()

    def target_text(self, cells: Sequence[str]) -> str:
        """Return what the row says is to be found, "" where nothing need be said.

        Of two columns both, joined by ``;``.
        """
        text = "" if self.target is None else cells[self.target]
        return text if self.event is None else f"{text};{cells[self.event]}"

    def cell(self, name: str, cells: Sequence[str]) -> str:
        """Return the cell of a column that may be missing; "" where it is."""
        place = self.optional.get(name)
        return "" if place is None else cells[place]


def find_columns(table: Table, study: Study) -> Columns:
    """Return where the columns stand that a study needs.

    Raises:
        DataError: One is missing, or stands there twice, if only with other capitals.
    """
    images = _image_columns(table, study)
    covariates = tuple(covariate.name for covariate in study.data.covariates)
    target = _target_columns(table, study)
    asked = ("patient", *images, *target, *covariates)
    lacking = [column for column in asked if not table.places(column)]
    may_lack = _may_lack(images, study)
    absent = [column for column in lacking if column in may_lack]
    wanted = tuple(column for column in asked if column not in absent)
    missing = [column for column in lacking if column not in absent]
    if not any(table.places(name) for name in images):
        missing += [name for name in dict.fromkeys(images) if name not in missing]
    if missing:
        raise DataError(_lacking(table, missing))
    waves = () if study.continual is None else (WAVE,)  # else the column is a hospital's own
    optional = dict.fromkeys((*_OPTIONAL, *waves, *columns_of(study)))
    present = [name for name in optional if table.places(name)]
    _check_twice(table, [*wanted, *present], covariates)
    place = {name: table.places(name)[0] for name in (*wanted, *present)}
    return Columns(
        place["patient"],
        tuple((name, place.get(name)) for name in images),
        place[target[0]] if target else None,
        tuple(place.get(name) for name in covariates),
        {name: place[name] for name in present},
        place[target[1]] if len(target) > 1 else None,
        tuple(_is_absent(table, name) for name in absent),
    )


def file_columns(table: Table) -> tuple[int, ...]:
    """Return the places of the columns that name files, whatever study they are for."""
    return tuple(
        place
        for place, name in enumerate(table.header)
        if name.casefold().partition(".")[0] in ("image", "mask")
    )


def _target_columns(table: Table, study: Study) -> tuple[str, ...]:
    """Return the column of what is to be found; of a time to event also two, time and event."""
    if study.task.outcome == "time" and not table.places(study.task.column):
        return ("time", "event")
    return (study.task.column,) if study.task.column else ()


def _image_columns(table: Table, study: Study) -> tuple[str, ...]:
    if study.data.kind == "table":
        return ()
    names = tuple(c if c == "image" else f"image.{c}" for c in study.data.channels)
    if table.places("image") and not any(table.places(name) for name in names):
        return ("image",) * len(names)  # one file that holds all channels
    return names


def _may_lack(images: Sequence[str], study: Study) -> set[str]:
    """Return the columns that a table may lack wholly."""
    channels = zip(images, study.data.channels, strict=False)  # a table study has no images
    optional = study.data.optional_channels
    return {*(n for n, one in channels if one in optional), *study.data.optional_covariates}


def _is_absent(table: Table, name: str) -> str:
    hint = _hint(name, [one for one in table.header if one])
    return f"the manifest has no column {name}: it counts as missing in every row. {hint}".rstrip()


def _check_twice(table: Table, used: Sequence[str], covariates: Sequence[str]) -> None:
    """Refuse columns of one name: a join of two tables leaves them, and one of them is wrong."""
    header = table.header
    twice = {name for name in header if name and header.count(name) > 1}
    for name in used:
        held = [header[place] for place in table.places(name)]
        # Two covariates may differ in capitals alone: then each is written as the study writes it.
        if len(held) > 1 and not (name in covariates and held.count(name) == 1):
            twice |= set(held)
    if twice:
        names = ", ".join(sorted(twice))
        msg = f"the manifest {table.path} has two columns {names}: rename one of each."
        raise DataError(msg)


def _lacking(table: Table, missing: Sequence[str]) -> str:
    lacks = f"the manifest {table.path} lacks the column {', '.join(missing)}"
    if not table.names_columns:  # the first row may be a patient's: it is not repeated
        return (
            f"{lacks}: its first row names none of patient, image, mask and label. Write a header "
            "above the rows, apart by commas, and save it as 'CSV UTF-8'."
        )
    named = [name for name in table.header if name]
    hints = [hint for name in missing if (hint := _hint(name, named))]
    return (
        f"{lacks}; it has: {', '.join(named)}. {' '.join(hints)}{' ' if hints else ''}"
        "Add what is missing, separated by commas."
    )


def _hint(name: str, named: Sequence[str]) -> str:
    for one in named:
        if skeleton(one) == skeleton(name):
            return f"One of them looks like {name} and has letters of another alphabet, or blanks."
    close = nearest(name, named)
    return f"Rename {close!r} if it is {name}." if close else ""
