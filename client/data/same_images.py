"""Images that stand under two names: the same bytes, and the same pixels where looking is cheap.

One picture that trains and tests makes the test worthless, and nobody sees it in a list of names.
Files are compared by their size first, then by a piece of their middle, then whole, so that few
are read.
"""

import hashlib
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.manifest.cells import ARRAY_FILES
from wardround.client.data.manifest.examination import Examination, Location
from wardround.client.data.manifest.rows import name_rows
from wardround.client.data.reading.array_files import item_of, open_array
from wardround.client.data.reading.readers import (
    check_finite,
    read_image,
    require_readable,
    sort_planes,
)
from wardround.common.errors import DataError

CHEAP_FILE_BYTES = 64 * 2**20  # of all pictures together: read and unpacked in a few seconds
CHEAP_ARRAY_BYTES = 2**30
_PIECE = 64 * 2**10  # from the middle of a volume, where no two patients are alike
_THREADS = 4
_Open = Callable[[Path, str | None], NDArray[Any]]
BLANK = "blank"  # an image of one value, such as a channel that was not taken: alike means nothing


@dataclass(frozen=True, slots=True)
class Held:
    """An examination in its part.

    Attributes:
        row: How messages name it.
        part: train, validation or test; "" where nobody knows yet.
        label: What it is called.
    """

    row: int
    patient: str
    part: str
    label: Hashable
    images: tuple[Location | None, ...]

    @property
    def held(self) -> tuple[Location, ...]:
        """The images that it does not lack."""
        return tuple(image for image in self.images if image is not None)


@dataclass(frozen=True, slots=True)
class SameImages:
    """Groups of examinations whose images are the same.

    Attributes:
        groups: By their bytes, or by their pixels.
        copies: Those of ``groups`` in which files of other names hold the same bytes in two parts.
    """

    groups: tuple[tuple[Held, ...], ...]
    copies: tuple[tuple[Held, ...], ...] = ()

    def refusal(self) -> str:
        """Return in words which files are copies in two parts; "" where none is.

        Nobody sees a copy in a list of names. Who names one file twice has seen it, and a picture
        that was saved anew may be meant: these are said, and not refused.
        """
        return _leak(self.copies)

    def notes(self) -> tuple[str, ...]:
        """Return sentences on images that stand twice and are no reason to refuse."""
        refused = set(self.copies)
        torn = [g for g in self.groups if g not in refused and len({h.part for h in g}) > 1]
        leak = (_leak(torn).rstrip("."),) if torn else ()
        whole = [group for group in self.groups if len({held.part for held in group}) == 1]
        findings = (
            ("under different labels", [g for g in whole if len({h.label for h in g}) > 1]),
            ("of different patients", [g for g in whole if len({h.patient for h in g}) > 1]),
            ("of one patient", [g for g in whole if len({h.patient for h in g}) == 1]),
        )
        return leak + tuple(
            f"{len(groups)} images stand twice or more {how}, e.g. in "
            f"{name_rows(sorted(held.row for held in groups[0]))}: keep one row of each"
            for how, groups in findings
            if groups
        )


def _leak(torn: Sequence[Sequence[Held]]) -> str:
    if not torn:
        return ""
    rows = [name_rows(sorted(held.row for held in group)) for group in torn[:3]]
    more = f"; and {len(torn) - 3} images more" if len(torn) > 3 else ""
    return (
        f"the same image is trained on and tested on, in {'; in '.join(rows)}{more}: keep one "
        "row of each, or write the same patient and split in all of them."
    )


def held_by(examinations: Iterable[Examination], part: str) -> list[Held]:
    """Return the examinations of a part."""
    return [Held(e.row, e.patient, part, e.label, e.images) for e in examinations if e.images]


def _of_common_channels(examinations: Sequence[Held]) -> list[Held]:
    """Return the examinations with the channels alone that none of them lacks.

    Else the same T1 image would pass for another one where one of two rows lacks its T2. Where
    every channel is lacking somewhere, those that an examination has are compared.
    """
    whole = [held for held in examinations if held.images]
    if all(None not in held.images for held in whole):
        return whole
    count = min(len(held.images) for held in whole)
    common = [at for at in range(count) if all(h.images[at] is not None for h in whole)]
    return [
        replace(held, images=tuple(held.images[at] for at in common) if common else held.held)
        for held in whole
    ]


def require_parted(
    examinations: Sequence[Held], dimensions: int, refuses: bool = True
) -> tuple[str, ...]:
    """Check that no copy of an image is in another part, and return what else is to be said.

    Args:
        dimensions: Of the images, 2 or 3.
        refuses: Whether a copy in another part is a reason to refuse, or only said too.

    Raises:
        DataError: There is a copy; says the rows.
    """
    same = find_same_images(examinations, dimensions)
    refusal = same.refusal()
    if refusal and refuses:
        raise DataError(refusal)
    return (*((refusal.rstrip("."),) if refusal else ()), *same.notes())


def find_same_images(
    examinations: Sequence[Held], dimensions: int, pixels: bool = True
) -> SameImages:
    """Return examinations whose images are the same, channel by channel.

    Args:
        pixels: Whether to compare pixels too, where there are few enough: a picture that was saved
            anew has other bytes. Without, items of array files are not compared.
    """
    examinations = _of_common_channels(examinations)
    by_bytes = _same_files(examinations)
    groups = [group for group in by_bytes if not _are_blank(group[0], dimensions)]
    copied = {held.row for group in groups if _are_copies(group) for held in group}
    opened = cache(_open_readable)  # an array file once, and not for each of its items
    if pixels and _is_cheap(examinations, opened):
        groups += _same_pixels(examinations, dimensions, opened)
    joined = tuple(_joined(groups))
    return SameImages(joined, tuple(g for g in joined if copied & {held.row for held in g}))


def _are_copies(group: Sequence[Held]) -> bool:
    """Whether files of other names are in two parts."""
    named: dict[tuple[Path, ...], set[str]] = {}
    for held in group:
        named.setdefault(tuple(image.path.absolute() for image in held.held), set()).add(held.part)
    parts = list(named.values())
    return len(parts) > 1 and len(set().union(*parts)) > 1


def _joined(groups: Iterable[Sequence[Held]]) -> list[tuple[Held, ...]]:
    """Return groups of which no two hold the same row."""
    joined: list[dict[int, Held]] = []
    for group in groups:
        new = {held.row: held for held in group}
        for other in [one for one in joined if one.keys() & new.keys()]:
            joined.remove(other)
            new |= other
        joined.append(new)
    return [tuple(one[row] for row in sorted(one)) for one in joined]


def _groups(
    examinations: Iterable[Held], key: Callable[[Held], Hashable | None]
) -> list[list[Held]]:
    found: dict[Hashable, list[Held]] = {}
    for held in examinations:
        if (value := key(held)) is not None:
            found.setdefault(value, []).append(held)
    return [group for group in found.values() if len(group) > 1]


def _same_files(examinations: Sequence[Held]) -> list[list[Held]]:
    whole = [h for h in examinations if h.held and not any(map(_is_array, h.held))]
    groups = _groups(whole, partial(_each, look=_size_of))
    looks: tuple[Callable[[Path], Hashable], ...] = (_piece_of, _content_of)
    for look in looks:
        seen = partial(_each, look=look)
        groups = [small for group in groups for small in _groups(group, seen)]
    return groups


def _each(held: Held, look: Callable[[Path], Hashable | None]) -> Hashable | None:
    """Return what is seen of each channel; None where one cannot be looked at."""
    try:
        # Two parts of one file are two images.
        seen = tuple(
            None if (facts := look(one.path)) is None else (facts, one.array, one.index)
            for one in held.held
        )
    except OSError:
        return None
    return None if None in seen else seen


def _is_array(location: Location) -> bool:
    return location.path.suffix.lower() in ARRAY_FILES


def _files_of(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


def _size_of(path: Path) -> tuple[int, ...] | None:
    sizes = tuple(sorted(file.stat().st_size for file in _files_of(path)))
    return sizes if any(sizes) else None  # nothing is like nothing


def _piece_of(path: Path) -> tuple[bytes, ...]:
    pieces = []
    for file in _files_of(path):
        with file.open("rb") as stream:
            stream.seek(max(0, (file.stat().st_size - _PIECE) // 2))
            pieces.append(hashlib.sha256(stream.read(_PIECE)).digest())
    return tuple(sorted(pieces))


def _content_of(path: Path) -> tuple[bytes, ...]:
    return tuple(sorted(digest_of_file(file) for file in _files_of(path)))


def digest_of_file(path: Path) -> bytes:
    """Return the SHA-256 of a file's bytes.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _open_readable(path: Path, array: str | None) -> NDArray[Any]:
    require_readable(path)
    return open_array(path, array)


def _is_cheap(examinations: Sequence[Held], opened: _Open) -> bool:
    """Whether all pixels are few enough to be looked at."""
    files = arrays = 0
    for held in examinations:
        for location in held.held:
            try:
                if _is_array(location):
                    arrays += item_of(opened(location.path, location.array), location.index).nbytes
                else:
                    files += sum(_size_of(location.path) or ())
            except (OSError, DataError):  # whoever reads it says so
                continue
            if files > CHEAP_FILE_BYTES or arrays > CHEAP_ARRAY_BYTES:
                return False
    return True


def _same_pixels(examinations: Sequence[Held], dimensions: int, opened: _Open) -> list[list[Held]]:
    look = partial(_pixels_of, dimensions=dimensions, opened=opened)
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        # Files are unpacked beside each other; items of arrays take less than handing them over.
        files = [held for held in examinations if not all(map(_is_array, held.held))]
        seen = dict(zip((held.row for held in files), threads.map(look, files), strict=True))
    return _groups(examinations, lambda held: seen[held.row] if held.row in seen else look(held))


def _pixels_of(held: Held, dimensions: int, opened: _Open) -> Hashable | None:
    """Return what tells one examination's pixels from another's; None where nothing does."""
    digests = []
    for location in held.held:
        try:
            array = _pixels_at(location, dimensions, opened)
        except DataError:  # whoever trains on it says so
            return None
        digests.append(digest_of_pixels(array))
    return None if set(digests) <= {BLANK} else tuple(digests)


def _pixels_at(location: Location, dimensions: int, opened: _Open) -> NDArray[Any]:
    colour = dimensions == 2
    if not _is_array(location):
        return read_image(location, dimensions, colour).array
    stored = item_of(opened(location.path, location.array), location.index)
    planes: NDArray[Any] = sort_planes(stored[np.newaxis], dimensions, colour)[0]
    check_finite(planes)
    return planes


def digest_of_pixels(array: NDArray[Any]) -> str:
    """Return what tells one image ``(planes, *spatial)`` from another; one word for a blank one."""
    if array.min() == array.max():
        return BLANK
    digest = hashlib.sha256(repr(array.shape).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _are_blank(held: Held, dimensions: int) -> bool:
    """Whether an examination shows nothing at all; one that cannot be read counts as an image."""
    for location in held.held:
        try:
            array = read_image(location, dimensions).array
        except DataError:
            return False
        if array.min() != array.max():
            return False
    return True
