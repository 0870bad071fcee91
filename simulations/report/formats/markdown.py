"""The report as Markdown: headings, sentences and tables that can be read in a repository."""

from collections.abc import Iterator, Sequence

from wardround.common.html.charts.figure import Numbers
from wardround.common.runtime.markdown import fenced, inline, table_lines
from wardround.simulations.report.charts.tables import Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.formats.parts import make_report
from wardround.simulations.report.sections.section import Section

_MOST_ROWS, _MOST_COLUMNS = 40, 12  # of a chart's numbers: more of them is in the JSON


def write_markdown(contents: RunContents, documents: Sequence[tuple[str, str]]) -> str:
    """Return the report as Markdown.

    Args:
        documents: The title and the address of what lies beside the report.
    """
    report = make_report(contents)
    lines = [f"# {inline(report.title)}: Wardround report", ""]
    for text in (report.description, report.byline):
        lines += [inline(text), ""] if text else []
    for part in report.parts:
        lines += _part(part)
    if documents:
        lines += ["## Documents", ""]
        lines += [f"- [{inline(title)}]({address})" for title, address in documents]
        lines.append("")
    if report.study_text:
        lines += ["## The study file", "", *fenced(report.study_text, "toml"), ""]
    lines.append("A simulation on one machine, for research; not a medical device.")
    return "\n".join(lines) + "\n"


def _part(section: Section) -> Iterator[str]:
    yield f"## {inline(section.title)}"
    yield ""
    yield from _answer(section)
    for figure in section.figures:
        yield from _chart(figure.caption, figure.numbers)
    for table in section.tables:
        yield from _table(table)
    pictures = [
        f"Picture, on the page alone: {one.caption or one.alternative}" for one in section.images
    ]
    for sentences in (pictures, section.notes):
        yield from (f"- {inline(sentence)}" for sentence in sentences)
        yield from ("",) if sentences else ()


def _answer(section: Section) -> Iterator[str]:
    for number, sentence in enumerate(section.answer):
        yield f"**{inline(sentence)}**" if number == 0 else inline(sentence)
        yield ""
    if not (section.answer or section.figures or section.tables or section.images):
        yield from ("The run has not come that far.", "")


def _chart(caption: str, numbers: Numbers | None) -> Iterator[str]:
    if numbers is None:
        return
    yield f"*{inline(caption)}*"
    yield ""
    rows = numbers.rows
    if len(numbers.columns) > _MOST_COLUMNS or not rows:
        yield f"{len(numbers.columns)} columns and {len(rows)} rows: see the page, or the JSON."
        yield ""
        return
    step = -(-len(rows) // _MOST_ROWS)
    kept = [row for number, row in enumerate(rows) if number % step == 0 or row is rows[-1]]
    yield from table_lines(numbers.columns, kept)
    if step > 1:
        yield f"Every {step}th of {len(rows)} rows; all are in the JSON."
        yield ""


def _table(table: Table) -> Iterator[str]:
    yield f"*{inline(table.caption)}*"
    yield ""
    rows = (
        (heading, *(f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in cells))
        for heading, cells in table.rows
    )
    yield from table_lines((table.corner, *table.columns), rows)
