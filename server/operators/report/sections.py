"""The parts of a page about a run; a hospital's numbers stand as it let them out."""

from collections import Counter
from collections.abc import Iterable, Sequence

from wardround.common.errors import WardroundError
from wardround.common.html.charts.small import draw_boxes
from wardround.common.runtime.printable import printable
from wardround.server.operators.messages import Refusal, RunRecord
from wardround.server.operators.report.course import draw_course
from wardround.server.operators.report.evidence import told as evidence_told
from wardround.server.operators.report.parts import section, size_words, table, told, whole_table
from wardround.server.operators.report.privacy import privacy_words
from wardround.server.operators.run_summaries import WITHHELD, ranges

_MOST_BOXES = 150


def course_section(record: RunRecord, level: int = 2, most_rows: int = 0) -> str:
    """Return the metric by round, as a chart and as a table.

    Args:
        most_rows: Of the table, the last; 0 for all.
    """
    figure = draw_course(record)
    if figure is None:
        reason = told(WITHHELD.removeprefix("no value: "))
        nothing = f"<p>No metric was measured, or none was let out: {reason}.</p>"
        return section("How it went", nothing, level)
    return section("How it went", figure.html + table(*_values(record, most_rows)), level)


def _values(
    record: RunRecord, most_rows: int
) -> tuple[str, Sequence[str], Iterable[Sequence[str]]]:
    history, done = record.details.history[-most_rows:], record.details.summary.round
    rows = [
        (
            str(one.round) if one.sites or one.round <= done else "end",
            "–" if one.value is None else f"{one.value:.4f}",
            f"{one.seconds:.1f}" if one.sites else "–",
            str(len(one.sites)) if one.sites else "lost" if one.round <= done else "–",
        )
        for one in history
    ]
    head = ("round", record.details.summary.metric, "seconds", "sites")
    missing = "" if all(one.value is not None for one in history) else f" –: {WITHHELD}."
    caption = f"Each round, with the metric of the model that it began with.{missing}"
    return caption, head, rows


def evidence_section(record: RunRecord, level: int = 2) -> str:
    """Return what left the sites as evidence; "" where nothing did."""
    if not record.details.evidence:
        return ""
    found = evidence_told(record.details.evidence)
    lead = (
        "<p>Sums of the sites' test patients, told once, of the model that the run keeps. Nothing "
        "else of these patients left a hospital.</p>"
    )
    notes = table("What each site tells.", ("site", "tells"), found.notes, style="text")
    return section("Evidence", lead + notes + "".join(table(*one) for one in found.tables), level)


def participation_section(record: RunRecord, level: int = 2) -> str:
    """Return who took part in which round, and why not; "" before the first."""
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
        rows.append(f'<tr><th scope="row">{told(site)}</th>{cells}</tr>')
    head = ("site", "took part", f"rounds, the last {_MOST_BOXES} at most", "in rounds")
    who = whole_table("Who took part in which round.", head, rows, head[2:])
    why = table(*_reasons(record), style="text") if record.details.refusals else ""
    return section("Who took part, and why not", who + why, level)


def _mark(
    reasons: dict[tuple[int, str], str], there: set[tuple[int, str]], number: int, site: str
) -> str:
    if (number, site) in there:
        return "took part"
    return printable(reasons.get((number, site), "was not drawn, or had not joined"))


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


def cost_section(record: RunRecord, level: int = 2) -> str:
    """Return bytes and seconds of each site; "" before the first round."""
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
                size_words(sum(one.bytes_down for one in own)),
                size_words(sum(one.bytes_up for one in own)),
                f"{sum(seconds) / len(own):.1f}" if any(seconds) else "not let out",
            )
        )
    head = ("site", "rounds", "received", "sent", "seconds a round")
    caption = "Models that each site received and sent, and its own time for training."
    return section("What it cost", table(caption, head, rows), level)


def privacy_section(record: RunRecord, level: int = 2) -> str:
    """Return what was promised, and what of that was spent."""
    return privacy_list(privacy_sentences(record), level)


def privacy_list(sentences: Iterable[str], level: int = 2) -> str:
    """Return the section that says what was promised and spent."""
    listed = "".join(f"<li>{told(line)}</li>\n" for line in sentences)
    return section("Privacy", f"<ul>\n{listed}</ul>", level)


def privacy_sentences(record: RunRecord) -> tuple[str, ...]:
    """Return what was promised and spent; for patients' privacy it takes seconds."""
    try:
        return privacy_words(record.study, count_rounds(record))
    except WardroundError as error:  # the accountant is not installed here
        return (str(error),)


def count_rounds(record: RunRecord) -> dict[str, int]:
    """Return how many answers of each site were counted."""
    return dict(Counter(one.site for one in record.parts))
