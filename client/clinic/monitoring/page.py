"""The page of a site's monitoring: what changed, since when, and plots; it loads nothing."""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape

from wardround.client.clinic.monitoring import plots
from wardround.client.clinic.monitoring.case import Case
from wardround.client.clinic.monitoring.comparison.evidence import SHARES, has_classes
from wardround.client.clinic.monitoring.image_statistics import STATISTICS
from wardround.client.clinic.monitoring.monitor import alpha_of, in_force, open_alarms
from wardround.client.clinic.monitoring.renewal import (
    CLOSED,
    LEARNING,
    PERIOD,
    TOO_FEW,
    Entry,
    InForce,
)
from wardround.client.clinic.monitoring.store import MonitorFolder, Reference
from wardround.common.html import read_style
from wardround.common.html.parts import Html, bullets, facts, joined, section, table, tag
from wardround.common.runtime.printable import printable

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_PLOTTED = 26  # periods: half a year of weeks
_VERDICTS = {
    "alarm": ("lost", "▼ alarm"),
    "notice": ("", "● worth a look"),
    "quiet": ("gained", "▲ quiet"),
    TOO_FEW: ("", "– too few"),
    LEARNING: ("", "– learnt"),
}


def page_of(monitor: MonitorFolder) -> str:
    """Return the page as HTML that holds all it shows."""
    reference, entries = monitor.reference, monitor.entries()
    periods = [entry for entry in entries if entry["kind"] == PERIOD]
    looked = [one for one in periods if one["verdict"] not in (TOO_FEW, LEARNING)][-_PLOTTED:]
    over = {name for entry in periods for name in (entry["period"], *entry["with"])}
    cases = monitor.cases()
    waiting = {name: len(some) for name, some in sorted(cases.items()) if name not in over}
    held = in_force(monitor)
    known = held.cases
    title = f"{reference.study}: monitoring"
    main = joined(
        (
            _alarms(entries),
            _reference(reference, held, waiting),
            *_plots(monitor, known, looked, cases),
            _table(entries),
            _how(reference),
        )
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(title)}</title>\n<style>{read_style()}</style>\n"
        f"</head>\n<body>\n{_head(reference, entries)}\n<main>\n"
        # At one door: no word of a manifest or a header turns the page around.
        f"{printable(main, sys.maxsize, lines=True)}"
        '</main>\n<footer><p class="small">This page stays at the hospital: its numbers are of its '
        "own patients. For research; not a medical device.</p></footer>\n</body>\n</html>\n"
    )


def _head(reference: Reference, entries: Sequence[Entry]) -> str:
    alarms = open_alarms(entries)
    looked = [entry for entry in entries if entry["kind"] == PERIOD]
    if alarms:
        since = alarms[0].period
        said = (
            f"{len(alarms)} {'alarm is' if len(alarms) == 1 else 'alarms are'} open, since {since}"
        )
    elif looked:
        said = f"No alarm is open; {looked[-1]['period']} was looked at last"
    else:
        said = "No period has been looked at yet"
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    return (
        '<header>\n<p class="kicker">Wardround monitoring</p>\n'
        f"<h1>{escape(printable(reference.study))}</h1>\n"
        f'<p class="byline">Model {escape(printable(reference.model))} ({reference.digest[:8]}), '
        f"looked at every {reference.every}, {made} (UTC).</p>\n"
        f'<div class="headline {"bad" if alarms else "good"}"><h2>{escape(said)}</h2></div>\n'
        "</header>"
    )


def _alarms(entries: Sequence[Entry]) -> Html:
    alarms = open_alarms(entries)
    if not alarms:
        return Html("")
    lines = [f"{one.period}: {text}" for one in alarms for text in one.words]
    ask = (
        "Look at some of the images and ask who runs the scanner. An alarm stays open until "
        "somebody closes it with a reason: wardround site monitor acknowledge."
    )
    return section("What changed", bullets(lines), tag("p", ask), anchor="alarms")


def _reference(reference: Reference, held: InForce, waiting: Mapping[str, int]) -> Html:
    known = held.cases
    scanners: dict[str, int] = {}
    for case in known:
        scanners[case.scanner] = scanners.get(case.scanner, 0) + 1
    named = ", ".join(f"{name or 'not named'}: {count}" for name, count in sorted(scanners.items()))
    pairs = [
        ("images in the reference", str(len(known))),
        ("set on", reference.created[:10]),
        ("false alarms expected a year", f"{reference.alarms_a_year:g}"),
        *((f"{period} runs", f"{count} images so far") for period, count in waiting.items()),
    ]
    if held.lacking:
        pairs.append(("images that it lacks", f"{held.lacking}; periods are learnt until then"))
    if set(scanners) != {""}:
        pairs.append(("scanners of the reference", named))
    return section("What it is held against", facts(pairs), anchor="reference")


def _plots(
    monitor: MonitorFolder,
    known: Sequence[Case],
    looked: Sequence[Entry],
    cases: Mapping[str, Sequence[Case]],
) -> list[Html]:
    if not looked:
        return []
    periods = {
        str(entry["period"]): [
            case for name in (*entry["with"], entry["period"]) for case in cases.get(name, ())
        ]
        for entry in looked
    }
    periods = {name: some for name, some in periods.items() if some}
    said = plots.classes_plot(known, periods) if has_classes(known) else plots.outputs_plot(looked)
    found = (
        ("Is there a change?", [plots.evidence_plot(looked)]),
        ("What the images look like", plots.statistics_plots(looked)),
        ("What the model says", [said, plots.confidence_plot(known, periods)]),
        (
            "How well it does",
            [plots.performance_plot(known, periods, monitor.truths())],
        ),
    )
    return [
        section(title, *(Html(one) for one in some if one), anchor=f"plots-{place}")
        for place, (title, some) in enumerate(found)
        if any(some)
    ]


def _table(entries: Sequence[Entry]) -> Html:
    if not entries:
        return Html("")
    rows = []
    for entry in reversed(entries):
        if entry["kind"] == CLOSED:
            told = f"{entry['account']} closed {entry['alarms']}: {entry['reason']}"
            rows.append((str(entry["at"])[:10], "", "closed", _broken(told)))
            continue
        tone, mark = _VERDICTS[entry["verdict"]]
        told = " ".join([*entry["alarms"], *entry["notices"]])
        rows.append(
            (entry["period"], str(entry["cases"]), tag("span", mark, class_=tone), _broken(told))
        )
    caption = "Every period that was looked at, and every alarm that was closed, the last first."
    head = ("period", "images", "", "what was found")
    return section("Periods", table(caption, head, rows, texts=(3,), words=(2,)), anchor="periods")


def _broken(text: str) -> Html:
    """Return a cell whose text is broken into lines: a table's cells are not."""
    return tag("span", text, style="white-space:normal;display:block;min-width:18rem")


def _how(reference: Reference) -> Html:
    alpha = alpha_of(reference)
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in SHARES.items())
    statistics = "; ".join(f"{name}: {told}" for name, told in STATISTICS.items())
    lines = (
        f"Alarms are rationed (alpha spending): a year without any change is expected to have "
        f"{reference.alarms_a_year:g} false alarms, so a {reference.every} has one with "
        f"probability {alpha:.2g} at most. That is shared: {shares}.",
        "Single image statistics: Kolmogorov and Smirnov, corrected by Holm. All together: maximum "
        "mean discrepancy by permutation. Predicted classes: chi-square against the reference's "
        "rates (BBSE), with images of earlier periods until there are 100; other predictions: "
        "Kolmogorov and Smirnov. Labels that came later: accuracy and loss.",
        "Worth a look is what has p < 0.05 in its family alone: about one quiet period in six has "
        "such a finding. It is no alarm.",
        f"Image statistics, of the image as it was read: {statistics}.",
    )
    return section("How it was looked", *(tag("p", line) for line in lines), anchor="how")
