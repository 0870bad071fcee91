"""Which patient is in which site: the outcome of a split, saved and read back."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wardround.client.data.manifest.partition import split_of_patient
from wardround.common.errors import InputError
from wardround.common.files.tables import write_cells
from wardround.common.study.study import Study
from wardround.simulations.datasets.examinations import Examinations, PublicExamination
from wardround.simulations.run_files.folder import SplitRow

SPLIT_NAMES = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Assignment:
    """Patients to sites.

    Attributes:
        sites: Every site's name, in order.
        site_of: Patient to site.
        notes: Sentences the report must show.
    """

    sites: tuple[str, ...]
    site_of: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def rows_of(self, site: str, examinations: Examinations) -> tuple[PublicExamination, ...]:
        """Return the examinations of one site, in the data set's order."""
        return tuple(row for row in examinations.rows if self.site_of[row.patient] == site)


def effective_split(row: PublicExamination, study: Study) -> str:
    """Return the split a row has: the data set's, else the one the site's own hash will give."""
    return row.split or split_of_patient(study, row.patient)


def needed_splits(study: Study) -> tuple[str, ...]:
    """Return the splits that a site refuses to be without."""
    fractions = (1.0, study.evaluation.validation_fraction, study.evaluation.test_fraction)
    return tuple(name for name, share in zip(SPLIT_NAMES, fractions, strict=True) if share)


def save_assignment(assignment: Assignment, path: Path) -> None:
    """Write ``patient,site`` rows, site by site, replacing the file at once."""
    order = {site: place for place, site in enumerate(assignment.sites)}
    rows = sorted(assignment.site_of.items(), key=lambda pair: (order[pair[1]], pair[0]))
    write_cells(path, ("patient", "site"), rows)


def load_assignment(path: Path, examinations: Examinations) -> Assignment:
    """Read what :func:`save_assignment` wrote, for the same data set.

    Raises:
        InputError: The file is missing or is no assignment, names a patient twice, or leaves a
            patient of the data set without a site.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = [(line["patient"], line["site"]) for line in csv.DictReader(stream)]
    except (OSError, UnicodeDecodeError, KeyError, csv.Error):
        msg = f"{path} is not an assignment: give a CSV file with the columns patient and site."
        raise InputError(msg) from None
    site_of = dict(lines)
    if len(site_of) != len(lines):
        twice = len(lines) - len(site_of)
        msg = f"{path} names {twice} patients more than once: give each patient one site."
        raise InputError(msg)
    homeless = {row.patient for row in examinations.rows} - site_of.keys()
    if homeless or not all(site_of.values()):
        msg = (
            f"{path} has no site for {len(homeless)} of the data set's patients, or an empty cell: "
            "it belongs to other data or options. Split again."
        )
        raise InputError(msg)
    return Assignment(tuple(dict.fromkeys(site_of.values())), site_of)


def split_table(
    examinations: Examinations, assignment: Assignment, study: Study
) -> tuple[SplitRow, ...]:
    """Return who holds what: a row a site, split and class, with "" for all classes together."""
    counted: Counter[tuple[str, str, str]] = Counter()
    patients: dict[tuple[str, str, str], set[str]] = {}
    for row in examinations.rows:
        site, split = assignment.site_of[row.patient], effective_split(row, study)
        for name in ("", *row.label.split(";")) if row.label else ("",):
            counted[site, split, name] += 1
            patients.setdefault((site, split, name), set()).add(row.patient)
    return tuple(
        SplitRow(site, split, name, counted[site, split, name], len(patients.get(key, ())))
        for site in assignment.sites
        for split in SPLIT_NAMES
        for name in ("", *_classes(study))
        for key in [(site, split, name)]
    )


def missing_classes(table: Sequence[SplitRow]) -> tuple[str, ...]:
    """Return a sentence for every site that trains without a class."""
    absent: dict[str, list[str]] = {}
    for row in table:
        if row.split == "train" and row.class_name and not row.patients:
            absent.setdefault(row.site, []).append(row.class_name)
    return tuple(
        f"{site} has no training patient of {', '.join(names)}." for site, names in absent.items()
    )


def _classes(study: Study) -> tuple[str, ...]:
    return study.data.classes if study.task.classifies else ()
