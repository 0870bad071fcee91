"""One self-contained page about a deployed run; a hospital's numbers stand as it let them out."""

from html import escape
from pathlib import Path

from wardround.common.errors import InputError
from wardround.common.files.atomic import READABLE, replace_file
from wardround.common.html import read_style
from wardround.server.operators.messages import RunRecord
from wardround.server.operators.report.parts import section, time_words
from wardround.server.operators.report.sections import (
    cost_section,
    course_section,
    evidence_section,
    participation_section,
    privacy_section,
)

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
        course_section(record),
        evidence_section(record),
        participation_section(record),
        cost_section(record),
        privacy_section(record),
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
    times = f"started {time_words(run.started)}, ended {time_words(run.ended)} (UTC)"
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


def _origin(record: RunRecord) -> str:
    facts = {
        "study's digest": record.details.summary.digest,
        "server": f"wardround {record.server}",
        "process started": f"{record.details.starts} times",
    }
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    study = f"<details><summary>The study file</summary><pre>{escape(record.study)}</pre></details>"
    return section("Where it comes from", f"<dl>{listed}</dl>{study}")
