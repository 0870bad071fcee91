"""The labels and the mask of a study, from everything that the rules name."""

from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset

from wardround.client.clinic.onboarding.archive_images.folder import read_whole
from wardround.client.clinic.onboarding.archive_images.series import (
    SourceSeries,
    SourceStudy,
    text_of,
)
from wardround.client.clinic.onboarding.labels.references import refers_to, region_names
from wardround.client.clinic.onboarding.labels.report_words import ReportWords
from wardround.client.clinic.onboarding.labels.structured_report import report_values
from wardround.client.clinic.onboarding.labels.table import LabelTable, read_label_table
from wardround.client.clinic.onboarding.rules import ImportRules, LabelRules


class NoLabelError(Exception):
    """A study has no label; its text is one of a few fixed reasons, without a value of it."""


@dataclass(frozen=True)
class LabelSources:
    """What the rules name, read once.

    Args:
        rules: The rules.
        table: Of ``[labels.table]``.
        words: Of ``[labels.report]``.
    """

    rules: LabelRules
    table: LabelTable | None = field(default=None, repr=False)
    words: ReportWords | None = field(default=None, repr=False)

    def cells(self, study: SourceStudy, header: Dataset) -> dict[str, str]:
        """Return the cells of a study in the manifest, but for the mask.

        Args:
            header: An image of the study, whole.

        Raises:
            NoLabelError: A source says nothing, or two things.
        """
        cells: dict[str, str] = {}
        for part in (self._from_table, self._from_report, self._from_structured_reports):
            cells.update(part(study, header))
        return cells

    def _from_table(self, study: SourceStudy, header: Dataset) -> dict[str, str]:
        del header
        if self.table is None or self.rules.table is None:
            return {}
        found = self.table.cells(study, self.rules.table.columns)
        if isinstance(found, str):
            raise NoLabelError(found)
        return found

    def _from_report(self, study: SourceStudy, header: Dataset) -> dict[str, str]:
        rule = self.rules.report
        if rule is None or self.words is None:
            return {}
        text = text_of(header, rule.attribute) if rule.attribute else ""
        if self.table is not None and rule.table_column:
            rows = self.table.rows_of(study)
            text = "\n".join(row[rule.table_column] for row in rows)
        label = self.words.label(text) if text else None
        if label is None:
            msg = "none of the words is in the report" if text else "there is no report"
            raise NoLabelError(msg)
        return {rule.column: label}

    def _from_structured_reports(self, study: SourceStudy, header: Dataset) -> dict[str, str]:
        del header
        rule = self.rules.structured_report
        if rule is None:
            return {}
        found: dict[str, set[str]] = {column: set() for column in rule.columns}
        for series in study.of_kind("report"):
            for file in series.files:
                for column, values in report_values(_read(file.path), rule).items():
                    found[column] |= values
        for values in found.values():
            if len(values) != 1:
                msg = "structured reports say nothing" if not values else "they say two things"
                raise NoLabelError(msg)
        return {column: values.pop() for column, values in found.items()}

    def mask(self, study: SourceStudy, channels: dict[str, SourceSeries]) -> Dataset | None:
        """Return the mask of a study as it came, None where the rules ask for none.

        Raises:
            NoLabelError: There is none, or several.
        """
        rule = self.rules.masks
        if rule is None:
            return None
        image = channels.get(rule.channel) if rule.channel else next(iter(channels.values()))
        if image is None:
            msg = "the series that masks refer to is absent"
            raise NoLabelError(msg)
        wanted, uids = frozenset(rule.names), frozenset(file.uid for file in image.files)
        masks = [
            mask
            for series in study.of_kind("segmentation", "structures")
            for mask in (_read(file.path) for file in series.files)
            if refers_to(mask, image.uid, uids) and region_names(mask) & wanted
        ]
        if len(masks) != 1:
            msg = "no mask refers to the series" if not masks else "several masks of the series"
            raise NoLabelError(msg)
        return masks[0]


def open_label_sources(rules: ImportRules, folder: Path) -> LabelSources:
    """Read what the rules name.

    Args:
        folder: Of the rules.

    Raises:
        InputError: A table or a pattern cannot be used.
    """
    labels = rules.labels
    more = (labels.report.table_column,) if labels.report and labels.report.table_column else ()
    return LabelSources(
        labels,
        read_label_table(folder, labels.table, more) if labels.table else None,
        ReportWords(labels.report) if labels.report else None,
    )


def _read(path: Path) -> Dataset:
    try:
        return read_whole(path)
    except Exception:  # pydicom raises of every kind, and quotes the file's values
        msg = "a segmentation or a report is damaged"
        raise NoLabelError(msg) from None
