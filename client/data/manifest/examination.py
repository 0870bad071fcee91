"""One row of a manifest: an examination of a patient, and where its files lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Location:
    """Where an image lies: a file, a folder of one DICOM series, or a member of an array file.

    ``images.npy#17`` is item 17 of an array; ``set.npz#train_images#17`` that of a named array;
    ``scan.nii.gz#0/4`` the first of the four volumes that a NIfTI file must hold.
    ``study/#series=4`` is one DICOM series of several in a folder, ``film.dcm#frame=middle`` one
    frame of a file: what follows the path is then the ``array``.
    """

    path: Path
    array: str | None = None
    index: int | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class BoxCell:
    """What a cell of the column boxes holds: the boxes themselves, or where they lie.

    Attributes:
        text: As in the cell; "" and "none" for an image without boxes.
        location: A file that they are read from; ``boxes.json#17`` is an image of a COCO file.
    """

    text: str = ""
    location: Location | None = None


@dataclass(frozen=True, slots=True)
class Examination:
    """One examination, still unread.

    Attributes:
        row: Line of the manifest as a spreadsheet counts it (the header is row 1); the only name
            of an examination that may stand in a message.
        patient: The site's own identifier; never leaves the site, never enters a message or log.
        images: One location a channel of the study, in the study's order; None for one that the
            examination lacks. Empty for a table study.
        label: The numbers that its label stands for, as the task reads them; None for a mask.
        mask: Where a mask on the image's grid lies; None if the target is a label.
        boxes: What the cell of its boxes holds; None if the target is another.
        split: Where the manifest puts it; None leaves it to the hash of the patient.
        covariates: Raw text of the study's covariates, in the study's order; "" if missing.
        scanner: The simulated scanner of ``site.toml`` it came from; "" for the site's own.
        groups: Its group by each of the study's groupings that are read in the manifest, in order.
        wave: Of the data, from 1; of a study whose data come in waves.
    """

    row: int
    patient: str
    images: tuple[Location | None, ...]
    label: tuple[float, ...] | None = None
    mask: Location | None = None
    split: SplitName | None = None
    covariates: tuple[str, ...] = ()
    scanner: str = ""
    groups: tuple[str, ...] = ()
    boxes: BoxCell | None = None
    wave: int = 1

    @property
    def held_images(self) -> tuple[Location, ...]:
        """The images that it does not lack; at least one, but for a table study."""
        return tuple(image for image in self.images if image is not None)

    @property
    def locations(self) -> tuple[Location, ...]:
        """Of the images that it holds, and its mask or the file of its boxes."""
        boxes = None if self.boxes is None else self.boxes.location
        return (*self.held_images, *(one for one in (self.mask, boxes) if one is not None))
