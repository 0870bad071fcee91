"""The server, its runs and its sites as parts of a page; every text is escaped here."""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

from wardround.common.runtime.printable import printable
from wardround.server.operators.messages import RunSummary, ServerSummary, SiteSummary
from wardround.server.operators.page.forms import run_button
from wardround.server.operators.page.lookout import Sight
from wardround.server.operators.page.standing import doing
from wardround.server.operators.report.parts import time_words, told, whole_table

MOST_ENDED = 20  # runs in the list of those that are over
_DIGEST_SHOWN = 8
_TONES = {
    **dict.fromkeys(("running", "finished", "connected", "training"), "gained"),
    **dict.fromkeys(
        ("failed", "stopped", "lost", "away", "late", "cut off", "left out", "revoked"), "lost"
    ),
}


def badge(word: str) -> str:
    """Return a word that stands for a state; its colour says no more than the word."""
    return f'<span class="{_TONES.get(word, "plain")}">{told(word)}</span>'


def clock_words(seconds: float | None) -> str:
    """Return a moment in UTC to the second; the day only where it is not today."""
    if seconds is None:
        return "–"
    moment = datetime.fromtimestamp(seconds, UTC)
    is_today = moment.date() == datetime.now(UTC).date()
    return f"{moment:%H:%M:%S}" if is_today else f"{moment:%Y-%m-%d %H:%M}"


def server_part(sight: Sight) -> str:
    """Return how the server stands."""
    trouble = f'<p class="banner" role="alert">{told(sight.trouble)}</p>' if sight.trouble else ""
    if sight.server is None:
        return trouble or '<p role="status">Asking the server.</p>'
    return trouble + _facts(sight.server, sight.sites)


def _facts(server: ServerSummary, sites: Sequence[SiteSummary]) -> str:
    there = sum(site.presence == "connected" for site in sites)
    port = "open" if server.link_is_up else "not open: sites cannot reach it; see link/link.log"
    facts = {
        "server": f"{server.name}, wardround {server.version}",
        "sites' port": f"{server.address}, {port}",
        "sites": f"{there} of {len(sites)} connected",
        "started": f"{time_words(server.started)} UTC",
        "certificate until": f"{time_words(server.certificate_expires)} UTC",
    }
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{told(v)}</dd>" for k, v in facts.items())
    return f"<dl>{listed}</dl>"


def runs_part(runs: Sequence[RunSummary], may_act: bool) -> str:
    """Return the runs under way, the queue, and the last that ended."""
    queued = [run for run in runs if run.state == "queued"]
    ended = sorted(
        (run for run in runs if run.is_over), key=lambda run: -(run.ended or run.submitted)
    )
    at_work = [run for run in runs if not run.is_over and run.state != "queued"]
    left = len(ended) - MOST_ENDED
    more = f" {left} older ones: wardround runs list." if left > 0 else ""
    return (
        _runs_table("Under way.", at_work, may_act, "No run is under way.")
        + _runs_table("Queued, the next one first.", queued, may_act, "No run is queued.")
        + _runs_table(f"Ended, the last one first.{more}", ended[:MOST_ENDED], may_act, "")
    )


def _runs_table(caption: str, runs: Sequence[RunSummary], may_act: bool, nothing: str) -> str:
    if not runs:
        return f'<p class="small">{escape(nothing)}</p>' if nothing else ""
    head = ["run", "state", "round", "metric", "submitted", "digest"]
    rows = [_run_row(run, may_act) for run in runs]
    return whole_table(caption, [*head, "action"] if may_act else head, rows, ("state",))


def _run_row(run: RunSummary, may_act: bool) -> str:
    number = f"{run.round} of {run.rounds}" if run.rounds else "–"
    metric = "–" if run.value is None else f"{told(run.metric)} {run.value:.4f}"
    missing = printable(run.standing.removeprefix(run.state))
    said = "; ".join(filter(None, (missing.strip(), run.message)))
    why = f"<small>{told(said)}</small>" if said else ""
    cells = (
        f'<td class="text">{badge(run.state)}{why}</td><td>{number}</td><td>{metric}</td>'
        f"<td>{clock_words(run.submitted)}</td><td><code>{told(run.digest[:_DIGEST_SHOWN])}</code></td>"
    )
    action = f"<td>{run_button(run)}</td>" if may_act else ""
    # A run's name is that of its folder: small letters, digits and hyphens.
    name = f'<a href="files/{quote(run.run)}.html">{told(run.run)}</a>'
    return f'<tr><th scope="row">{name}</th>{cells}{action}</tr>'


def sites_part(sight: Sight) -> str:
    """Return every site: whether it is there, what it does, when it was last seen."""
    if not sight.sites:
        return (
            '<p class="small">No site has joined yet. Invite one: '
            "<code>wardround server invite SITE</code></p>"
        )
    shown = [(one.summary, one.record) for one in sight.shown]
    rows = []
    for site in sight.sites:
        now = doing(site, shown)
        why = f"<small>{told(now.why)}</small>" if now.why else ""
        rows.append(
            f'<tr><th scope="row">{told(site.site)}</th>'
            f'<td class="text">{badge(site.presence)}{_since(site)}</td>'
            f'<td class="text">{badge(now.word)}{why}</td>'
            f"<td>{_last_seen(site)}</td><td>{told(site.wardround) or '–'}</td>"
            f"<td>{_until(site)}</td></tr>"
        )
    head = ("site", "presence", "doing", "last seen", "version", "certificate until")
    caption = (
        "Times in UTC. Lost: its connection broke, and rounds still count on it for half a minute "
        "from its last heartbeat."
    )
    return whole_table(caption, head, rows, ("presence", "doing"))


def _since(site: SiteSummary) -> str:
    if site.presence != "lost":
        return ""
    return f"<small>its connection broke at {clock_words(site.lost)}</small>"


def _last_seen(site: SiteSummary) -> str:
    if site.presence == "connected":
        return "now"
    return "never" if site.seen is None else clock_words(site.seen)


def _until(site: SiteSummary) -> str:
    if site.revoked:
        return badge("revoked")
    expired = site.expires is not None and site.expires < datetime.now(UTC).timestamp()
    return ("expired " if expired else "") + time_words(site.expires)
