"""The part of the hospital's page that explains one study, and where it is decided on."""

import shlex
from collections.abc import Iterator, Sequence
from itertools import groupby

from wardround.client.page.errands import Errand
from wardround.client.page.site_view import SiteView
from wardround.common.html.parts import Html, bullets, form, joined, quote, section, table, tag
from wardround.common.runtime.printable import printable

_SHOWN = 16
_LONGEST = 4_000


def study_region(view: SiteView) -> str:
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
        _decision(view, errand),
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
            yield quote("\n".join(line[4:] for line in held))
        else:
            for line in filter(None, held):
                yield tag("p", line) if line.startswith("Digest ") else tag("h3", line)


def _verdicts(said: dict[str, object]) -> Html:
    verdicts = said.get("verdicts")
    rows = []
    for one in verdicts if isinstance(verdicts, list) else ():
        word = tag("span", "▲ allow", class_="gained") if one["allowed"] else _denied()
        rows.append((printable(one["rule"], 80), word, printable(one["reason"], 2_000)))
    caption = "What the policy says of it, rule by rule."
    listed = table(caption, ("rule", "", "why"), rows, words=(1,), texts=(2,))
    problems = [f"Not known: {one}" for one in _texts(said, "problems")]
    notes = [f"Note: {one}." for one in _texts(said, "notes")]
    more = bullets(printable(one, _LONGEST) for one in (*problems, *notes))
    reply = (
        "The site would take part."
        if said.get("allowed")
        else (
            "The site refuses it as things are. One that only waits for its approval is refused "
            "until then."
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


def _decision(view: SiteView, errand: Errand) -> Html:
    study = {"study": errand.about}
    if not view.may_decide:
        return _only_read(view, errand.about)
    said = errand.said or {}
    buttons: list[str] = [tag("h3", "Decide")]
    if mark := _text(said, "mark"):
        spending = printable(_text(said, "spending"), _LONGEST)
        who = f"It is written down that {printable(view.account, 80)} approved it."
        question = f"{spending} {who} Do you approve this?"
        label = "Approve this study"
        buttons.append(tag("p", spending))
        buttons.append(form("approve", label, {**study, "mark": mark}, question))
    question = "From the next message on it is refused, also where it was approved. Reject it?"
    buttons.append(form("reject", "Reject this study", study, question))
    return joined(buttons)


def _only_read(view: SiteView, digest: str) -> Html:
    site = shlex.quote(view.typed)
    how = (
        "This page only reads. Decide in a terminal, or open the page with "
        f"'wardround site page --allow-decisions {site}':"
    )
    typed = "\n".join(
        f"wardround site {verb} {digest[:_SHOWN]} --site {site}" for verb in ("approve", "reject")
    )
    return joined((tag("h3", "How it is decided"), tag("p", how), tag("pre", typed)))


def _text(said: dict[str, object], key: str) -> str:
    return str(said.get(key) or "")


def _texts(said: dict[str, object], key: str) -> list[str]:
    held = said.get(key)
    return [str(one) for one in held] if isinstance(held, list) else []
