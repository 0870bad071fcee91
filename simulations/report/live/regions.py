"""The parts of a simulation's page: from what is known to HTML, and nothing else."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.figure import Figure, line_figure
from wardround.common.html.charts.line_chart import LineChart, Point
from wardround.common.html.charts.line_chart import Series as Line
from wardround.common.html.charts.looks import FEDERATION, Look
from wardround.common.html.charts.site_series import site_series
from wardround.common.html.parts import Html, bullets, facts, joined, section, table, tag
from wardround.common.runtime.printable import printable
from wardround.simulations.report.live.state import (
    TOGETHER,
    Happening,
    Outcome,
    RunState,
    Series,
    SiteLine,
    Stage,
)
from wardround.simulations.report.live.words import (
    NOTHING,
    bytes_words,
    clock,
    metric_title,
    number,
    seconds_words,
)
from wardround.simulations.run_files.folder import FEDERATED, UNPROTECTED

_MOST_ROUNDS = 50  # in the table; the chart has all of them
_MOST_POINTS = 400  # of a line of the chart
_TENTHS = 10
_TOLD_BY_TENTHS = (FEDERATED, UNPROTECTED)  # comparison models go side by side, two at a time
REGIONS = ("summary", "now", "outcome", "runs", "stages", "course", "sites", "rounds", "events")
_STANDING = {
    "beginning": "The simulation begins.",
    "not begun": "This run has not begun.",
    "nothing": "The simulation ended before its first round; nothing was written.",
    "interrupted": "The simulation was interrupted.",
    "failed": "The simulation failed.",
    "finished": "The simulation is finished.",
}


def regions_of(known: RunState | Series, has_ended: bool = False) -> dict[str, str]:
    """Return every part of the page; one that has nothing to say is empty.

    Args:
        known: What the run folder says.
        has_ended: Whether the process that simulates has ended, and this page with it.
    """
    drawn = (
        _of_run(known, has_ended) if isinstance(known, RunState) else _of_series(known, has_ended)
    )
    # At one door: nothing that others wrote turns the words around.
    return {name: printable(html, sys.maxsize, lines=True) for name, html in drawn.items()}


def _of_series(known: Series, has_ended: bool) -> dict[str, str]:
    shown = dict(known.runs).get(known.shown, RunState())
    parts = {**_of_run(shown, False), "outcome": "", "runs": _runs(known)}
    parts["summary"] = _headline(_summary_of_series(known), known.outcome)
    parts["now"] = _ended(has_ended)
    if known.outcome is not None:
        parts["outcome"] = _outcome(known.outcome)
    return parts


def _of_run(state: RunState, has_ended: bool) -> dict[str, str]:
    return {
        "summary": _headline(summary_of(state), state.outcome),
        "now": joined((_now(state), _ended(has_ended))),
        "outcome": "" if state.outcome is None else _outcome(state.outcome),
        "runs": "",
        "stages": _stages(state),
        "course": _course(state),
        "sites": _sites(state),
        "rounds": _rounds(state),
        "events": _events(state),
    }


def summary_of(state: RunState) -> str:
    """Return what is going on in a sentence; it changes with the stages and each tenth of a stage.

    A screen reader says it aloud whenever it changes, so it must not change with every round.
    """
    if state.outcome is not None:
        return state.outcome.sentence
    if state.standing != "running" and not (state.standing == "finished" and state.running):
        return _STANDING.get(state.standing, "The simulation is finished.")
    if not state.running:
        return "The simulation runs."
    words = []
    for stage in state.running:
        is_told = stage.rounds and stage.name in _TOLD_BY_TENTHS
        tenths = _TENTHS * stage.done // stage.rounds if is_told else 0
        of_it = f", {tenths * _TENTHS} % of {stage.rounds} rounds" if tenths else ""
        words.append(f"{stage.title}{of_it}")
    said = "; ".join(words)
    return f"{said[0].upper()}{said[1:]}."


def _summary_of_series(series: Series) -> str:
    if series.outcome is not None:
        return series.outcome.sentence
    done = sum(state.standing == "finished" for _, state in series.runs)
    known = f"{done} of {len(series.runs)} runs that are known so far are finished."
    return known if series.standing == "running" else f"{_STANDING[series.standing]} {known}"


def _headline(sentence: str, outcome: Outcome | None) -> Html:
    tone = "" if outcome is None else outcome.tone
    return tag("div", tag("h2", printable(sentence)), class_=f"headline {tone}".strip())


def _ended(has_ended: bool) -> str:
    if not has_ended:
        return ""
    words = (
        "The simulation's process has ended, and with it what serves this page: it can be read on "
        "here, and nothing more will change. 'wardround watch FOLDER' opens it again."
    )
    return tag("p", words, class_="banner")


def _now(state: RunState) -> Html:
    return facts(_now_facts(state))


def _now_facts(state: RunState) -> Iterator[tuple[str, str]]:
    if state.rounds_planned:
        done = state.rounds[-1].round if state.rounds else 0
        yield "rounds together", f"{done} of {state.rounds_planned}"
    measured = [one.value for one in state.rounds if not math.isnan(one.value)]
    if measured:
        yield metric_title(state.metric), f"{measured[-1]:.4f} on validation patients"
    if state.rounds:
        yield "a round takes", seconds_words(state.round_seconds)
    if not math.isnan(state.rounds_end):
        yield (
            "rounds end about",
            f"{clock(state.rounds_end)}; comparison models, tests and the report follow",
        )
    if state.sites:
        down, up = sum(s.bytes_down for s in state.sites), sum(s.bytes_up for s in state.sites)
        yield "messages", f"{bytes_words(down)} to the sites, {bytes_words(up)} back"
    if state.privacy:
        yield "privacy", " ".join(state.privacy)


def _outcome(outcome: Outcome) -> Html:
    parts: list[str] = [bullets(printable(detail) for detail in outcome.details)]
    if outcome.sites:
        head = ("hospital", "own data alone", "federated", "pooled data", "gain", "verdict")
        caption = f"{outcome.metric} on the test patients of each hospital; ± is half an interval."
        rows = [tuple(map(printable, row)) for row in outcome.sites]
        parts.append(table(caption, head, rows, words=(5,)))
    if outcome.report:
        parts.append(tag("p", tag("a", "Open the whole report", href="files/report.html")))
    return section("What came of it", *parts, anchor="outcome")


def _runs(series: Series) -> Html:
    rows = []
    for name, state in series.runs:
        stage = state.running[0].title if state.running else NOTHING
        done = state.rounds[-1].round if state.rounds else 0
        value = state.rounds[-1].value if state.rounds else math.nan
        rounds = f"{done} of {state.rounds_planned}" if state.rounds_planned else NOTHING
        rows.append((printable(name), state.standing, stage, rounds, number(value)))
    metric = next((state.metric for _, state in series.runs if state.metric), "")
    head = ("run", "state", "at", "rounds together", metric_title(metric) or "metric")
    closer = f"Below, {series.shown} is looked at closely." if series.shown else ""
    caption = f"The runs of this series. {closer}"
    return section("Runs", table(caption, head, rows, words=(1, 2)), anchor="runs")


def _stages(state: RunState) -> str:
    if not state.stages:
        return ""
    head = ("part of the work", "state", "rounds", metric_title(state.metric) or "metric", "took")
    rows = [_stage(one, state.is_over) for one in state.stages]
    return section(
        "What it does",
        table("The parts of the work in their order.", head, rows, texts=(1,)),
        anchor="stages",
    )


def _stage(stage: Stage, is_over: bool) -> tuple[str, ...]:
    word = "done" if stage.ended is not None else "stopped" if is_over else "in hand"
    took = NOTHING
    if stage.ended is not None and stage.began is not None:
        took = seconds_words(stage.ended - stage.began)
    elif stage.began is not None:
        took = f"since {clock(stage.began)}"
    rounds = f"{stage.done} of {stage.rounds}" if stage.rounds else NOTHING
    return (stage.title, word, rounds, number(stage.value), took)


def _course(state: RunState) -> str:
    drawn = [figure.html for figure in (_metric_figure(state), _loss_figure(state)) if figure]
    if not drawn:
        return ""
    charts = tag("div", Html("".join(drawn)), class_="charts")
    return section("How it goes", charts, anchor="course")


def _metric_figure(state: RunState) -> Figure | None:
    series = [*site_series(_lines(state.values, but=TOGETHER))]
    together = next((name for name in TOGETHER if name in state.values), "")
    if together:
        thick = Look(FEDERATION, 0, 4.0)
        series.insert(0, Line(together, _points(state.values[together]), thick, most_marks=60))
    title = metric_title(state.metric)
    caption = f"{title} on validation patients, of the federated model after each round."
    return _figure(caption, series, title)


def _loss_figure(state: RunState) -> Figure | None:
    caption = "Training loss of each site in each round of training together."
    return _figure(caption, site_series(_lines(state.losses)), "training loss")


def _figure(caption: str, series: Sequence[Line], title: str) -> Figure | None:
    chart = LineChart(caption, tuple(series), Axis("round", "whole"), Axis(title))
    return line_figure(chart) if series else None


def _lines(
    values: Mapping[str, Mapping[int, float]], but: Sequence[str] = ()
) -> dict[str, tuple[Point, ...]]:
    return {name: _points(line) for name, line in sorted(values.items()) if name not in but}


def _points(values: Mapping[int, float]) -> tuple[Point, ...]:
    every, chosen = 1 + len(values) // _MOST_POINTS, sorted(values)
    kept = [*chosen[::every], *chosen[-1:]] if every > 1 else chosen
    return tuple(Point(number, values[number]) for number in dict.fromkeys(kept))


def _sites(state: RunState) -> str:
    known = {one.site: one for one in state.sites}
    names = dict.fromkeys((*state.known_sites, *known))
    if not names:
        return ""
    last = state.rounds[-1].round if state.rounds else 0
    head = (
        "site",
        "last round",
        "rounds",
        "updates",
        "training loss",
        "its time",
        "received",
        "sent",
        "last left out",
    )
    rows = [_site(known.get(name, SiteLine(name)), last, state.is_over) for name in names]
    caption = "Each site's part in training together; loss and time are those of its last round."
    return section("Sites", table(caption, head, rows, words=(1,), texts=(8,)), anchor="sites")


def _site(line: SiteLine, last: int, is_over: bool) -> tuple[str, ...]:
    left_out, reason = line.left_out
    return (
        printable(line.site),
        _presence(line, last, is_over),
        f"{line.rounds} of {last}" if last else NOTHING,
        str(line.updates) if line.updates else NOTHING,
        number(line.loss),
        NOTHING if math.isnan(line.seconds) else seconds_words(line.seconds),
        bytes_words(line.bytes_down),
        bytes_words(line.bytes_up),
        f"round {left_out}: {printable(reason)}" if left_out else NOTHING,
    )


def _presence(line: SiteLine, last: int, is_over: bool) -> str:
    if not last:
        return NOTHING if is_over else "waits for it"
    if line.last == last:
        return "took part"
    return "left out" if line.left_out[0] == last else "was not asked"


def _rounds(state: RunState) -> str:
    if not state.rounds:
        return ""
    shown = state.rounds[-_MOST_ROUNDS:][::-1]
    head = (
        "round",
        metric_title(state.metric),
        "sites",
        "updates",
        "seconds",
        "messages",
        "left out",
    )
    rows = [
        (
            str(one.round),
            number(one.value),
            str(one.sites),
            str(one.updates),
            f"{one.seconds:.1f}",
            bytes_words(one.bytes),
            printable(", ".join(one.left_out)) or NOTHING,
        )
        for one in shown
    ]
    is_cut = len(shown) < len(state.rounds)
    of_all = f"The last {len(shown)} of {len(state.rounds)} rounds" if is_cut else "Every round"
    caption = f"{of_all}, the newest first; the metric is that of the model it began with."
    return section("Rounds", table(caption, head, rows, words=(6,)), anchor="rounds")


def _events(state: RunState) -> str:
    if not state.happenings:
        return ""
    lines = [_happening(one) for one in reversed(state.happenings)]
    more = state.happened - len(state.happenings)
    note = (
        f"The last {len(lines)}, the newest first; {more} came before."
        if more
        else ("The newest first.")
    )
    listed = tag("ul", joined(lines), class_="log", tabindex="0", data_key="log")
    return section("What happened", tag("p", note, class_="small"), listed, anchor="events")


def _happening(one: Happening) -> Html:
    time = datetime.fromtimestamp(one.time, UTC)
    clock = tag("time", f"{time:%H:%M:%S}", datetime=time.isoformat(timespec="seconds"))
    tone = "lost" if one.is_trouble else ""
    return tag("li", joined((clock, " ", tag("span", one.words, class_=tone))))
