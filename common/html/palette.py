"""Colours that colour-blind readers tell apart (Okabe and Ito, 2008), on white and on black."""

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#B0A000")
GREY = "#808890"
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")


def colour_of(index: int) -> str:
    """Return the colour of a class or a part of a bar."""
    return COLOURS[index % len(COLOURS)]


def site_colour(index: int) -> str:
    """Return the colour of a site: never the first, which is the federation's."""
    return COLOURS[1 + index % (len(COLOURS) - 1)]


def red_green_blue(colour: str) -> tuple[int, int, int]:
    """Return ``#RRGGBB`` as numbers in [0, 255]."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
