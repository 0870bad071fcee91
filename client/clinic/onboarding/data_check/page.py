"""The page of a data check: what was found, who is to be looked at; it loads nothing."""

from collections.abc import Iterable, Sequence
from html import escape

from wardround.client.clinic.onboarding.data_check.findings import Counts, DataReport, Finding
from wardround.common.html import read_style
from wardround.common.html.charts.bar_chart import Bar, BarChart
from wardround.common.html.charts.figure import bar_figure, tabulate_bars

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_MARKS = {"fault": ("lost", "▼ fault"), "look": ("", "● look"), "ok": ("gained", "▲ ok")}
_ORDER = ("fault", "look", "ok")


def page_of(report: DataReport) -> str:
    """Return a report as HTML that holds all it shows."""
    sections = (_findings(report), _suspects(report), _counts(report.counts), _how())
    title = f"{report.site}: data check"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(title)}</title>\n<style>{read_style()}</style>\n"
        f"</head>\n<body>\n{_head(report)}\n<main>\n{''.join(filter(None, sections))}</main>\n"
        '<footer><p class="small">This page stays at the site. Rows are those of the manifest, as '
        "a spreadsheet counts them. For research; not a medical device.</p></footer>\n"
        "</body>\n</html>\n"
    )


def _head(report: DataReport) -> str:
    held = f"{report.examinations} examinations of {report.patients} patients"
    study = f"Held against the study {report.study}" if report.study else "Without a study"
    counts = dict.fromkeys(_ORDER, 0)
    for finding in report.findings:
        counts[finding.status] += 1
    tone = "bad" if counts["fault"] else "good"
    told = f"{counts['fault']} faults, {counts['look']} things to look at, {counts['ok']} in order"
    return (
        '<header>\n<p class="kicker">Wardround data check</p>\n'
        f"<h1>{escape(report.site)}</h1>\n"
        f'<p class="byline">{escape(held)}. {escape(study)}, {escape(report.made)} (UTC).</p>\n'
        f'<div class="headline {tone}"><h2>{escape(told)}</h2></div>\n</header>'
    )


def _findings(report: DataReport) -> str:
    rows = []
    for status in _ORDER:
        rows += [_finding(one) for one in report.findings if one.status == status]
    head = ("what", "", "found", "what to do")
    return _section("What was found", _table("Each thing that was looked for.", head, rows))


def _finding(finding: Finding) -> str:
    tone, mark = _MARKS[finding.status]
    cells = "".join(
        f'<td class="text" style="white-space:normal">{escape(text)}</td>'
        for text in (finding.fact, finding.remedy)
    )
    return (
        f'<tr><th scope="row">{escape(finding.name)}</th>'
        f'<td class="text {tone}">{escape(mark)}</td>{cells}</tr>'
    )


def _suspects(report: DataReport) -> str:
    if not report.suspects:
        return ""
    rows = [
        f'<tr><th scope="row">{one.row}</th><td class="text">{escape(one.labelled[0])}</td>'
        f"<td>{one.labelled[1]:.2f}</td>"
        f'<td class="text">{escape(one.suggested[0])}</td><td>{one.suggested[1]:.2f}</td></tr>'
        for one in report.suspects
    ]
    head = ("row", "labelled", "its probability", "rather", "its probability")
    caption = "Labels that a small model of your own data doubts, the surest doubts first."
    return _section("Labels to look at", _table(caption, head, rows))


def _counts(counts: Sequence[Counts]) -> str:
    figures = []
    for one in counts:
        bars = tuple(Bar(name, values) for name, values in one.bars)
        chart = BarChart(one.title, one.parts, bars, one.unit)
        figure = bar_figure(chart, tabulate_bars(one.title, chart))
        figures += [figure.html] if figure is not None else []
    return _section("What there is", "".join(figures)) if figures else ""


def _how() -> str:
    lines = (
        "Duplicates: the same pixels, whatever the file. Near duplicates: two patients whose "
        "lowest frequencies (pHash) and small pictures agree; of a volume, its middle slices.",
        "Outliers: the 1st, 50th and 99th percentile of each image against those of all others, in "
        "robust standard deviations (from the median distance to the median).",
        "Labels: confident learning (Northcutt et al., 2021). A small model is trained on four "
        "fifths of the patients and asked about the others; its doubts are hints. Rare but right "
        "findings are among them, and errors that look like the rule are not.",
    )
    return _section("How it was looked", "".join(f"<p>{escape(line)}</p>" for line in lines))


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>\n"


def _table(caption: str, head: Sequence[str], rows: Iterable[str]) -> str:
    columns = "".join(f'<th scope="col" class="text">{escape(name)}</th>' for name in head)
    return (
        f'<div class="wide"><table>\n<caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>\n{''.join(rows)}\n</tbody></table></div>\n"
    )
