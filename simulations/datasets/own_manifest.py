"""The rows of a researcher's own manifest, read by the rules of a hospital's."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from wardround.client.data.manifest.cells import location_text, parse_location
from wardround.client.data.manifest.columns import LESION_MASK
from wardround.client.data.manifest.examination import Examination, Location
from wardround.client.data.manifest.manifest import Reading, read_rows
from wardround.client.data.manifest.patients import look_alikes
from wardround.client.data.manifest.table import Line, read_table
from wardround.client.tasks.words import tidy
from wardround.common.errors import InputError
from wardround.common.study.plans.subgroups import columns_of
from wardround.common.study.registry import NO_CLASS
from wardround.common.study.study import Study
from wardround.simulations.datasets.examinations import (
    DatasetFacts,
    Examinations,
    PublicExamination,
)


def read_own_manifest(path: Path, study: Study, facts: DatasetFacts) -> Examinations:
    """Return the examinations of a manifest; no image is looked into.

    Raises:
        InputError: It cannot be used; says every problem at once, with the rows.
    """
    reading = read_rows(read_table(path), study, path.parent)
    if not reading.examinations:
        msg = f"the manifest {path} has a header but no rows: add one an examination."
        raise InputError(msg)
    _check_hospitals(reading)
    reading.problems.raise_if_any(path)
    rows = tuple(
        _examination(examination, line, reading, study)
        for examination, line in zip(reading.examinations, reading.table.lines, strict=True)
    )
    reading.problems.raise_if_any(path)
    return Examinations(rows, facts, reading.notes, path)


def _check_hospitals(reading: Reading) -> None:
    """Refuse one hospital under two names."""
    place = reading.columns.optional.get("site")
    if place is None:
        return
    names = [tidy(line.cells[place]) for line in reading.table.lines]
    for group in look_alikes(name for name in names if name):
        for name in group:
            row = reading.examinations[names.index(name)].row
            fact = "the column site has names that differ only in capitals, blanks or leading zeros"
            reading.problems.add(row, fact, "write each hospital's name in one way")


def _examination(
    examination: Examination, line: Line, reading: Reading, study: Study
) -> PublicExamination:
    channels = study.data.channels if study.data.kind == "image" else ()
    columns = reading.columns
    return PublicExamination(
        patient=examination.patient,
        images={
            channel: _written(location)
            for channel, location in zip(channels, examination.images, strict=True)
            if location is not None
        },
        label=""
        if columns.target is None
        else _label(examination, tidy(columns.target_text(line.cells)), study),
        mask=_mask(examination, columns.cell(LESION_MASK, line.cells), reading),
        natural_site=tidy(columns.cell("site", line.cells)),
        split=examination.split or "",
        covariates={
            **{name: tidy(columns.cell(name, line.cells)) for name in columns_of(study)},
            **{
                covariate.name: text
                for covariate, text in zip(
                    study.data.covariates, examination.covariates, strict=True
                )
            },
        },
        box=columns.cell("box", line.cells),
        row=examination.row,
        boxes=_boxes(examination),
        wave=examination.wave,
    )


def _boxes(examination: Examination) -> str:
    """Return the boxes as a manifest writes them, so that they hold from any folder."""
    cell = examination.boxes
    if cell is None:
        return ""
    return cell.text if cell.location is None else _written(cell.location)


def _mask(examination: Examination, lesion: str, reading: Reading) -> str:
    """Return where the mask lies: the study's target, or what its maps are held against."""
    if examination.mask is not None:
        return _written(examination.mask)
    if not tidy(lesion):
        return ""
    try:
        return _written(parse_location(lesion, lambda file: reading.reader.files.find(file).path))
    except ValueError:
        remedy = "write file.npy#17, file.npz#array#17 or scan.nii.gz#0"
        fact = f"the column {LESION_MASK} does not name an item"
        reading.problems.add(examination.row, fact, remedy)
        return ""


def _label(examination: Examination, text: str, study: Study) -> str:
    """Return a label as data sets write it: a class, or several joined with ``;``."""
    label, classes = examination.label, study.data.classes
    if label is None:
        return ""
    if study.data.multi_label:
        present = [name for name, holds in zip(classes, label, strict=True) if holds]
        return ";".join(present) or NO_CLASS
    if study.task.outcome:  # as Python writes numbers, whatever the table's decimal mark is
        return ";".join(repr(number) for number in label)
    return classes[int(label[0])] if study.task.classifies else text


def _written(location: Location) -> str:
    """Return a location as a manifest writes it, so that it holds from any folder."""
    return location_text(replace(location, path=_resolved(location.path)))


@lru_cache(maxsize=64)
def _resolved(path: Path) -> Path:
    """Return a whole path; thousands of rows name the same few array files."""
    return path.resolve()
