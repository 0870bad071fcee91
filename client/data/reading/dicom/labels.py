"""From the names of segments and outlines to the classes of a study, or a refusal."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.image import UnreadableError

_COUNTED = re.compile(r"^(.*?)[\s_#.-]*\d+$")
# Names that say nothing but the number of the segment.
_NUMBERED = ("", "segment", "segmentation", "seg", "label", "class", "part", "region", "roi")


@dataclass(frozen=True, slots=True)
class Matched:
    """Which class each segment is of.

    Attributes:
        classes: Label by the number of the segment; one without a class is not in it.
        notes: What was not taken by its name.
    """

    classes: dict[int, int]
    notes: tuple[str, ...] = ()


def match_classes(names: Mapping[int, Sequence[str]], classes: Sequence[str], what: str) -> Matched:
    """Return the class of each segment.

    By name (of the segment, or of its coded type): the same letters, whatever the capitals, blanks
    and hyphens, and perhaps with a number ("Lesion 2" is of the class lesion). Segments of other
    names are left out only where every class of the study is found by name. Where none is found:
    the only segment is the only class, and segments without a name of their own ("Segment 2") are
    counted.

    Args:
        names: The names of each segment, by number.
        classes: Of the study; the first is the background. None: segments keep their numbers.
        what: What a message calls a segment.

    Raises:
        UnreadableError: A segment could be of no class, or of several.
    """
    if not classes:
        return Matched({number: number for number in names})
    wanted = {_plain(name): label for label, name in enumerate(classes)}
    found = {number: _label(texts, wanted) for number, texts in names.items()}
    matched = {number: label for number, label in found.items() if label is not None}
    others = [number for number in names if number not in matched]
    if not others:
        return Matched(matched)
    lacking = [label for label in range(1, len(classes)) if label not in matched.values()]
    if matched and not lacking:
        note = f"{len(others)} of {len(names)} {what}s have names of no class and were left out"
        return Matched(matched, (note,))
    if not matched and len(names) == 1 and len(classes) == 2:
        note = f"its only {what} has another name than the class and was taken as class 1"
        return Matched({next(iter(names)): 1}, (note,))
    if not matched and all(_is_numbered(number, names[number], len(classes)) for number in names):
        note = f"its {len(names)} {what}s have no names and were taken by their numbers"
        return Matched({number: number for number in names}, (note,))
    msg = (
        f"{len(others)} of its {len(names)} {what}s have a name that is no class of the study, and "
        f"{len(lacking)} classes are not found by name: call the {what}s as the study calls its "
        f"classes ({', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''})."
    )
    raise UnreadableError(msg)


def merge(mask: NDArray[np.uint16], area: NDArray[np.bool_], label: int) -> int:
    """Write a class into part of a mask.

    Args:
        mask: Of any shape; 0 where nothing is yet. Changed in place.
        area: Of the same shape.
        label: The class.

    Returns:
        How many voxels of the area were of another class.
    """
    taken = area & (mask != 0) & (mask != label)
    mask[area] = label
    return int(taken.sum())


def check_overlap(voxels: int, what: str) -> None:
    """Refuse a mask where voxels are of two classes.

    Raises:
        UnreadableError: There is such a voxel.
    """
    if voxels:
        msg = (
            f"{voxels} voxels lie in {what}s of two classes, and a mask has one class a voxel: "
            f"make the {what}s disjoint, or leave one out."
        )
        raise UnreadableError(msg)


def _label(texts: Sequence[str], wanted: Mapping[str, int]) -> int | None:
    plain = [_plain(text) for text in texts if text]
    for names in (plain, [_uncounted(name) for name in plain]):
        for name in names:
            if name in wanted:
                return wanted[name]
    return None


def _is_numbered(number: int, texts: Sequence[str], class_count: int) -> bool:
    if not 0 < number < class_count:
        return False
    name = _plain(texts[0]) if texts and texts[0] else ""
    digits = name[len(_uncounted(name)) :].strip(" _#.-")
    return _uncounted(name) in _NUMBERED and digits in ("", str(number))


def _uncounted(name: str) -> str:
    match = _COUNTED.match(name)
    return match[1] if match else name


def _plain(text: str) -> str:
    """Return a name without what people write differently: capitals, accents' forms, hyphens."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return " ".join(re.split(r"[\s_-]+", folded.strip()))
