"""A part of the report: a question, the sentence that answers it, and the evidence."""

from dataclasses import dataclass

from wardround.common.html.charts.figure import Figure
from wardround.simulations.report.charts.tables import Table


@dataclass(frozen=True, slots=True)
class Image:
    """A picture on the page.

    Attributes:
        source: A ``data:`` address.
        alternative: What it shows, for those who do not see it.
        caption: Below it; may be empty.
        is_strip: Whether it is several pictures side by side, which need more room.
    """

    source: str
    alternative: str
    caption: str = ""
    is_strip: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report.

    Attributes:
        anchor: Its id on the page and, in words, its name in the list of parts, e.g.
            ``worth-joining``.
        title: The question it answers, in a clinician's words.
        answer: Sentences that answer it, each a paragraph; the first stands out.
        figures: Charts side by side.
        tables: Below the charts.
        images: Pictures side by side, below the tables.
        notes: Small print: how it was computed, and what it does not say.
        folded: Whether only title and first answer show until the reader opens it.
    """

    anchor: str
    title: str
    answer: tuple[str, ...]
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    images: tuple[Image, ...] = ()
    notes: tuple[str, ...] = ()
    folded: bool = False
