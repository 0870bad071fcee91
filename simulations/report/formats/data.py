"""The report as data: typed, with a schema, and without any number that JSON does not know.

``docs/reference/report.schema.json`` is the schema of :class:`ReportData`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, Field

from wardround.common.html.charts.figure import Figure
from wardround.common.models.documents.field import DocumentField
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.documents.documents import Documents
from wardround.simulations.report.formats.parts import make_report
from wardround.simulations.report.sections.section import Section
from wardround.simulations.run_files.folder import MetricRow, PrivacyRow, SplitRow, TrafficRow

FORMAT = 1
_PLAIN = str.maketrans({"−": "-", ",": ""})


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CellData(_Data):
    """A value as the page prints it."""

    text: str
    value: float | None = Field(None, description="The printed number, where the text is one.")
    note: str = Field("", description="Small print under it, e.g. why it is missing.")


class RowData(_Data):
    """A row of a table."""

    heading: str
    cells: tuple[CellData, ...]


class TableData(_Data):
    """A table of the page, or the numbers of a chart."""

    caption: str
    corner: str = Field(description="The heading of the column of row headings.")
    columns: tuple[str, ...]
    rows: tuple[RowData, ...]


class PictureData(_Data):
    """A picture of the page in words; its pixels are on the page alone."""

    alternative: str
    caption: str


class SectionData(_Data):
    """A part of the page."""

    anchor: str
    title: str
    answer: tuple[str, ...]
    charts: tuple[TableData, ...]
    tables: tuple[TableData, ...]
    pictures: tuple[PictureData, ...]
    notes: tuple[str, ...]


class MetricData(_Data):
    """A measured number, as in ``metrics.csv``; null where it is not defined."""

    model: str
    round: int
    site: str
    split: str
    metric: str
    class_name: str
    value: float | None
    support: int
    error_bound: float | None
    standard_error: float | None


class SplitData(_Data):
    """A row of ``split.csv``."""

    site: str
    split: str
    class_name: str
    examinations: int
    patients: int


class TrafficData(_Data):
    """A row of ``traffic.csv``."""

    model: str
    round: int
    site: str
    bytes_down: int
    bytes_up: int
    seconds: float | None
    updates: int


class PrivacyData(_Data):
    """A row of ``privacy.csv``; an epsilon without bound is null."""

    site: str
    part: str
    epsilon: float | None
    delta: float | None
    cap: float | None
    charged: int
    released: int
    steps: int


class FieldData(_Data):
    """A field of the model card or the data sheet."""

    key: str
    section: str
    title: str
    known_by: str = Field(description='"tool", or "person" where somebody must fill it in.')
    filled_by: str = Field(description="Who fills it, where it is a person.")
    answer: tuple[str, ...]
    items: tuple[str, ...] = Field(description="The items of checklists that it answers.")


class ReportData(_Data):
    """A run's report."""

    format: int = Field(FORMAT, description="Of this file; a later one has a higher number.")
    title: str
    description: str
    byline: str
    status: str
    study_digest: str
    kept_round: int | None
    sections: tuple[SectionData, ...]
    metrics: tuple[MetricData, ...]
    split: tuple[SplitData, ...]
    traffic: tuple[TrafficData, ...]
    privacy: tuple[PrivacyData, ...]
    model_card: tuple[FieldData, ...] = Field(description="Empty where the run kept no model.")
    data_sheet: tuple[FieldData, ...]
    study: str = Field(description="The study file, TOML.")


def report_data(contents: RunContents, documents: Documents) -> ReportData:
    """Return a run's report as data."""
    report, facts = make_report(contents), contents.facts
    return ReportData(
        title=report.title,
        description=report.description,
        byline=report.byline,
        status=facts.status,
        study_digest=facts.digest,
        kept_round=facts.best_round if facts.best_round >= 0 else None,
        sections=tuple(_section(one) for one in report.parts),
        metrics=tuple(MetricData.model_validate(one) for one in _rows(contents.metrics)),
        split=tuple(SplitData.model_validate(one) for one in _rows(contents.split)),
        traffic=tuple(TrafficData.model_validate(one) for one in _rows(contents.traffic)),
        privacy=tuple(PrivacyData.model_validate(one) for one in _rows(contents.privacy)),
        model_card=field_data(documents.model_card),
        data_sheet=field_data(documents.data_sheet),
        study=report.study_text,
    )


def write_json(contents: RunContents, documents: Documents) -> str:
    """Return the report as JSON."""
    return report_data(contents, documents).model_dump_json(indent=2) + "\n"


def field_data(fields: Sequence[DocumentField]) -> tuple[FieldData, ...]:
    """Return a document's fields as data."""
    return tuple(
        FieldData(
            key=one.key,
            section=one.section,
            title=one.title,
            known_by=one.known_by,
            filled_by=one.filled_by,
            answer=one.answer,
            items=one.items,
        )
        for one in fields
    )


def _rows(
    rows: Sequence[MetricRow] | Sequence[SplitRow] | Sequence[TrafficRow] | Sequence[PrivacyRow],
) -> Iterator[dict[str, object]]:
    for row in rows:
        yield {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(row).items()
        }


def _section(section: Section) -> SectionData:
    return SectionData(
        anchor=section.anchor,
        title=section.title,
        answer=section.answer,
        charts=tuple(_chart(figure) for figure in section.figures),
        tables=tuple(_table(table) for table in section.tables),
        pictures=tuple(
            PictureData(alternative=one.alternative, caption=one.caption) for one in section.images
        ),
        notes=section.notes,
    )


def _chart(figure: Figure) -> TableData:
    numbers = figure.numbers
    if numbers is None:
        return TableData(caption=figure.caption, corner="", columns=(), rows=())
    rows = ((first, tuple(Cell(text) for text in cells)) for first, *cells in numbers.rows)
    corner, *columns = numbers.columns
    return _table(Table(figure.caption, corner, tuple(columns), tuple(rows)))


def _table(table: Table) -> TableData:
    return TableData(
        caption=table.caption,
        corner=table.corner,
        columns=table.columns,
        rows=tuple(
            RowData(heading=heading, cells=tuple(_cell(cell) for cell in cells))
            for heading, cells in table.rows
        ),
    )


def _cell(cell: Cell) -> CellData:
    try:
        value: float | None = float(cell.text.translate(_PLAIN))
    except ValueError:
        value = None
    if value is not None and not math.isfinite(value):
        value = None
    return CellData(text=cell.text, value=value, note=cell.note)
