"""The part of the hospital's page about its own data and its way to the server."""

from wardround.client.page.errands import Errand
from wardround.client.page.site_view import SiteView
from wardround.common.html.parts import Html, form, joined, section, table, tag
from wardround.common.runtime.printable import printable

_MARKS = {
    "fault": ("lost", "▼ fault"),
    "fail": ("lost", "▼ fail"),
    "look": ("", "● look"),
    "warn": ("", "● warn"),
    "ok": ("gained", "▲ ok"),
}
_ORDER = ("fail", "fault", "warn", "look", "ok")
_LONGEST = 2_000


def data_region(view: SiteView) -> Html:
    """Return both checks: a button each, and what the last look found."""
    parts = (
        *_check(
            view.errand("check"),
            "Look at each examination",
            "Duplicates, leaks between the parts, outliers and doubtful labels. Nothing leaves the "
            "site; the whole report is in the folder 'checks' of the site folder.",
            form("check", "Look at the data", {}),
        ),
        *_check(
            view.errand("doctor"),
            "Can this site take part?",
            "Folder, rights, policy, certificate, images, and the way to the server.",
            form("doctor", "Check the site", {}),
        ),
    )
    return section("Data check", *parts, anchor="data")


def _check(errand: Errand | None, title: str, about: str, start: Html) -> tuple[str, ...]:
    heading, words = tag("h3", title), tag("p", about, class_="small")
    if errand is None:
        return heading, words, start
    if errand.is_running:
        done = f", {errand.done} of {errand.count}" if errand.count else ""
        return heading, words, tag("p", f"It is being done{done}.", role="status")
    if errand.error:
        return heading, words, tag("p", printable(errand.error, _LONGEST), class_="lost"), start
    return heading, words, _found(errand.said or {}, title), start


def _found(said: dict[str, object], title: str) -> Html:
    found = said.get("findings")
    findings = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    findings.sort(key=lambda one: _ORDER.index(one["status"]) if one["status"] in _ORDER else 0)
    bad = sum(one["status"] in ("fail", "fault") for one in findings)
    look = sum(one["status"] in ("warn", "look") for one in findings)
    counts = f"{said.get('counts')}: " if said.get("counts") else ""
    made = printable(str(said.get("made", "")), 40)
    told = f"{counts}{bad} faults, {look} things to look at, {len(findings) - bad - look} in order"
    rows = [_finding(one) for one in findings]
    head = ("what", "", "found", "what to do")
    listed = table(
        f"{title}: each thing that was looked for.", head, rows, words=(1,), texts=(2, 3)
    )
    return joined((tag("p", printable(f"{told} ({made} UTC).")), listed))


def _finding(one: dict[str, str]) -> tuple[str, ...]:
    tone, mark = _MARKS.get(one["status"], ("", printable(one["status"], 40)))
    return (
        printable(one["name"], 200),
        tag("span", mark, class_=tone),
        printable(one["fact"], _LONGEST),
        printable(one["remedy"], _LONGEST),
    )
