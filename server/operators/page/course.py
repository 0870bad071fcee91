"""The course of the runs that a page shows: how far they are, their rounds, what happened."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from wardround.server.operators.messages import RunEvent, RunRecord, RunSummary
from wardround.server.operators.page.lookout import ShownRun
from wardround.server.operators.page.overview import badge, clock_words
from wardround.server.operators.report.parts import told
from wardround.server.operators.report.sections import (
    cost_section,
    course_section,
    evidence_section,
    participation_section,
    privacy_list,
)
from wardround.server.operators.run_events import event_words

_EVENTS_SHOWN = 60
_ROUNDS_SHOWN, _ROWS_SHOWN = 100, 30


def now_part(shown: Sequence[ShownRun]) -> str:
    """Return how far the runs are."""
    return "".join(_now(one) for one in shown) or '<p class="small">No study was submitted yet.</p>'


def _now(one: ShownRun) -> str:
    run = one.summary
    missing = run.standing.removeprefix(run.state)
    value = "" if run.value is None else f"{told(run.metric)} {run.value:.4f}"
    lines = [
        f"<p>{badge(run.state)}{told(missing)} <strong>{_how_far(run)}</strong> {value}</p>",
        f'<progress max="{max(run.rounds, 1)}" value="{run.round}" '
        f'aria-label="rounds of {told(run.run)}">{_how_far(run)}</progress>',
    ]
    said = [run.message]
    if one.record is not None and not run.is_over:
        said.append(one.record.details.deadlines)
    lines += [f'<p class="small">{told(text)}</p>' for text in said if text]
    return f"<section><h3>{told(run.run)}</h3>\n{''.join(lines)}\n</section>\n"


def _how_far(run: RunSummary) -> str:
    return f"round {run.round} of {run.rounds}" if run.rounds else "not begun"


def course_part(shown: Sequence[ShownRun], privacy: Callable[[RunRecord], Sequence[str]]) -> str:
    """Return the rounds of the runs: metric, who took part, what it cost, what was spent.

    Args:
        privacy: Returns what is told of a run's privacy, in sentences.
    """
    parts = []
    for one in shown:
        if one.record is None or not one.record.details.history:
            continue
        recent = _recent(one.record)
        sections = (
            _cut_words(one.record),
            course_section(recent, 4, _ROWS_SHOWN),
            evidence_section(one.record, 4),
            participation_section(recent, 4),
            privacy_list(privacy(one.record), 4),
            cost_section(one.record, 4),
        )
        parts.append(f"<section><h3>{told(one.summary.run)}</h3>\n{''.join(sections)}</section>\n")
    return "".join(parts) or '<p class="small">No round has ended yet.</p>'


def _recent(record: RunRecord) -> RunRecord:
    """Return a record whose long course is cut: it is drawn again after each round."""
    history = record.details.history[-_ROUNDS_SHOWN:]
    first = history[0].measured_round
    values = tuple(one for one in record.values if one.round >= first)
    return replace(record, details=replace(record.details, history=history), values=values)


def _cut_words(record: RunRecord) -> str:
    if len(record.details.history) <= _ROUNDS_SHOWN:
        return ""
    return (
        f'<p class="small">Of {len(record.details.history)} rounds the last {_ROUNDS_SHOWN} are '
        "drawn here; the report, behind the run's name in the list, has all.</p>"
    )


def events_part(shown: Sequence[ShownRun]) -> str:
    """Return what happened in the runs, the last first."""
    found = [(event, one.summary.run) for one in shown for event in one.events]
    found.sort(key=lambda pair: pair[0].time or 0.0)
    if not found:
        return '<p class="small">Nothing has happened yet.</p>'
    several = len(shown) > 1
    lines = [_event(event, run if several else "") for event, run in reversed(found)]
    return (
        '<div class="log" tabindex="0" role="group" aria-label="events, the last first" '
        f'data-key="log"><ul>{"".join(lines[:_EVENTS_SHOWN])}</ul></div>'
    )


def _event(event: RunEvent, run: str) -> str:
    named = f"{told(run)}: " if run else ""
    return f"<li><time>{clock_words(event.time)}</time> {named}{told(event_words(event))}</li>"
