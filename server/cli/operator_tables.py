"""What operators are shown: tables for people."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console, RenderableType
from rich.markup import escape as _without_markup
from rich.table import Column, Table

from wardround.common.runtime.printable import printable
from wardround.server.operators.messages import (
    RunDetails,
    RunSummary,
    ServerSummary,
    SiteSummary,
)
from wardround.server.operators.report.evidence import told
from wardround.server.operators.run_summaries import WITHHELD, ranges

_COLOURS = {
    "finished": "green",
    "running": "cyan",
    "waiting for sites": "yellow",
    "failed": "bold red",
    "stopped": "red",
}
_PRESENCE = {"connected": "[green]yes[/]", "lost": "[yellow]lost[/]", "away": "no"}
_DIGEST_SHOWN = 8  # tells a handful of studies apart in 80 columns; decisions take the whole digest


def escape(text: str) -> str:
    """Return text of a site or of a study, in which neither markup nor a control character acts."""
    return _without_markup(printable(text))


def show(*parts: RenderableType) -> None:
    """Print tables and lines."""
    console = Console()
    for part in parts:
        console.print(part)


def runs_table(runs: Sequence[RunSummary]) -> RenderableType:
    """Return a row a run."""
    if not runs:
        return "No study was submitted yet."
    table = Table(Column("run", no_wrap=True), "digest", "state", "round", "metric", "submitted")
    table.caption = "Times in UTC"
    for run in runs:
        table.add_row(
            escape(run.run),
            escape(run.digest[:_DIGEST_SHOWN]),
            _standing(run),
            _of(run.round, run.rounds),
            escape(_metric(run.metric, run.value)),
            _time(run.submitted),
        )
    return table


def run_page(details: RunDetails) -> list[RenderableType]:
    """Return all that is known of a run."""
    run = details.summary
    head = [
        f"[bold]{escape(run.run)}[/]  {escape(run.study)}  {_standing(run)}",
        f"digest {escape(run.digest)}",
        f"submitted {_time(run.submitted)}  started {_time(run.started)}  ended {_time(run.ended)}",
        f"sites: {escape(', '.join(details.sites)) or 'not known yet'}",
    ]
    if details.deadlines and not run.is_over:
        head.append(escape(details.deadlines))
    if run.message:
        head.append(escape(run.message))
    parts: list[RenderableType] = ["\n".join(head)]
    if details.history:
        parts.append(_rounds(details))
    if details.refusals:
        parts.append(_refusals(details))
    if details.evidence:
        parts.extend(_evidence(details))
    return parts


def _evidence(details: RunDetails) -> list[Table]:
    """Return what left the sites as evidence, a table a pack."""
    found = told(details.evidence)
    notes = Table("site", "tells", title="Evidence")
    for site, note in found.notes:
        notes.add_row(escape(site), escape(note))
    tables = [notes]
    for caption, head, rows in found.tables:
        table = Table(*head, title=escape(caption))
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        tables.append(table)
    return tables


def _rounds(details: RunDetails) -> Table:
    metric = f"{escape(details.summary.metric)} of the model it began with"
    table = Table("round", metric, "seconds", "sites")
    if any(record.value is None for record in details.history):
        table.caption = f"-  {escape(WITHHELD)}"
    for record in details.history:
        is_lost = not record.sites and record.round <= details.summary.round
        name = str(record.round) if record.sites or is_lost else "end"
        value = "-" if record.value is None else f"{record.value:.4f}"
        sites = "lost: no sum" if is_lost else escape(", ".join(record.sites))
        table.add_row(name, value, f"{record.seconds:.1f}", sites)
    return table


def _refusals(details: RunDetails) -> Table:
    table = Table("site", "asked for", "why it did not take part", "rounds")
    for one in details.refusals:
        about = (one.site, one.reason, one.asked)
        rounds = [
            record.round
            for record in details.history
            for told in record.refusals
            if (told.site, told.reason, told.asked) == about
        ]
        table.add_row(escape(one.site), escape(one.asked), escape(one.reason), ranges(rounds))
    return table


def sites_table(sites: Sequence[SiteSummary]) -> RenderableType:
    """Return a row a site."""
    if not sites:
        return "No site has joined yet: wardround server invite SITE."
    table = Table(
        "site", "connected", "last seen", "joined", "certificate until", caption="Times in UTC"
    )
    tells = any(site.monitoring for site in sites)
    if tells:
        table.add_column("monitoring")
    for site in sites:
        connected = _PRESENCE[site.presence]
        seen = "never" if site.seen is None else _time(site.seen)
        told = [_monitoring(site)] if tells else []
        table.add_row(escape(site.site), connected, seen, _time(site.joined), _until(site), *told)
    return table


def _monitoring(site: SiteSummary) -> str:
    if not site.monitoring:
        return "-"
    word = f"[bold red]{site.monitoring}[/]" if site.monitoring == "alarm" else site.monitoring
    return f"{word} {_time(site.monitored)}"


def _until(site: SiteSummary) -> str:
    if site.revoked:
        return "[bold red]revoked[/]"
    if site.expires is not None and site.expires < time.time():
        return f"[bold red]expired[/] {_time(site.expires)}"
    return _time(site.expires)


def server_words(server: ServerSummary) -> str:
    """Return how a server stands."""
    runs = ", ".join(f"{count} {state}" for state, count in sorted(server.runs.items()))
    link = "open" if server.link_is_up else "not open yet, or its process fell: link/link.log"
    return (
        f"{server.name}: wardround {server.version}, started {_time(server.started)} UTC\n"
        f"sites' port: {server.address}, {link}\n"
        f"sites: {server.connected} of {server.sites} connected\n"
        f"runs: {runs or 'none'}\n"
        f"certificate until {_time(server.certificate_expires)} UTC\n"
    )


def _metric(metric: str, value: float | None) -> str:
    return "-" if value is None else f"{metric} {value:.4f}"


def _of(number: int, whole: int) -> str:
    return f"{number}/{whole}" if whole else "-"


def _standing(run: RunSummary) -> str:
    missing = escape(run.standing.removeprefix(run.state))
    return f"{_coloured(run.state)}[yellow]{missing}[/]" if missing else _coloured(run.state)


def _coloured(state: str) -> str:
    colour = _COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else escape(state)


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
