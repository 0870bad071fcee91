"""The part of the hospital's page that explains one study, and where it is decided on."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from wardround.client.page.errands import Errand
from wardround.client.page.site_view import SiteView
from wardround.common.html.parts import Html, bullets, html, joined, section, table, tag
from wardround.common.runtime.printable import printable

_SHOWN = 16
_LONGEST = 4_000
Button = Callable[[str, str, dict[str, str]], Html]


def study_region(view: SiteView, button: Button) -> str:
    """Return what a study asks, what the policy says of it, and how it is decided on."""
    errand = view.errand("explain")
    if errand is None:
        return ""
    name = printable(view.name_of(errand.about), 200) or errand.about[:_SHOWN]
    title = f"What {name} asks"
    if errand.is_running:
        waits = tag(
            "p", "It is worked out what it asks for here, and what it spends.", role="status"
        )
        return section(title, waits, anchor="study")
    if errand.said is None:
        return section(title, tag("p", printable(errand.error, _LONGEST)), anchor="study")
    said = errand.said
    parts = (
        _explained(_text(said, "explanation")),
        _verdicts(said),
        tag("h3", "What you would approve"),
        _terms(said),
        _decision(view, errand, button),
    )
    return section(title, *parts, anchor="study")


def _explained(text: str) -> Html:
    """Return the page of text that ``wardround site explain`` prints, as HTML.

    Its own lines begin a paragraph, its lists have a dash, and what others wrote has a mark.
    """
    return joined(_blocks(text.split("\n")))


def _blocks(lines: Sequence[str]) -> Iterator[Html]:
    for kind, group in groupby(lines, key=lambda line: line[:4] if line[:2] == "  " else "words"):
        held = [printable(line, _LONGEST) for line in group]
        if kind == "  - ":
            yield bullets(line[4:] for line in held)
        elif kind.startswith("  |"):
            yield tag("blockquote", "\n".join(line[4:] for line in held), class_="theirs")
        else:
            for line in filter(None, held):
                yield tag("p", line) if line.startswith("Digest ") else tag("h3", line)


def _verdicts(said: dict[str, object]) -> Html:
    verdicts = said.get("verdicts")
    rows = []
    for one in verdicts if isinstance(verdicts, list) else ():
        word = tag("span", "▲ allow", class_="gained") if one["allowed"] else _denied()
        rows.append((printable(one["rule"], 80), word, printable(one["reason"], 2_000)))
    listed = table(
        "What the policy says of it, rule by rule.", ("rule", "", "why"), rows, (1, 2), "prose"
    )
    problems = [f"Not known: {one}" for one in _texts(said, "problems")]
    notes = [f"Note: {one}." for one in _texts(said, "notes")]
    more = bullets(printable(one, _LONGEST) for one in (*problems, *notes))
    reply = (
        "The site would take part."
        if said.get("allowed")
        else (
            "The site refuses it as things are; a study that waits only for its approval is refused "
            "until it has that."
        )
    )
    whole = (tag("h3", "The policy"), listed, more if problems or notes else "", tag("p", reply))
    return joined(whole)


def _denied() -> Html:
    return tag("span", "▼ deny", class_="lost")


def _terms(said: dict[str, object]) -> Html:
    lines = _texts(said, "terms")
    if not lines:
        return tag("p", printable(_text(said, "refusal"), _LONGEST), class_="lost")
    return bullets(printable(line, _LONGEST) for line in lines)


def _decision(view: SiteView, errand: Errand, button: Button) -> Html:
    digits, site = errand.about[:_SHOWN], shlex.quote(view.typed)
    words = _outcomes(view, errand.about)
    if not view.may_decide:
        how = (
            "This page only reads. Decide in a terminal, or open the page with "
            "'wardround site page --allow-decisions':"
        )
        typed = "\n".join(
            f"wardround site {verb} {digits} --site {site}" for verb in ("approve", "reject")
        )
        return joined((words, tag("h3", "How it is decided"), tag("p", how), tag("pre", typed)))
    said, study = errand.said or {}, {"study": errand.about}
    parts: list[str] = [words, tag("h3", "Decide")]
    if _text(said, "mark"):
        spending = printable(_text(said, "spending"), _LONGEST)
        who = (
            f"It is written down that {printable(view.account, 80)} approved it, with these terms."
        )
        confirm = f"I have read what it asks. {spending} {who}"
        held = {**study, "mark": _text(said, "mark"), "confirm": confirm}
        parts.append(button("approve", "Approve this study", held))
    confirm = "Reject it: from the next message on it is refused, also where it was approved."
    parts.append(button("reject", "Reject this study", {**study, "confirm": confirm}))
    return joined(parts)


def _outcomes(view: SiteView, digest: str) -> Html:
    """Return what became of a decision on this study that was made on this page."""
    lines = []
    for name in ("approve", "reject"):
        errand = view.errand(name)
        if errand is None or errand.about != digest:
            continue
        if errand.is_running:
            lines.append(tag("p", "It is being written down.", role="status"))
        elif errand.error:
            lines.append(tag("p", printable(errand.error, _LONGEST), class_="lost"))
        elif errand.said is not None and errand.said.get("changed"):
            lines.append(
                tag("p", "NOT approved: what it asks or spends has changed. Read it again.")
            )
        elif errand.said is not None:
            lines.append(
                tag("p", printable(_text(errand.said, "words"), _LONGEST), class_="banner")
            )
    return joined(html(line) for line in lines)


def _text(said: dict[str, object], key: str) -> str:
    return str(said.get(key) or "")


def _texts(said: dict[str, object], key: str) -> list[str]:
    held = said.get(key)
    return [str(one) for one in held] if isinstance(held, list) else []
