"""The parts of the hospital's page: from what is known of the site to HTML, and nothing else."""

import sys
from collections.abc import Iterator
from datetime import datetime

from wardround.client.daemon.status_words import trouble_words, work_words
from wardround.client.page.findings import data_region
from wardround.client.page.site_view import Account, Leaving, SiteView
from wardround.client.page.study_region import study_region
from wardround.common.html.parts import (
    Html,
    bullets,
    facts,
    form,
    joined,
    quote,
    section,
    table,
    tag,
)
from wardround.common.runtime.printable import printable

REGIONS = (
    "summary",
    "faults",
    "asked",
    "study",
    "daemon",
    "left",
    "budget",
    "data",
    "decided",
    "policy",
    "models",
)
NOTHING = "–"
_LONGEST = 2_000  # characters of what others wrote
_SHOWN = 16  # digits of a digest


def regions_of(view: SiteView) -> dict[str, str]:
    """Return every part of the page; one that has nothing to say is empty."""
    # At one door: nothing that others wrote turns the words around, whoever wrote what below.
    return {name: printable(html, sys.maxsize, lines=True) for name, html in _drawn(view).items()}


def _drawn(view: SiteView) -> dict[str, str]:
    return {
        "summary": _summary(view),
        "faults": _faults(view),
        "asked": _asked(view),
        "study": study_region(view),
        "daemon": _daemon(view),
        "left": _left(view),
        "budget": _budget(view),
        "data": data_region(view),
        "decided": _decided(view),
        "policy": _policy(view),
        "models": _models(view),
    }


def _summary(view: SiteView) -> Html:
    said = summary_of(view)
    is_bad = view.daemon is None or not view.daemon.connected_since or view.audit.is_broken
    tone = "bad" if is_bad or view.faults else "good"
    return tag("div", tag("h2", said), class_=f"headline {tone}")


def summary_of(view: SiteView) -> str:
    """Return how things stand in a sentence or two."""
    daemon = view.daemon
    if daemon is None:
        said = "No daemon runs here: this site takes part in nothing."
    elif not daemon.connected_since:
        said = "The daemon runs and does not reach its server."
    elif daemon.work is None:
        said = "Connected, and waiting for work."
    else:
        said = f"Connected, and at work on {printable(daemon.work.study or daemon.work.kind, 80)}."
    count = len(view.waiting)
    if count:
        wait = "1 study waits" if count == 1 else f"{count} studies wait"
        said += f" {wait} for a decision."
    if view.audit.is_broken or view.audit.trouble:
        said += " The audit log is not as it was written."
    return said


def _faults(view: SiteView) -> str:
    if not view.faults:
        return ""
    lines = [printable(f"{name}: {fact}: {remedy}") for name, fact, remedy in view.faults]
    return section("What stands in the way", bullets(lines), anchor="faults")


def _daemon(view: SiteView) -> Html:
    daemon = view.daemon
    if daemon is None:
        return section("The daemon", tag("p", printable(view.no_daemon)), anchor="daemon")
    listed = facts((name, printable(value)) for name, value in _daemon_facts(view))
    rows = [(_moment(one.time), printable(trouble_words(one))) for one in reversed(daemon.troubles)]
    troubles = table("Troubles, the newest first.", ("time (UTC)", "what"), rows, texts=(1,))
    return section("The daemon", listed, troubles if rows else "", anchor="daemon")


def _daemon_facts(view: SiteView) -> Iterator[tuple[str, str]]:
    daemon = view.daemon
    if daemon is None:
        return
    yield "server", daemon.server
    since = daemon.connected_since
    yield "connected", f"since {_moment(since)} UTC" if since else "NO"
    yield "now", _plain_times(work_words(daemon.work))
    yield "before", _plain_times(work_words(daemon.last))
    yield "answered", f"{daemon.answered} messages, {daemon.refused} of them refused"
    starts = daemon.worker_starts
    restarts = f"; its worker was started {starts} times" if starts > 1 else ""
    yield "process", f"{daemon.process} since {_moment(daemon.began)} UTC{restarts}"
    yield "version", daemon.version


def _asked(view: SiteView) -> Html:
    if view.waiting_trouble:
        return section("What is asked", tag("p", printable(view.waiting_trouble)), anchor="asked")
    if not view.waiting:
        nothing = tag("p", "No study waits for a decision.")
        return section("What is asked", nothing, anchor="asked")
    parts = []
    for one in view.waiting:
        digits = one.digest[:_SHOWN]
        heading = tag("h3", printable(one.name, 200))
        since = f"{digits}, asked for since {one.since:%Y-%m-%d %H:%M} UTC"
        theirs = quote(printable(one.description, _LONGEST, lines=True))
        label = f"Read what {printable(one.name, 80)} asks"
        read = form("explain", label, {"study": one.digest})
        small = tag("p", since, class_="small")
        parts.append(tag("article", joined((heading, small, theirs, read))))
    return section("What is asked", *parts, anchor="asked")


def _decided(view: SiteView) -> str:
    if not view.decided:
        return ""
    rows = [
        (
            f"{one.date:%Y-%m-%d %H:%M}",
            one.verdict,
            printable(one.name, 80) or NOTHING,
            one.digest[:_SHOWN],
            str(one.rounds) if one.rounds else NOTHING,
            printable(one.account, 80),
            form("explain", "Read again", {"study": one.digest}) if one.name else NOTHING,
        )
        for one in view.decided
    ]
    head = ("when (UTC)", "verdict", "study", "digest", "rounds", "by", "")
    caption = "The last decisions of this hospital, the newest first."
    listed = table(caption, head, rows, words=(1, 2, 3, 5, 6))
    return section("What was decided", listed, anchor="decided")


def _left(view: SiteView) -> Html:
    audit = view.audit
    if audit.trouble:
        return section("What left", tag("p", printable(audit.trouble)), anchor="left")
    tone = "lost" if audit.is_broken else ""
    chain = tag("p", printable(audit.verified) or "The chain is being verified.", class_=tone)
    told = (
        f"{audit.answers} answers left, {bytes_words(audit.bytes)} in all; {audit.refusals} were "
        "refused. Names and images are in none of them, nor predictions of single patients."
    )
    rows = [_leaving(one, view) for one in audit.last]
    head = ("entry", "time (UTC)", "what", "verdict", "study", "round", "bytes")
    caption = f"The last {len(rows)} of {audit.entries} entries, the newest first."
    listed = table(caption, head, rows, words=(1, 2, 4), texts=(3,)) if rows else ""
    return section("What left", tag("p", told), chain, listed, anchor="left")


def _leaving(one: Leaving, view: SiteView) -> tuple[str, ...]:
    name = printable(view.name_of(one.digest), 40)
    study = f"{name} {one.digest[:8]}".strip() or NOTHING
    words = printable(one.what, 80), printable(one.verdict, 200)
    return (
        str(one.number),
        _moment(one.time),
        *words,
        study,
        one.round or NOTHING,
        f"{one.bytes:,}",
    )


def _budget(view: SiteView) -> Html:
    budget = view.budget
    if budget.trouble:
        return section("Privacy spent", tag("p", printable(budget.trouble)), anchor="budget")
    if not budget.accounts:
        nothing = tag("p", "Nothing was ever spent: no study with privacy for patients has run.")
        return section("Privacy spent", nothing, anchor="budget")
    return section(
        "Privacy spent", *(_account(one, view) for one in budget.accounts), anchor="budget"
    )


def _account(one: Account, view: SiteView) -> Html:
    whose = f"Data set {printable(one.dataset, 80)}, {one.part} patients"
    if one.cap is None:
        told = f"{whose}: epsilon {one.spent:.4g} is spent at delta {one.delta:g}; there is no cap."
        meter = Html("")
    else:
        left = max(one.cap - one.spent, 0.0)
        told = (
            f"{whose}: epsilon {one.spent:.4g} of {one.cap:g} is spent at delta {one.delta:g}, "
            f"{left:.4g} is left."
        )
        meter = tag(
            "meter",
            f"{one.spent:.4g} of {one.cap:g}",
            min="0",
            max=f"{one.cap:g}",
            value=f"{min(one.spent, one.cap):.6g}",
            aria_label=f"{whose}, spent of {one.cap:g}",
        )
    rows = [
        (printable(view.name_of(digest), 80) or NOTHING, digest[:_SHOWN], f"{epsilon:.4g}", str(n))
        for digest, epsilon, n in one.studies
    ]
    head = ("study", "digest", "epsilon of it alone", "answers charged")
    listed = table(f"{whose}, a run a row; they add up to less.", head, rows, words=(1,))
    return joined((tag("p", told), meter, listed))


def _policy(view: SiteView) -> Html:
    if not view.policy:
        words = "There is no policy that can be read: nothing is allowed."
        return section("What the policy allows", tag("p", words), anchor="policy")
    note = tag("p", "As policy.toml says it now; it is changed there, not here.", class_="small")
    return section("What the policy allows", facts(view.policy), note, anchor="policy")


def _models(view: SiteView) -> str:
    if not view.models:
        return ""
    rows = [
        (
            printable(one.study, 80),
            one.digest[:_SHOWN],
            str(one.round),
            "whole" if one.is_complete else "what the sites share",
        )
        for one in view.models
    ]
    head = ("study", "digest", "round", "is")
    caption = "Finished models that were fetched to this site."
    return section("Models", table(caption, head, rows, words=(1, 3)), anchor="models")


def bytes_words(count: int) -> str:
    """Return an amount of data in words."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _moment(time: str) -> str:
    """Return a time of a log to the second; as it is, where it is something else."""
    try:
        return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return printable(time, 40)


def _plain_times(words: str) -> str:
    """Return words whose last is a time as people write it."""
    before, _, time = words.rpartition(" ")
    return f"{before} {_moment(time)}" if before else words
