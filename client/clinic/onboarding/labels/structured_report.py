"""Coded findings and measurements of structured reports (PS3.16 TID 1500); no free text."""

from collections.abc import Iterator

from pydicom.dataset import Dataset

from wardround.client.clinic.onboarding.archive_images.series import text_of
from wardround.client.clinic.onboarding.rules import StructuredReportLabels

_DEEPEST = 50


def report_values(report: Dataset, rule: StructuredReportLabels) -> dict[str, set[str]]:
    """Return what a report says for each column: numbers as they are written, codes by name."""
    found: dict[str, set[str]] = {column: set() for column in rule.columns}
    for item in _items(report, 0):
        concept = _code(item, "ConceptNameCodeSequence")
        for column, wanted in rule.columns.items():
            value = _value(item, rule) if concept == wanted else ""
            if value:
                found[column].add(value)
    return found


def _items(item: Dataset, depth: int) -> Iterator[Dataset]:
    if depth > _DEEPEST:
        return
    for child in item.get("ContentSequence") or ():
        yield child
        yield from _items(child, depth + 1)


def _value(item: Dataset, rule: StructuredReportLabels) -> str:
    kind = text_of(item, "ValueType")
    if kind == "NUM":
        measured = item.get("MeasuredValueSequence")
        text = text_of(measured[0], "NumericValue") if measured else ""
        try:
            return f"{float(text):g}"
        except ValueError:
            return ""
    if kind == "CODE":
        code = _code(item, "ConceptCodeSequence")
        return rule.values.get(code, code)
    return ""


def _code(item: Dataset, sequence: str) -> str:
    codes = item.get(sequence)
    if not codes:
        return ""
    return f"{text_of(codes[0], 'CodingSchemeDesignator')}:{text_of(codes[0], 'CodeValue')}"
