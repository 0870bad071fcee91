"""The examinations that a data check looks at: those of a study, or of the manifest as it is."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from wardround.client.clinic.onboarding.data_check.findings import Finding, found
from wardround.client.data.manifest.cells import parse_location, parse_split
from wardround.client.data.manifest.examination import BoxCell, Examination, Location
from wardround.client.data.manifest.files import FileFinder
from wardround.client.data.manifest.manifest import open_manifest
from wardround.client.data.manifest.parts.partition import partition_patients
from wardround.client.data.manifest.patients import rows_of_look_alikes
from wardround.client.data.manifest.table import RESERVED, Line, Table, read_table
from wardround.client.site.folder import Site
from wardround.client.tasks.words import tidy
from wardround.common.errors import DataError
from wardround.common.study.study import Study


@dataclass(frozen=True, slots=True)
class Subject:
    """One examination, still unread.

    Attributes:
        part: train, validation or test; "" where nobody has said it.
        label: As the study writes it, several apart by ";"; "" for a mask.
        images: Where each channel lies; None for one that the row lacks.
        covariates: Clinical values as text, by name.
        boxes: What the cell of its boxes holds; None where the study asks for none.
        outcome: The number of a regression; time and event of a survival study; else empty.
    """

    row: int
    patient: str
    part: str
    label: str
    images: dict[str, Location | None]
    mask: Location | None = None
    covariates: dict[str, str] = field(default_factory=dict)
    boxes: BoxCell | None = None
    outcome: tuple[float, ...] = ()


def subjects_of(site: Site, study: Study | None) -> tuple[list[Subject], list[Finding]]:
    """Return what there is to look at, and what is wrong with the manifest itself.

    Raises:
        DataError: The manifest cannot be read at all.
    """
    if study is None:
        return _as_it_is(read_table(site.manifest_path), site)
    findings: list[Finding] = []
    try:
        notes = open_manifest(site, study).notes
        findings += [Finding("manifest", "look", note) for note in notes]
    except DataError as error:
        fact, _, remedy = str(error).rpartition(": ")
        findings.append(Finding("manifest", "fault", fact.replace(str(site.folder), "."), remedy))
    # What can be used is looked at all the same, as if each row were the only one.
    tolerant = replace(site, is_tolerant=True)
    examinations = open_manifest(tolerant, study).examinations
    try:
        parts = partition_patients(examinations, study, tolerant, keeps=False).parts
        part_of = {e.row: part for part, listed in parts.items() for e in listed}
    except DataError as error:
        findings.append(Finding("parts", "fault", str(error)))
        part_of = {}
    return [_of_study(e, part_of.get(e.row, ""), study) for e in examinations], findings


def _of_study(examination: Examination, part: str, study: Study) -> Subject:
    channels = study.data.channels if study.data.kind == "image" else ()
    names = [covariate.name for covariate in study.data.covariates]
    return Subject(
        examination.row,
        examination.patient,
        part,
        _label(examination, study),
        dict(zip(channels, examination.images, strict=True)),
        examination.mask,
        dict(zip(names, examination.covariates, strict=True)),
        examination.boxes,
        (examination.label or ()) if study.task.outcome else (),
    )


def _label(examination: Examination, study: Study) -> str:
    label, classes = examination.label, study.data.classes
    if label is None or not study.task.classifies:
        return ""
    if study.data.multi_label:
        present = [name for name, holds in zip(classes, label, strict=True) if holds]
        return ";".join(present) or "none"
    return classes[int(label[0])]


def _as_it_is(table: Table, site: Site) -> tuple[list[Subject], list[Finding]]:
    """Return all rows of a manifest, whatever study they are for."""
    if table.place("patient") is None:
        msg = (
            "the manifest has no column patient: give it a header; manifest.example.csv shows one."
        )
        raise DataError(msg)
    finder = FileFinder(site.data_root)
    subjects = [_row(table, line, finder) for line in table.lines]
    listed = [Examination(s.row, s.patient, (), split=None) for s in subjects]
    apart, together = rows_of_look_alikes(listed)
    findings = []
    if alike := sorted([*apart, *together]):
        fact = "patients have names that differ only in capitals, blanks, leading zeros or signs"
        remedy = "write one name where it is one patient."
        findings.append(found("manifest", "look", fact, remedy, alike))
    return subjects, findings


def _row(table: Table, line: Line, finder: FileFinder) -> Subject:
    def cell(name: str) -> str:
        place = table.place(name)
        return "" if place is None else tidy(line.cells[place])

    images: dict[str, Location | None] = {}
    mask = None
    covariates: dict[str, str] = {}
    for place, name in enumerate(table.header):
        word = name.casefold().partition(".")
        if word[0] == "image":
            images[word[2] or "image"] = _location(line.cells[place], finder)
        elif word[0] == "mask":
            mask = _location(line.cells[place], finder)
        elif name and name.casefold() not in RESERVED:
            covariates[name] = tidy(line.cells[place])
    return Subject(
        line.row, cell("patient"), _part(cell("split")), cell("label"), images, mask, covariates
    )


def _part(text: str) -> str:
    try:
        return parse_split(text) or ""
    except ValueError:
        return ""


def _location(cell: str, finder: FileFinder) -> Location | None:
    if not tidy(cell):
        return None
    try:
        return parse_location(cell, lambda file: finder.find(file).path)
    except ValueError:
        return None


def patients_of(subjects: Sequence[Subject]) -> int:
    """Return how many patients there are."""
    return len({subject.patient for subject in subjects})
