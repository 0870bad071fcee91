"""What a DICOM object is, by its SOP class and image type, and how a message calls it."""

import re
from typing import Any, Literal

Kind = Literal["image", "segmentation", "structures", "index", "other"]

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_SEGMENTATIONS = (_STORAGE + "66.4", _STORAGE + "66.7")  # frames a segment, and label maps
_STRUCTURES = _STORAGE + "481.3"
_INDEX = "1.2.840.10008.1.3.10"
# Objects about images: reports, presentation states, dose, plans, registrations, waveforms, papers.
_ABOUT_IMAGES = tuple(
    _STORAGE + number
    for number in ("88.", "11.", "9.", "66.", "67", "68.", "91.", "104.", "481.", "4.2")
)
_RADIOGRAPH = _STORAGE + "481.1"  # of a treatment beam: the one picture among those of radiotherapy
_CAPTURE = _STORAGE + "7"
_SLIDE = _STORAGE + "77.1.6"
# Frames that follow each other in time: ultrasound, X-ray angiography and fluoroscopy, video.
_FILMS = (
    *(_STORAGE + number for number in ("3", "3.1", "12.1", "12.1.1", "12.2", "12.2.1", "12.3")),
    *(_STORAGE + number for number in ("77.1.1.1", "77.1.2.1", "77.1.4.1")),
)
_CT = (_STORAGE + "2", _STORAGE + "2.1", _STORAGE + "2.2")
_PET = (_STORAGE + "128", _STORAGE + "128.1", _STORAGE + "130")
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_PAGES = ("SCREEN SAVE", "CSA REPORT", "CSA BLACK IMAGE", "DOSE_INFO", "DOSE REPORT")
_CODE = re.compile(r"^[A-Z]{1,16}$")


def element(dataset: Any, name: str) -> Any:
    """Return the value of an element; None where it is absent, which ``get`` takes long to say."""
    return dataset.get(name) if name in dataset else None


def sop_class_of(dataset: Any) -> str:
    """Return the SOP class, from the header's own group where the data set lacks it."""
    uid = element(dataset, "SOPClassUID")
    return str(uid or dataset.file_meta.get("MediaStorageSOPClassUID") or "")


def kind_of(dataset: Any) -> Kind:
    """Return what a data set is to a reader of images."""
    sop_class = sop_class_of(dataset)
    if sop_class == _INDEX or "DirectoryRecordSequence" in dataset:
        return "index"
    if sop_class in _SEGMENTATIONS:
        return "segmentation"
    if sop_class == _STRUCTURES:
        return "structures"
    if sop_class.startswith(_ABOUT_IMAGES) and sop_class != _RADIOGRAPH:
        return "other"
    if has_pixels(dataset) or "Rows" in dataset:
        return "image"
    # A private object that holds no picture, such as a scanner's raw data.
    return "other" if "Image" not in _name(sop_class) else "image"


def in_words(dataset: Any) -> str:
    """Return e.g. "CT Image" or "Segmentation"; never a UID."""
    sop_class = sop_class_of(dataset)
    if sop_class in _SEGMENTATIONS:
        return "segmentation (SEG)"
    name = "structure set (RTSTRUCT)" if sop_class == _STRUCTURES else _name(sop_class)
    return name.removesuffix(" Storage") if name else "object of a private kind"


def modality_of(dataset: Any) -> str:
    """Return e.g. "CT"; "" where the file does not say, or says no code."""
    text = str(element(dataset, "Modality") or "")
    return text if _CODE.match(text) else ""


def has_pixels(dataset: Any) -> bool:
    """Whether there is an element with pixels."""
    return any(name in dataset for name in _PIXELS)


def is_localiser(dataset: Any) -> bool:
    """Whether it is a scout view to plan slices on."""
    return "LOCALIZER" in _image_type(dataset)


def is_page(dataset: Any) -> bool:
    """Whether it is a screen or a page, such as a dose report, and no slice."""
    sop_class = sop_class_of(dataset)
    if sop_class == _CAPTURE or sop_class.startswith(_CAPTURE + "."):
        return True
    return any(value in _PAGES for value in _image_type(dataset))


def is_ct(dataset: Any) -> bool:
    """Whether it is computed tomography."""
    return sop_class_of(dataset) in _CT or modality_of(dataset) == "CT"


def is_pet(dataset: Any) -> bool:
    """Whether it is positron emission tomography."""
    return sop_class_of(dataset) in _PET or modality_of(dataset) == "PT"


def is_slide(dataset: Any) -> bool:
    """Whether it is a slide of pathology, stored as tiles."""
    return sop_class_of(dataset) == _SLIDE


def is_film(dataset: Any) -> bool:
    """Whether its frames follow each other in time, or by anything else than place."""
    if sop_class_of(dataset) in _FILMS or any(
        dataset.get(name) for name in ("FrameTime", "FrameTimeVector", "CineRate")
    ):
        return True
    pointer = element(dataset, "FrameIncrementPointer") or ()
    pointers = [pointer] if isinstance(pointer, int) else list(pointer)
    # Nuclear medicine: the slices of a tomogram; or energies, detectors, time slots, angles.
    return any((int(p) >> 16) == 0x0054 and (int(p) & 0xFFFF) != 0x0080 for p in pointers)


def _image_type(dataset: Any) -> tuple[str, ...]:
    values = element(dataset, "ImageType") or ()
    parts = (values,) if isinstance(values, str) else values
    return tuple(str(value).strip().upper() for value in parts)


def _name(sop_class: str) -> str:
    from pydicom.uid import UID

    name = UID(sop_class).name if sop_class else ""
    return "" if name == sop_class else name
