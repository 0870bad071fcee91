"""Colours of pictures that colour-blind readers tell apart (Okabe and Ito, 2008, and two more).

Those of charts are near to them and stand in ``charts.css``, one set for light and one for dark.
"""

COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#B0A000",
    "#5A2FD6",
    "#4A1030",
)


def colour_of(index: int) -> str:
    """Return the colour of a class."""
    return COLOURS[index % len(COLOURS)]


def red_green_blue(colour: str) -> tuple[int, int, int]:
    """Return ``#RRGGBB`` as numbers in [0, 255]."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
