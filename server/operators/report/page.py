"""One self-contained page about a deployed run; a hospital's numbers stand as it let them out."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from wardround.common.errors import InputError, WardroundError
from wardround.common.files.atomic import READABLE, replace_file
from wardround.common.html import read_style
from wardround.common.html.charts.small import draw_boxes
from wardround.server.operators.messages import Refusal, RunRecord
from wardround.server.operators.report.course import draw_course
from wardround.server.operators.report.evidence import told as evidence_told
from wardround.server.operators.report.privacy import privacy_words
from wardround.server.operators.run_summaries import WITHHELD, ranges

_MOST_BOXES = 150
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def write_report(record: RunRecord, path: Path) -> None:
    """Write the page of a run.

    Raises:
        InputError: It cannot be written there.
    """
    try:
        replace_file(path, page_of(record).encode(), READABLE)
    except OSError as error:
        msg = f"cannot write {path} ({error.strerror}): choose another file with --out."
        raise InputError(msg) from None


def page_of(record: RunRecord) -> str:
    """Return the page of a run as HTML that loads nothing."""
    run = record.details.summary
    sections = (
        _course(record),
        _evidence(record),
        _participation(record),
        _cost(record),
        _privacy(record),
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(run.run)}: Wardround report</title>\n<style>{read_style()}</style>\n"
        f"</head>\n<body>\n{_head(record)}\n<main>\n{''.join(filter(None, sections))}"
        f'{_origin(record)}</main>\n<footer><p class="small">For research; not a medical device. '
        "This page holds everything it shows and loads nothing from a network.</p></footer>\n"
        "</body>\n</html>\n"
    )


def _head(record: RunRecord) -> str:
    details, run = record.details, record.details.summary
    times = f"started {_time(run.started)}, ended {_time(run.ended)} (UTC)"
    lines = [f"Run {run.run} {run.standing}; {run.round} of {run.rounds} rounds; {times}."]
    lines += [f"Sites of the last round: {', '.join(details.sites)}."] if details.sites else []
    lines += (
        [f"{details.deadlines[0].upper()}{details.deadlines[1:]}."] if details.deadlines else []
    )
    banner = f'<p class="banner" role="note">{escape(run.message)}</p>' if run.message else ""
    told = "".join(f'<p class="byline">{escape(line)}</p>\n' for line in lines)
    return (
        '<header>\n<p class="kicker">Wardround report of a run between hospitals</p>\n'
        f"<h1>{escape(run.study)}</h1>\n{told}{banner}</header>"
    )


def _course(record: RunRecord) -> str:
    figure = draw_course(record)
    if figure is None:
        reason = escape(WITHHELD.removeprefix("no value: "))
        nothing = f"<p>No metric was measured, or none was let out: {reason}.</p>"
        return _section("How it went", nothing)
    return _section("How it went", figure.html + _table(*_values(record)))


def _values(record: RunRecord) -> tuple[str, Sequence[str], Iterable[Sequence[str]]]:
    history = record.details.history
    rows = [
        (
            str(one.round) if one.sites else "end",
            "–" if one.value is None else f"{one.value:.4f}",
            f"{one.seconds:.1f}" if one.sites else "–",
            str(len(one.sites)) if one.sites else "–",
        )
        for one in history
    ]
    head = ("round", record.details.summary.metric, "seconds", "sites")
    missing = "" if all(one.value is not None for one in history) else f" –: {WITHHELD}."
    caption = f"Each round, with the metric of the model that it began with.{missing}"
    return caption, head, rows


def _evidence(record: RunRecord) -> str:
    if not record.details.evidence:
        return ""
    found = evidence_told(record.details.evidence)
    lead = (
        "<p>Sums of the sites' test patients, told once, of the model that the run keeps. Nothing "
        "else of these patients left a hospital.</p>"
    )
    notes = _table("What each site tells.", ("site", "tells"), found.notes, style="text")
    return _section("Evidence", lead + notes + "".join(_table(*one) for one in found.tables))


def _participation(record: RunRecord) -> str:
    rounds = [one for one in record.details.history if one.sites]
    if not rounds:
        return ""
    reasons = {(one.round, told.site): told.reason for one in rounds for told in one.refusals}
    there = {(one.round, site) for one in rounds for site in one.sites}
    sites = sorted({site for _, site in (*there, *reasons)} | set(record.details.sites))
    rows = []
    for site in sites:
        took = [one.round for one in rounds if (one.round, site) in there]
        marks = [
            (one.round in took, f"round {one.round}: {_mark(reasons, there, one.round, site)}")
            for one in rounds[-_MOST_BOXES:]
        ]
        boxes = f'<td class="text">{draw_boxes(marks)}</td>'
        text = f'<td class="text">{ranges(took) or "–"}</td>'
        cells = f"<td>{len(took)} of {len(rounds)}</td>{boxes}{text}"
        rows.append(f'<tr><th scope="row">{escape(site)}</th>{cells}</tr>')
    head = ("site", "took part", f"rounds, the last {_MOST_BOXES} at most", "in rounds")
    table = _whole_table("Who took part in which round.", head, rows)
    why = _table(*_reasons(record), style="text") if record.details.refusals else ""
    return _section("Who took part, and why not", table + why)


def _mark(
    reasons: dict[tuple[int, str], str], there: set[tuple[int, str]], number: int, site: str
) -> str:
    if (number, site) in there:
        return "took part"
    return reasons.get((number, site), "was not drawn, or had not joined")


def _reasons(record: RunRecord) -> tuple[str, Sequence[str], Iterable[Sequence[str]]]:
    def rounds(about: Refusal) -> str:
        key = (about.site, about.reason, about.asked)
        return ranges(
            one.round
            for one in record.details.history
            for told in one.refusals
            if (told.site, told.reason, told.asked) == key
        )

    rows = [(one.site, one.asked, rounds(one), one.reason) for one in record.details.refusals]
    return "Why a site did not take part.", ("site", "asked for", "rounds", "why"), rows


def _cost(record: RunRecord) -> str:
    if not record.parts:
        return ""
    rows = []
    for site in sorted({one.site for one in record.parts}):
        own = [one for one in record.parts if one.site == site]
        seconds = [one.seconds for one in own]
        rows.append(
            (
                site,
                str(len(own)),
                _bytes(sum(one.bytes_down for one in own)),
                _bytes(sum(one.bytes_up for one in own)),
                f"{sum(seconds) / len(own):.1f}" if any(seconds) else "not let out",
            )
        )
    head = ("site", "rounds", "received", "sent", "seconds a round")
    caption = "Models that each site received and sent, and its own time for training."
    return _section("What it cost", _table(caption, head, rows))


def _privacy(record: RunRecord) -> str:
    counted: dict[str, int] = {}
    for one in record.parts:
        counted[one.site] = counted.get(one.site, 0) + 1
    try:
        words = privacy_words(record.study, counted)
    except WardroundError as error:  # the accountant is not installed here
        words = (str(error),)
    listed = "".join(f"<li>{escape(line)}</li>\n" for line in words)
    return _section("Privacy", f"<ul>\n{listed}</ul>")


def _origin(record: RunRecord) -> str:
    facts = {
        "study's digest": record.details.summary.digest,
        "server": f"wardround {record.server}",
        "process started": f"{record.details.starts} times",
    }
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    study = f"<details><summary>The study file</summary><pre>{escape(record.study)}</pre></details>"
    return _section("Where it comes from", f"<dl>{listed}</dl>{study}")


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>\n"


def _table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], style: str = ""
) -> str:
    lines = []
    for first, *others in rows:
        cells = "".join(f'<td class="{style}">{escape(cell)}</td>' for cell in others)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return _whole_table(caption, head, lines)


def _whole_table(caption: str, head: Sequence[str], rows: Iterable[str]) -> str:
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "\n".join(rows)
    return (
        f'<div class="wide"><table>\n<caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n"
    )


def _bytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
