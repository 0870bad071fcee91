"""Boxes as Pascal VOC has them: an XML file a picture.

A file is data and no program: one that declares a document type or an entity is refused before
anything is expanded.
"""

from pathlib import Path
from typing import Any, NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from wardround.client.data.reading.boxes.found import (
    FoundBoxes,
    boxes_of,
    number_of,
    read_bounded,
    require_flat,
)
from wardround.client.data.reading.image import UnreadableError

_MOST_BYTES = 16_000_000
_MOST_ELEMENTS, _DEEPEST = 100_000, 32
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(path: Path, dimensions: int) -> FoundBoxes:
    """Return the objects of an annotation.

    ``xmin`` and ``xmax`` are taken for the edges of a box, as programs for drawing boxes write
    them; of a box the first and the last pixel of which are written, the last is cut off.

    Raises:
        UnreadableError: It is no such file, or declares a document type.
    """
    require_flat(dimensions, "Pascal VOC")
    root = parse_safely(read_bounded(path, _MOST_BYTES))
    if root.tag != "annotation":
        msg = "it is no annotation of Pascal VOC: its outermost element has another name."
        raise UnreadableError(msg)
    named = []
    for thing in root.iter("object"):
        box = thing.find("bndbox")
        try:
            sides = [number_of(None if box is None else box.findtext(side)) for side in _SIDES]
        except ValueError:
            msg = "an object lacks a number of xmin, ymin, xmax and ymax: mend it."
            raise UnreadableError(msg) from None
        named.append((" ".join((thing.findtext("name") or "").split()), sides))
    return boxes_of(named, dimensions, _size(root))


def _size(root: Element) -> tuple[int, int] | None:
    try:
        width, height = (int(number_of(root.findtext(f"size/{s}"))) for s in ("width", "height"))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None  # some programs write zeros


def parse_safely(content: bytes) -> Element:
    """Return the root of an XML document without a document type.

    Raises:
        UnreadableError: It is no XML, has a document type or an entity, or is too deep or large.
    """
    builder, depth, count = TreeBuilder(), 0, 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > _DEEPEST or count > _MOST_ELEMENTS:
            msg = "it has too many elements for boxes of one picture: give each picture a file."
            raise UnreadableError(msg)
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: Any) -> NoReturn:
        msg = "it declares a document type or an entity, which boxes do not need: take it out."
        raise UnreadableError(msg)

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        msg = f"it is no whole XML file (line {error.lineno}): write it anew."
        raise UnreadableError(msg) from None
    return builder.close()
