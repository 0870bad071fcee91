"""Which patient is in which site and part: the outcome of a split, saved and read back."""

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wardround.client.data.manifest.allocation import draw_parts, shares_of, stratify
from wardround.client.data.manifest.cells import ARRAY_FILES
from wardround.client.data.manifest.examination import SPLITS
from wardround.client.data.manifest.partition import simulated_key
from wardround.client.data.manifest.written_parts import WrittenParts
from wardround.client.tasks.registry import task_of
from wardround.client.tasks.task import Label, UnusableLabelError
from wardround.common.errors import InputError
from wardround.common.files.tables import write_cells
from wardround.common.study.plans.patient_privacy import drawn_and_expected
from wardround.common.study.study import Study
from wardround.simulations.datasets.examinations import Examinations, PublicExamination
from wardround.simulations.run_files.folder import SplitRow

_COMPARED_BYTES = 4 * 2**20  # from the middle of a volume, where no two patients are alike
SPLIT_NAMES: tuple[str, ...] = SPLITS


@dataclass(frozen=True, slots=True)
class Assignment:
    """Patients to sites.

    Attributes:
        sites: Every site's name, in order.
        site_of: Patient to site.
        notes: Sentences the report must show.
        split_of: Patient to train, validation or test, where the data set does not say.
    """

    sites: tuple[str, ...]
    site_of: Mapping[str, str]
    notes: tuple[str, ...] = ()
    split_of: Mapping[str, str] = field(default_factory=dict)

    def rows_of(self, site: str, examinations: Examinations) -> tuple[PublicExamination, ...]:
        """Return the examinations of one site, in the data set's order."""
        return tuple(row for row in examinations.rows if self.site_of[row.patient] == site)


def with_splits(examinations: Examinations, assignment: Assignment) -> Examinations:
    """Return the examinations with the split of each patient."""
    split_of = assignment.split_of
    rows = [
        row if row.split else replace(row, split=split_of.get(row.patient, ""))
        for row in examinations.rows
    ]
    return replace(examinations, rows=tuple(rows))


def draw_splits(examinations: Examinations, assignment: Assignment, study: Study) -> Assignment:
    """Let each site draw who is tested on, as a hospital does when it first sees its patients.

    Where the data set says it, or the assignment does, there is nothing to draw.
    """
    rows = examinations.rows
    if any(row.split for row in rows) or assignment.split_of.keys() >= {r.patient for r in rows}:
        return assignment
    split_of: dict[str, str] = {}
    for site in assignment.sites:
        own = assignment.rows_of(site, examinations)
        names = WrittenParts(simulated_key(study, site))
        patient_of = {names.hash_of(row.patient): row.patient for row in own}
        labelled = [(names.hash_of(row.patient), _label(row, study)) for row in own]
        parts = draw_parts(stratify(labelled, study), shares_of(study), names.key, SPLITS)
        split_of |= {patient_of[hash_]: part for hash_, part in parts.items()}
    return replace(assignment, split_of=split_of)


def _label(row: PublicExamination, study: Study) -> Label | None:
    """Return what a site will read as the label; it refuses one that cannot be used, not this."""
    labels = task_of(study).labels
    try:
        return None if labels is None else labels.read(row.label, study)
    except UnusableLabelError:
        return None


def needed_splits(study: Study) -> tuple[str, ...]:
    """Return the splits that a site refuses to be without."""
    fractions = (1.0, study.evaluation.validation_fraction, study.evaluation.test_fraction)
    return tuple(name for name, share in zip(SPLIT_NAMES, fractions, strict=True) if share)


def save_assignment(assignment: Assignment, examinations: Examinations, path: Path) -> None:
    """Write ``patient,site,split`` rows, site by site, replacing the file at once."""
    order = {site: place for place, site in enumerate(assignment.sites)}
    found = {row.patient: row.split for row in with_splits(examinations, assignment).rows}
    split_of = {**assignment.split_of, **found}
    rows = sorted(
        (
            (patient, site, split_of.get(patient, ""))
            for patient, site in assignment.site_of.items()
        ),
        key=lambda row: (order[row[1]], row[0]),
    )
    write_cells(path, ("patient", "site", "split"), rows)


def load_assignment(path: Path, examinations: Examinations) -> Assignment:
    """Read what :func:`save_assignment` wrote, for the same data set.

    The column split may be missing or empty: then the sites draw it.

    Raises:
        InputError: The file is missing or is no assignment, names a patient twice, leaves a
            patient of the data set without a site, or holds no split or one that is none.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = [
                (line["patient"], line["site"], line.get("split") or "")
                for line in csv.DictReader(stream)
            ]
    except (OSError, UnicodeDecodeError, KeyError, csv.Error):
        msg = f"{path} is not an assignment: give a CSV file with the columns patient and site."
        raise InputError(msg) from None
    site_of = {patient: site for patient, site, _ in lines}
    if len(site_of) != len(lines):
        twice = len(lines) - len(site_of)
        msg = f"{path} names {twice} patients more than once: give each patient one site."
        raise InputError(msg)
    patients = {row.patient for row in examinations.rows}
    homeless = patients - site_of.keys()
    if homeless or not all(site_of.values()):
        msg = (
            f"{path} has no site for {len(homeless)} of the data set's patients, or an empty cell: "
            "it belongs to other data or options. Split again."
        )
        raise InputError(msg)
    split_of = {patient: split for patient, _, split in lines if split}
    if split_of and (patients - split_of.keys() or not set(split_of.values()) <= set(SPLITS)):
        msg = (
            f"{path} has cells in the column split that are empty or no split: write train, "
            "validation or test in each, or leave the column out."
        )
        raise InputError(msg)
    return Assignment(tuple(dict.fromkeys(site_of.values())), site_of, (), split_of)


def split_table(
    examinations: Examinations, assignment: Assignment, study: Study
) -> tuple[SplitRow, ...]:
    """Return who holds what: a row a site, split and class, with "" for all classes together."""
    counted: Counter[tuple[str, str, str]] = Counter()
    patients: dict[tuple[str, str, str], set[str]] = {}
    for row in with_splits(examinations, assignment).rows:
        site, split = assignment.site_of[row.patient], row.split
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


def too_small_steps(table: Sequence[SplitRow], study: Study) -> tuple[str, ...]:
    """Return a sentence for every site whose private steps are divided by far too many patients."""
    notes = []
    for row in table:
        far = drawn_and_expected(study, row.patients)
        if row.split == "train" and not row.class_name and far is not None:
            drawn, expected = far
            notes.append(
                f"A private step of {row.site} draws {drawn:.1f} of its {row.patients} training "
                f"patients on average, and divides their sum by {expected}: its steps are "
                f"{expected / drawn:.1f} times too small. Set privacy.expected_patients "
                "(the batch size where it is absent) or raise privacy.sampling_rate."
            )
    return tuple(notes)


def duplicated_images(examinations: Examinations) -> tuple[str, ...]:
    """Return sentences on files that are the same image under two names.

    Files are compared by their size first and their bytes then, so that few are read.

    Args:
        examinations: With the split of each patient.
    """
    by_file: dict[tuple[int, str], list[tuple[int, PublicExamination]]] = {}
    for size, rows in _of_one_size(examinations).items():
        if len(rows) > 1:
            for number, row, path in rows:
                by_file.setdefault((size, _digest(path)), []).append((number, row))
    alike = [rows for rows in by_file.values() if len(rows) > 1]
    findings = (
        ("under different labels", [r for r in alike if len({row.label for _, row in r}) > 1]),
        ("in different splits", [r for r in alike if len({row.split for _, row in r}) > 1]),
        ("of different patients", [r for r in alike if len({row.patient for _, row in r}) > 1]),
    )
    return tuple(
        f"{len(groups)} images stand twice or more {how}, e.g. examinations "
        f"{' and '.join(str(number) for number, _ in groups[0])} of the data (the first is 1): "
        "drop or mend them, or the test is not one."
        for how, groups in findings
        if groups
    )


def _of_one_size(
    examinations: Examinations,
) -> dict[int, list[tuple[int, PublicExamination, Path]]]:
    """Return the examinations of one picture file each, by its size in bytes."""
    sized: dict[int, list[tuple[int, PublicExamination, Path]]] = {}
    for number, row in enumerate(examinations.rows, start=1):
        for place in row.images.values():
            path = Path(place)
            if path.suffix.lower() not in ARRAY_FILES and "#" not in place and path.is_file():
                sized.setdefault(path.stat().st_size, []).append((number, row, path))
    return sized


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        stream.seek(max(0, (path.stat().st_size - _COMPARED_BYTES) // 2))
        return hashlib.sha256(stream.read(_COMPARED_BYTES)).hexdigest()


def _classes(study: Study) -> tuple[str, ...]:
    return study.data.classes if study.task.classifies else ()
