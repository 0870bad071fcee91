"""Boxes as COCO has them: one JSON file for the pictures of a data set, or one a picture."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from wardround.client.data.reading.boxes.found import (
    FoundBoxes,
    boxes_of,
    is_of_image,
    read_bounded,
    require_flat,
)
from wardround.client.data.reading.image import UnreadableError

_MOST_BYTES = 512_000_000  # of the boxes of 120,000 pictures
_NOT_COCO = (
    "it is no COCO file of boxes: it needs images (id, file_name), categories (id, name) and "
    "annotations (image_id, category_id, bbox)."
)


@dataclass(frozen=True, slots=True)
class _Picture:
    number: int
    name: str
    size: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class _Annotation:
    category: int
    box: tuple[float, ...]
    is_crowd: bool


@dataclass(frozen=True, slots=True)
class _Coco:
    pictures: tuple[_Picture, ...]
    categories: Mapping[int, str]
    annotations: Mapping[int, tuple[_Annotation, ...]]

    @property
    def fault(self) -> str:
        """What makes a box another picture's, or another thing's, than was meant; "" for none."""
        if not self.annotations.keys() <= {one.number for one in self.pictures}:
            return (
                "an annotation has an image_id that stands in no image: add the image, or take "
                "the annotation out."
            )
        return ""


def read_coco(path: Path, dimensions: int, image: Path, number: int | None) -> FoundBoxes:
    """Return the boxes of one picture; crowds are passed over, for they are no single thing.

    Args:
        path: The file. It is read once, whatever the number of rows that name it.
        dimensions: 2.
        image: The picture, which the file knows by the end of its path.
        number: The picture's ``id`` in the file; None looks for its name.

    Raises:
        UnreadableError: It is no such file, or has no picture or several of this name.
    """
    require_flat(dimensions, "COCO")
    state = path.stat()
    coco = _parsed(path, state.st_mtime_ns, state.st_size)
    picture = _picture(coco, image, number)
    if coco.fault:
        raise UnreadableError(coco.fault)
    held = coco.annotations.get(picture.number, ())
    things = [one for one in held if not one.is_crowd]
    named = []
    for one in things:
        if one.category not in coco.categories:
            msg = "an annotation has a category_id that stands in no category: mend it."
            raise UnreadableError(msg)
        x, y, width, height = one.box
        named.append((coco.categories[one.category], (x, y, x + width, y + height)))
    return boxes_of(named, dimensions, picture.size, len(held) - len(things))


def _picture(coco: _Coco, image: Path, number: int | None) -> _Picture:
    if number is not None:
        found = [one for one in coco.pictures if one.number == number]
    else:
        found = [one for one in coco.pictures if is_of_image(one.name, image)]
        if not found and len(coco.pictures) == 1:
            return coco.pictures[0]
    if len(found) != 1:
        what = "no image" if not found else f"{len(found)} images"
        msg = (
            f"it has {what} of this name or number: write file_name as the picture is called, or "
            "name its id in the cell, as in boxes.json#17."
        )
        raise UnreadableError(msg)
    return found[0]


@lru_cache(maxsize=4)
def _parsed(path: Path, modified: int, size: int) -> _Coco:
    """Return what a file holds; its time and size are a part of what is kept."""
    content = read_bounded(path, _MOST_BYTES)
    try:
        whole = json.loads(content, parse_constant=_refuse)
        annotations: dict[int, list[_Annotation]] = {}
        for one in whole["annotations"]:
            picture, annotation = _annotation(one)
            annotations.setdefault(picture, []).append(annotation)
        return _Coco(
            tuple(_pictures(whole["images"])),
            _categories(whole["categories"]),
            {picture: tuple(held) for picture, held in annotations.items()},
        )
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError):
        raise UnreadableError(_NOT_COCO) from None


def _pictures(listed: Any) -> list[_Picture]:
    return [
        _Picture(
            _whole(one["id"]),
            str(one.get("file_name", "")),
            _size(one.get("width"), one.get("height")),
        )
        for one in listed
    ]


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return the size of a picture; None where a program has written nothing or zeros."""
    return (_whole(width), _whole(height)) if width and height else None


def _categories(listed: Any) -> dict[int, str]:
    named = {_whole(one["id"]): str(one["name"]) for one in listed}
    if len(named) < len(listed):
        msg = "a category has an id that stands twice: give each an id of its own."
        raise UnreadableError(msg)
    return named


def _annotation(one: Any) -> tuple[int, _Annotation]:
    box = tuple(float(number) for number in one["bbox"])
    if len(box) != 4 or any(isinstance(number, bool) for number in one["bbox"]):
        raise ValueError
    crowd = bool(one.get("iscrowd", 0))
    return _whole(one["image_id"]), _Annotation(_whole(one["category_id"]), box, crowd)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _refuse(_: str) -> NoReturn:
    raise ValueError
