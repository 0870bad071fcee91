"""A hospital's own table of labels, found by its identifiers, which are written nowhere."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from wardround.client.clinic.onboarding.archive_images.series import SourceStudy
from wardround.client.clinic.onboarding.deidentification.keyed_maps import normal_identifier
from wardround.client.clinic.onboarding.rules import TableLabels
from wardround.client.data.manifest.table import read_table
from wardround.client.tasks.words import tidy
from wardround.common.errors import DataError, InputError, known_names

_LARGEST = 512 * 2**20  # bytes


@dataclass(frozen=True)
class LabelTable:
    """Rows by identifier.

    Attributes:
        rule: What is looked up, and by what.
        rows: Each row's cells by column; several where the identifier stands in several rows.
    """

    rule: TableLabels
    rows: dict[str, list[dict[str, str]]]

    def cells(self, study: SourceStudy, columns: dict[str, str]) -> dict[str, str] | str:
        """Return cells of a study, or why there are none.

        Args:
            columns: From a name of the result to the table's column.
        """
        found = self.rows_of(study)
        values = {tuple(row[column] for column in columns.values()) for row in found}
        if len(values) > 1:
            return "rows of the table contradict each other"
        if not values:
            return "not in the table"
        cells = dict(zip(columns, values.pop(), strict=True))
        if any(_names_patient(cell, study) for cell in cells.values()):
            return "a cell of the table has an identifier in it"
        return cells

    def rows_of(self, study: SourceStudy) -> list[dict[str, str]]:
        """Return the rows of a study."""
        by = {"patient": study.patient, "accession": study.accession, "study": study.uid}
        identifier = normal_identifier(by[self.rule.by])
        return self.rows.get(identifier, []) if identifier else []


def read_label_table(folder: Path, rule: TableLabels, more_columns: tuple[str, ...]) -> LabelTable:
    """Read a table of labels.

    Args:
        folder: Of the rules, from which its path starts.
        more_columns: That it must have beside those of the rule.

    Raises:
        InputError: It cannot be read, or lacks a column.
    """
    path = folder / rule.file
    try:
        if path.stat().st_size > _LARGEST:
            msg = f"{path} is larger than {_LARGEST // 2**20} MB: give a table of labels."
            raise InputError(msg)
        table = read_table(path, "the table of labels")
    except OSError as error:
        msg = f"cannot read {path} ({error.strerror}): labels.table.file names the table of labels."
        raise InputError(msg) from None
    except DataError as error:
        raise InputError(str(error)) from None
    for column in (rule.key, *rule.columns.values(), *more_columns):
        if table.header.count(column) != 1:
            msg = f"{path}: {known_names('column', column, filter(None, table.header))}"
            raise InputError(msg)
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    for line in table.lines:
        row = dict(zip(table.header, map(tidy, line.cells), strict=False))
        if row[rule.key]:
            rows[normal_identifier(row[rule.key])].append(row)
    return LabelTable(rule, dict(rows))


def _names_patient(cell: str, study: SourceStudy) -> bool:
    identifiers = (study.patient, study.accession, study.uid)
    return any(len(name) >= 4 and name.casefold() in cell.casefold() for name in identifiers)
