"""SVG as text: elements, and text that cannot become anything else."""

import html
import re

WIDTH = 480.0  # units of every large chart; the page scales it to the room there is
LETTER = 9.0  # room for a letter at the large size that a narrow page sets (16 units)
# What XML 1.0 does not allow in a document, not even as a character reference.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def escaped(text: str) -> str:
    """Return text that may stand in an element or a quoted attribute: names come from others."""
    return html.escape(_FORBIDDEN.sub("\ufffd", text), quote=True)


def element(tag: str, inner: str = "", /, **attributes: str | float) -> str:
    """Return an element.

    Args:
        tag: Its name.
        inner: What stands in it: elements, or text that is escaped.
        attributes: Escaped here. ```class_`` is written ``class``, ``text_anchor`` ``text-anchor``.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for name, value in attributes.items()
    )
    return f"<{tag}{written}>{inner}</{tag}>" if inner else f"<{tag}{written}/>"


def picture(inner: str, width: float, height: float, title: str, description: str = "") -> str:
    """Return a whole picture that a screen reader announces by its title and description.

    Args:
        inner: Its elements.
        width: Units across; the page scales the picture, and never above its width by much.
        height: Units down.
        title: What it shows, unescaped.
        description: What can be seen on it, unescaped.
    """
    told = element("title", escaped(title))
    if description:
        told += element("desc", escaped(description))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_number(width)} {_number(height)}" '
        f'role="img" aria-label="{escaped(title)}">{told}{inner}</svg>'
    )


def shortened(text: str, letters: int) -> str:
    """Return at most so many letters, the last an ellipsis where some are left out."""
    return text if len(text) <= letters else f"{text[: max(1, letters - 1)]}…"


def words(text: str, x: float, y: float, anchor: str = "start", letters: int = 200) -> str:
    """Return text at a place, shortened to so many letters; whole on hover."""
    shown = shortened(text, letters)
    inner = escaped(shown) + (element("title", escaped(text)) if shown != text else "")
    return element("text", inner, x=x, y=y, text_anchor=anchor)


def _attribute(value: str | float) -> str:
    return escaped(value) if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    """Return a length to a tenth of a unit, as short as it can be written."""
    return f"{value:.1f}".removesuffix(".0")
