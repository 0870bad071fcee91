"""What a live page is: regions of HTML that change, and what may be done from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape

Fields = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a page that is drawn again as things happen.

    Attributes:
        name: Its id in the page: letters, digits and "-".
        title: Its heading; "" for none.
        announced: Whether a screen reader reads its changes aloud: of one short region only.
    """

    name: str
    title: str = ""
    announced: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What an action answers.

    Attributes:
        sentence: What was done, as text.
        secret: Shown once, in a box of its own, and in no log and no event: an invitation, say.
    """

    sentence: str
    secret: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A file that a page links to, a report say.

    Attributes:
        content: Its bytes.
        kind: Its media type; HTML brings a content policy of its own with it.
    """

    content: bytes
    kind: str = "text/html; charset=utf-8"


Action = Callable[[Fields, str], Told]


@dataclass(frozen=True, slots=True)
class LivePage:
    """A page, as :func:`wardround.common.html.live.app.live_app` serves it.

    Attributes:
        title: Of the page and its window, as text.
        kicker: A line above the title, as text.
        regions: In the order in which they stand.
        draw: Returns the HTML of every region by its name. It is asked in a thread, once for all
            readers together, and only while somebody reads. What it raises is not shown: the page
            keeps what it has and says that it is not up to date.
        still: HTML between the head and the regions that never changes: forms, whose fields must
            keep what was typed. A form has the name of its action in ``data-action``, and in
            ``data-confirm`` the question before.
        actions: What may be done, by name: called in a thread with the form's fields and the name
            of who asks. A :class:`~wardround.common.errors.WardroundError` is a refusal.
        documents: Files below ``files/``, by name.
        ended: Whether nothing will happen any more.
        interval_seconds: How often it is drawn.
    """

    title: str
    regions: tuple[Region, ...]
    draw: Callable[[], Mapping[str, str]]
    kicker: str = "Wardround"
    still: str = ""
    actions: Mapping[str, Action] = field(default_factory=dict)
    documents: Mapping[str, Callable[[], Document | None]] = field(default_factory=dict)
    ended: Callable[[], bool] = lambda: False
    interval_seconds: float = 1.0


def page_html(page: LivePage, drawn: Mapping[str, str]) -> str:
    """Return the page with its regions as they are now; it can be read without its script."""
    sections = "".join(_section(one, drawn.get(one.name, "")) for one in page.regions)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(page.title)}: Wardround</title>\n"
        '<link rel="icon" href="data:,">\n<link rel="stylesheet" href="live.css">\n'
        '<script src="live.js" defer></script>\n</head>\n<body class="live">\n'
        '<a class="skip" href="#main">To the content</a>\n'
        f'<header>\n<p class="kicker">{escape(page.kicker)}</p>\n<h1>{escape(page.title)}</h1>\n'
        '<p id="connection" class="byline" role="status">As it was when this page was loaded.</p>\n'
        '</header>\n<main id="main" tabindex="-1">\n<div id="said" role="alert"></div>\n'
        f"{page.still}{sections}</main>\n"
        '<dialog id="question"><p></p><form method="dialog"><button value="yes">Yes</button> '
        '<button value="no" autofocus>No</button></form></dialog>\n'
        '<footer><p class="small">For research; not a medical device. This page asks nobody but '
        "the program that serves it.</p></footer>\n</body>\n</html>\n"
    )


def _section(region: Region, html: str) -> str:
    title = ""
    label = ""
    if region.title:
        title = f'<h2 id="title-{region.name}">{escape(region.title)}</h2>\n'
        label = f' aria-labelledby="title-{region.name}"'
    aloud = ' aria-live="polite"' if region.announced else ""
    return (
        f"<section{label}>\n{title}"
        f'<div id="{region.name}" data-region{aloud}>{html}</div>\n</section>\n'
    )
