"""Which images of DICOM files a cell of the manifest means, where there are several.

``study/#series=4`` is the series of number 4 of a folder, ``cine.dcm#frame=17`` the 18th frame,
``cine.dcm#frame=middle`` the middle one, ``dynamic/#volume=2`` the third volume of a series that
passes each place several times. They may be joined: ``study/#series=4#volume=0``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wardround.client.data.reading.image import UnreadableError

_PART = re.compile(r"^(series|volume|frame)=(\d{1,9}|middle)$")


@dataclass(frozen=True, slots=True)
class Choice:
    """What is meant; None where the cell leaves it open.

    Attributes:
        series: The SeriesNumber.
        volume: Counted from 0, in the order of what the volumes differ in.
        frame: Counted from 0: as stored in one file, by place in a folder.
    """

    series: int | None = None
    volume: int | None = None
    frame: int | Literal["middle"] | None = None


def parse_choice(text: str | None) -> Choice:
    """Return what a cell chooses after the path.

    Raises:
        UnreadableError: It chooses twice, or something that there is not.
    """
    if not text:
        return Choice()
    found: dict[str, str] = {}
    for part in text.split("#"):
        match = _PART.match(part)
        if match is None or match[1] in found or (match[1] != "frame" and match[2] == "middle"):
            msg = "what follows '#' chooses nothing: write #series=4, #volume=0 or #frame=17."
            raise UnreadableError(msg)
        found[match[1]] = match[2]
    frame = found.get("frame")
    return Choice(
        series=int(found["series"]) if "series" in found else None,
        volume=int(found["volume"]) if "volume" in found else None,
        frame=None if frame is None else "middle" if frame == "middle" else int(frame),
    )


def place_of(frame: int | Literal["middle"], count: int) -> int:
    """Return which of ``count`` frames is meant.

    Raises:
        UnreadableError: There are not so many.
    """
    place = count // 2 if frame == "middle" else frame
    if place >= count:
        msg = f"there are {count} frames, counted from 0, and no frame {place}: mend the number."
        raise UnreadableError(msg)
    return place


def listed(words: Sequence[str], most: int = 5) -> str:
    """Return words with semicolons between, the first few of many."""
    more = len(words) - most
    return "; ".join(words[:most]) + (f"; and {more} more" if more > 0 else "")
