"""The cases of a site that readers may be shown: rows of its manifest, and of its unlabelled list.

Which part a patient is in is drawn and written down before anybody is shown a case, for the
unlabelled ones too: what a reader says later can move nobody from the test into the training.
"""

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from wardround.client.clinic.review.record import case_key, mask_mark
from wardround.client.data.manifest.corrections import (
    Corrections,
    case_ids,
    joined,
    read_corrections,
    read_unlabelled,
)
from wardround.client.data.manifest.examination import Examination, SplitName
from wardround.client.data.manifest.label_words import label_words
from wardround.client.data.manifest.manifest import read_rows
from wardround.client.data.manifest.parts.partition import partition_patients
from wardround.client.data.manifest.table import read_table
from wardround.client.site.folder import Site
from wardround.common.errors import DataError, InputError
from wardround.common.study.study import Study

COLUMNS = ("label", "mask")


@dataclass(frozen=True, slots=True)
class Case:
    """An examination that a reader may be shown.

    Attributes:
        id: Its name in queues and corrections; names no patient.
        examination: As the list says, without corrections.
        part: Of its patient.
        label: What the list itself says; "" for nothing, and of masks.
    """

    id: str
    examination: Examination
    part: SplitName
    label: str = ""

    @property
    def own(self) -> str:
        """What the list itself says: a label, or a mask by its hash; "" for nothing."""
        mask = self.examination.mask
        if mask is None or not mask.path.is_file():
            return self.label
        item = "" if mask.index is None else f"#{mask.index}"
        return mask_mark(sha256(mask.path.read_bytes()).hexdigest()) + item

    @property
    def row(self) -> int:
        """Its row, counted on from the manifest into the unlabelled list."""
        return self.examination.row


@dataclass(frozen=True, slots=True)
class CaseList:
    """All cases of a site that a study finds.

    Attributes:
        cases: Those of the manifest first.
        last_row: Of the manifest: later rows are of the unlabelled list.
        key: By which cases are named.
        corrections: What readers said so far.
        unusable: How many rows of the unlabelled list cannot be used.
    """

    cases: tuple[Case, ...]
    last_row: int
    key: bytes
    corrections: Corrections
    unusable: int = 0

    def by_id(self) -> dict[str, Case]:
        """Return the cases by their names; of two rows of one examination the first."""
        return {one.id: one for one in reversed(self.cases)}

    def place(self, case: Case) -> str:
        """Return how a person finds a case: its list and its row there."""
        if case.row > self.last_row:
            return f"unlabelled.csv row {case.row - self.last_row}"
        return f"row {case.row}"


def list_cases(site: Site, study: Study) -> CaseList:
    """Return the cases of a site, and write down who is trained on and who is tested on.

    Raises:
        DataError: The lists cannot be used, or a row of the manifest is wrong.
        InputError: The study's task has neither a label nor a mask.
    """
    column = study.task.column
    if column not in COLUMNS or study.task.outcome:
        msg = (
            f"readers correct classes and masks, and the task {study.study.task!r} asks for "
            "neither: name a model of a classification or a segmentation."
        )
        raise InputError(msg)
    key, table = case_key(site), read_table(site.manifest_path)
    pool = read_unlabelled(site, table)
    last_row = max((line.row for line in table.lines), default=1)
    whole = table
    if pool is not None:
        # Whatever is still wrong with a row that has some label is wrong with the row.
        stand_in = study.data.classes[0] if column == "label" else "unlabelled"
        whole = joined(table, pool, dict.fromkeys(range(len(pool.lines)), stand_in), column)
    words = label_words(site, study)
    reading = read_rows(whole, study, site.data_root, site.settings.scanners, words=words)
    wrong = {row for rows in reading.problems.rows.values() for row in rows}
    own = {
        said: some
        for said, rows in reading.problems.rows.items()
        if (some := [row for row in rows if row <= last_row])
    }
    if own and not site.is_tolerant:
        replace(reading.problems, rows=own).raise_if_any(Path(site.manifest_path))
    examinations = [
        _unlabelled(one) if one.row > last_row else one
        for one in reading.examinations
        if one.row not in wrong
    ]
    if not examinations:
        msg = f"the manifest {site.manifest_path} has no rows: there is nobody to be read."
        raise DataError(msg)
    parts = partition_patients(examinations, study, site).parts
    part_of = {one.patient: part for part, some in parts.items() for one in some}
    ids = dict(zip((line.row for line in whole.lines), case_ids(whole, key), strict=True))
    target = whole.place(column)
    texts = {line.row: line.cells[target] if target is not None else "" for line in whole.lines}
    cases = tuple(
        Case(
            ids[one.row],
            one,
            part_of[one.patient],
            texts[one.row] if column == "label" and one.row <= last_row else "",
        )
        for one in examinations
        if one.patient in part_of
    )
    said = read_corrections(site.corrections_path)
    return CaseList(cases, last_row, key, said, sum(row > last_row for row in wrong))


def _unlabelled(one: Examination) -> Examination:
    return replace(one, label=None, mask=None)
