"""Pieces of a page: tables, facts, sections; a text is escaped unless it is known as HTML."""

from collections.abc import Iterable, Mapping, Sequence

from wardround.common.html.charts.svg import escaped


class Html(str):
    """HTML as it may stand on a page: what others wrote in it was escaped where it was made."""

    __slots__ = ()


def html(content: str) -> Html:
    """Return content for a page: text escaped, HTML as it is."""
    return content if isinstance(content, Html) else Html(escaped(content))


def joined(parts: Iterable[str]) -> Html:
    """Return parts one after the other, each escaped unless it is HTML."""
    return Html("".join(html(part) for part in parts))


def tag(name: str, content: str = "", /, **attributes: str) -> Html:
    """Return an element; ``class_`` is written ``class``, ``aria_label`` ``aria-label``.

    An attribute that is empty is left out.
    """
    return Html(f"<{name}{_written(attributes)}>{html(content)}</{name}>")


def void(name: str, /, **attributes: str) -> Html:
    """Return an element that has no content and no end, e.g. ``input``; attributes as of a tag."""
    return Html(f"<{name}{_written(attributes)}>")


def _written(attributes: Mapping[str, str]) -> str:
    return "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value
    )


def section(title: str, *parts: str, anchor: str = "") -> Html:
    """Return a part of a page under its heading; with an anchor it is a landmark."""
    if not anchor:
        return tag("section", joined((tag("h2", title), *parts)))
    heading = tag("h2", title, id=f"{anchor}-title")
    return tag("section", joined((heading, *parts)), aria_labelledby=f"{anchor}-title")


def facts(pairs: Iterable[tuple[str, str]]) -> Html:
    """Return names and values as a list."""
    return tag("dl", joined(joined((tag("dt", k), tag("dd", v))) for k, v in pairs))


def form(action: str, label: str, fields: Mapping[str, str], question: str = "") -> Html:
    """Return a button of a live page.

    Args:
        action: The name of what is done.
        label: What the button says.
        fields: What goes with it.
        question: What is asked before; "" for nothing.
    """
    held = joined(
        Html(f'<input type="hidden" name="{escaped(name)}" value="{escaped(value)}">')
        for name, value in fields.items()
    )
    key = " ".join((action, *fields.values()))
    button = tag("button", label, data_key=key)
    return tag("form", joined((held, button)), data_action=action, data_confirm=question)


def bullets(lines: Iterable[str]) -> Html:
    """Return lines as a list."""
    return tag("ul", joined(tag("li", line) for line in lines))


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    texts: Sequence[int] = (),
    words: Sequence[int] = (),
) -> Html:
    """Return a table whose rows begin with their heading.

    Args:
        caption: What it shows.
        head: The headings of its columns.
        rows: Cells, escaped unless they are HTML.
        texts: Which columns hold sentences, counted from 0: they are broken into lines.
        words: Which hold single words; all others hold numbers.
    """
    styles = {**dict.fromkeys(texts, "text"), **dict.fromkeys(words, "word")}
    columns = joined(
        tag("th", name, scope="col", class_=styles.get(place, ""))
        for place, name in enumerate(head)
    )
    body = joined(
        tag("tr", joined((tag("th", first, scope="row"), *_cells(others, styles))))
        for first, *others in rows
    )
    whole = joined((tag("caption", caption), tag("thead", tag("tr", columns)), tag("tbody", body)))
    # A live page is drawn again: by its key the keyboard finds a table where it was.
    return tag("div", tag("table", whole), class_="wide", data_key=caption)


def _cells(cells: Iterable[str], styles: Mapping[int, str]) -> Iterable[Html]:
    return (
        tag("td", cell, class_=styles.get(place, "")) for place, cell in enumerate(cells, start=1)
    )


def quote(text: str) -> Html:
    """Return what somebody else wrote, a paragraph a line."""
    return tag("blockquote", joined(tag("p", line) for line in text.split("\n")))
