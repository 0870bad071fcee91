"""Corrections as they come back: labels in a table, masks in a folder. Each is checked alone.

What is wrong with one is said in a sentence that names no patient; the others are taken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from wardround.client.clinic.review.cases import Case, CaseList
from wardround.client.clinic.review.masks import image_of, read_foreign, read_labels
from wardround.client.clinic.review.queue import Queue
from wardround.client.clinic.review.record import (
    Opinion,
    keep_mask,
    mask_mark,
    write_corrections,
    write_down,
)
from wardround.client.clinic.review.scores import mean_dice
from wardround.client.data.manifest.corrections import Correction, read_corrections
from wardround.client.data.manifest.label_words import label_words
from wardround.client.data.manifest.table import read_table
from wardround.client.site.folder import REVIEW_FOLDER, Site
from wardround.client.tasks.task import UnusableLabelError
from wardround.client.tasks.words import tidy
from wardround.common.errors import DataError, InputError, known_names, nearest
from wardround.common.files.atomic import make_private_folder
from wardround.common.study.study import Study

MASK_FILES = (".nii.gz", ".nii", ".png", ".npy")
LARGEST_OBJECT = 2**30  # bytes
_LARGEST_TABLE = 64 * 2**20


@dataclass
class Taken:
    """What became of corrections that came in.

    Attributes:
        written: As they stand in the table now.
        refused: Sentences on the others; they name no patient.
    """

    written: list[Correction] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """How many say something else than what counted before."""
        return sum(not is_same(one.old, one) for one in self.written)


def is_same(old: str, one: Correction) -> bool:
    """Return whether a correction says what was there before."""
    if one.column == "mask":
        return one.dice == 1.0 or old == mask_mark(one.new)
    return tidy(old).casefold() == tidy(one.new).casefold()


@dataclass(frozen=True)
class Desk:
    """Where corrections of a queue are handed in.

    Attributes:
        site: The site.
        queue: The queue that was read.
        study: Of the queue.
        listed: The site's cases.
    """

    site: Site
    queue: Queue
    study: Study
    listed: CaseList

    @property
    def cases(self) -> Mapping[str, Case]:
        """The cases of the queue by name."""
        known = self.listed.by_id()
        return {one.case: known[one.case] for one in self.queue.entries if one.case in known}

    def case(self, name: str) -> Case:
        """Return a case of the queue.

        Raises:
            InputError: The queue has none of this name.
        """
        found = self.cases.get(name)
        if found is None:
            close = nearest(name, list(self.cases))
            hint = f" Did you mean {close!r}?" if close else ""
            msg = (
                f"the queue {self.queue.name!r} has no case of that name.{hint} Its list names "
                f"{len(self.cases)}; a row that was taken out of the manifest is none any more."
            )
            raise InputError(msg)
        return found

    def label_opinion(self, case: str, label: str) -> Opinion:
        """Return what a reader says of a class, checked.

        Raises:
            InputError: The study knows neither the case nor the class.
        """
        if self.study.task.column != "label":
            msg = "the study asks for masks, and this is a label: hand in a folder of masks."
            raise InputError(msg)
        found = self.case(case)
        try:
            label_words(self.site, self.study).read(label, self.study)
        except UnusableLabelError as error:
            msg = f"{error.fact}: {error.remedy}."
            raise InputError(msg) from None
        return Opinion(case, "label", tidy(label), found.own)

    def mask_opinion(self, case: str, content: bytes, kind: str, origin: str = "") -> Opinion:
        """Return what a reader drew, checked against the image and kept.

        Args:
            content: Of the file: what is checked is what is kept.
            kind: Its ending.
            origin: As in :class:`Correction`.

        Raises:
            InputError: It is no mask of this case.
        """
        if self.study.task.column != "mask":
            msg = "the study asks for classes, and this is a mask: hand in a table of labels."
            raise InputError(msg)
        found = self.case(case)
        folder = self.site.folder / REVIEW_FOLDER
        make_private_folder(folder)
        with TemporaryDirectory(dir=folder) as place:
            path = Path(place) / f"mask{kind}"
            path.write_bytes(content)
            dice = self._dice(found, path)
        name = keep_mask(self.site, content, kind)
        return Opinion(case, "mask", name, found.own, origin, dice)

    def _dice(self, case: Case, path: Path) -> float | None:
        """Check a mask, and return how alike it is to the one that the list names."""
        if not case.examination.held_images:
            msg = "the case has no image: nothing can be drawn on it."
            raise InputError(msg)
        image = image_of(case, self.study)
        drawn = read_foreign(path, image, self.site, self.study)
        own = case.examination.mask
        if own is None:
            return None
        try:
            return mean_dice(drawn, read_labels(own, image, self.site, self.study))
        except DataError:  # what the list names may be what the reader has mended
            return None

    def hand_in(self, reader: str, opinions: Sequence[Opinion], source: str) -> list[Correction]:
        """Write down what was checked, and sign it into the audit log."""
        if not opinions:
            return []
        facts = Correction(
            time="",
            reader="",
            case="",
            column="",
            old="",
            new="",
            classes=self.study.data.classes,
            queue=self.queue.name,
            source=source,
        )
        written = write_corrections(self.site, reader, opinions, facts)
        head = read_corrections(self.site.corrections_path).head
        said = f"allow: {len(written)} corrections by {source}, {head.entries} in all"
        write_down(self.site, "correction", said, head.hash, self.study.digest)
        return written


def take(desk: Desk, given: Path, reader: str) -> Taken:
    """Take a table of labels (CSV) or a folder of masks named by their cases.

    Raises:
        InputError: It is neither, or not there.
    """
    if given.is_dir():
        return _take_masks(desk, given, reader)
    if given.is_file() and given.suffix.lower() == ".csv":
        return _take_labels(desk, given, reader)
    msg = (
        f"there is no table (.csv) and no folder {given}: give the reader's list with its column "
        "label filled in, or a folder of masks that are named by their cases."
    )
    raise InputError(msg)


def _take_labels(desk: Desk, path: Path, reader: str) -> Taken:
    if path.stat().st_size > _LARGEST_TABLE:
        msg = f"{path} is larger than {_LARGEST_TABLE // 2**20} MB: give the reader's list."
        raise InputError(msg)
    table = read_table(path, "the table of labels")
    places = {name: table.place(name) for name in ("case", "label")}
    for name, place in places.items():
        if place is None:
            msg = f"{path}: {known_names('column', name, filter(None, table.header))}"
            raise InputError(msg)
    taken, opinions = Taken(), list[Opinion]()
    for line in table.lines:
        case, label = (line.cells[place or 0] for place in places.values())
        if not tidy(label):
            continue  # not read yet
        try:
            opinions.append(desk.label_opinion(tidy(case), label))
        except InputError as error:
            taken.refused.append(f"row {line.row}: {error}")
    taken.written = desk.hand_in(reader, opinions, "file")
    return taken


def _take_masks(desk: Desk, folder: Path, reader: str) -> Taken:
    taken, opinions = Taken(), list[Opinion]()
    files = sorted(one for one in folder.iterdir() if not one.name.startswith("."))
    for path in files:
        kind = next((end for end in MASK_FILES if path.name.lower().endswith(end)), "")
        case = path.name[: len(path.name) - len(kind)] if kind else path.stem
        if case.endswith("-image"):
            continue  # what 'review open' laid beside it
        said = f"a file of the folder, number {files.index(path) + 1}"
        try:
            if not kind or not path.is_file():
                msg = (
                    f"it is no mask: use {', '.join(MASK_FILES)}. A DICOM segmentation comes "
                    "through the archive: give pacs instead of a folder."
                )
                raise InputError(msg)
            opinions.append(desk.mask_opinion(case, _read(path), kind))
            said = f"case {case}"
        except InputError as error:
            known = case in desk.cases
            taken.refused.append(f"{f'case {case}' if known else said}: {error}")
    taken.written = desk.hand_in(reader, opinions, "file")
    return taken


def _read(path: Path) -> bytes:
    if path.stat().st_size > LARGEST_OBJECT:
        msg = f"it is larger than {LARGEST_OBJECT // 2**20} MB: no mask is."
        raise InputError(msg)
    return path.read_bytes()
