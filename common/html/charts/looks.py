"""How a line, a point or a part of a bar looks: a colour, and a mark that needs no colour."""

from dataclasses import dataclass
from typing import Literal

from wardround.common.html.charts.svg import element
from wardround.common.html.palette import COLOURS

Dash = Literal["solid", "dashed", "dotted", "none"]
FEDERATION = "var(--series-0)"
MUTED = "var(--muted)"
_DASHES: dict[Dash, str] = {"dashed": "7 4", "dotted": "1.5 3.5"}
# Outlines within a square of side 2 around the origin; each has about the same area.
_MARKERS = (
    "M-.9 0a.9 .9 0 1 0 1.8 0a.9 .9 0 1 0-1.8 0",  # disc
    "M-.8-.8H.8V.8H-.8Z",  # square
    "M0-1.15 1.15 0 0 1.15-1.15 0Z",  # diamond
    "M0-1.1 1.05 .8H-1.05Z",  # triangle
    "M-.35-1.05H.35V-.35H1.05V.35H.35V1.05H-.35V.35H-1.05V-.35H-.35Z",  # plus
    "M0 1.1 1.05-.8H-1.05Z",  # triangle on its point
    "M-1-.6-.6-1 0-.4 .6-1 1-.6 .4 0 1 .6 .6 1 0 .4-.6 1-1 .6-.4 0Z",  # cross
)


@dataclass(frozen=True, slots=True)
class Look:
    """How a series is drawn.

    Attributes:
        colour: A CSS colour; a custom property of the page, so that it suits light and dark.
        marker: Which outline marks its points; None for none.
        width: Of its line, in units.
        dash: "none" draws points without a line.
    """

    colour: str = FEDERATION
    marker: int | None = 0
    width: float = 1.6
    dash: Dash = "solid"


def series_colour(index: int) -> str:
    """Return the colour of a class, a part of a bar or a series."""
    return f"var(--series-{index % len(COLOURS)})"


def site_look(index: int, width: float = 1.6, dash: Dash = "solid") -> Look:
    """Return a site's look: never the first colour, which is the federation's."""
    colour = series_colour(1 + index % (len(COLOURS) - 1))
    return Look(colour, index % len(_MARKERS), width, dash)


def draw_marker(look: Look, x: float, y: float, told: str = "", size: float = 4.0) -> str:
    """Return the mark of a point, with what is told on hover; "" for a look without marks."""
    if look.marker is None:
        return ""
    inner = element("title", told) if told else ""
    outline = _MARKERS[look.marker % len(_MARKERS)]
    # Written by hand: a chart has many, and the marker's numbers need no shortening.
    place = f"translate({x:.1f} {y:.1f})scale({size:g})"
    return (
        f'<path class="mark" fill="{look.colour}" transform="{place}" d="{outline}">{inner}</path>'
    )


def draw_stroke(look: Look, path: str, told: str = "") -> str:
    """Return a line along a path; "" for a look without line."""
    if look.dash == "none" or not path:
        return ""
    dash = {"stroke_dasharray": _DASHES[look.dash]} if look.dash in _DASHES else {}
    return element(
        "path",
        element("title", told) if told else "",
        class_="stroke",
        d=path,
        stroke=look.colour,
        stroke_width=look.width,
        **dash,
    )


def draw_key(look: Look) -> str:
    """Return the small picture of a look in a legend."""
    inner = draw_stroke(look, "M1 7H29") + draw_marker(look, 15, 7)
    return f'<svg class="key" viewBox="0 0 30 14" aria-hidden="true">{inner}</svg>'
