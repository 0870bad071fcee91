"""Studies and series as their headers describe them. Of patients: nothing here is ever shown."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydicom.dataset import Dataset

Kind: TypeAlias = Literal["image", "segmentation", "structures", "report", "other"]
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_KINDS: dict[str, Kind] = {
    f"{_STORAGE}66.4": "segmentation",
    f"{_STORAGE}66.7": "segmentation",
    f"{_STORAGE}481.3": "structures",
}
_LARGEST_NUMBER = 1e9
_REPORTS = f"{_STORAGE}88."
_NO_IMAGES = tuple(
    f"{_STORAGE}{part}" for part in ("104.", "9.", "11.", "66", "481.", "88.", "131")
)
HEADER = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "PatientID",
    "AccessionNumber",
    "StudyDate",
    "StudyDescription",
    "SeriesDate",
    "SeriesTime",
    "SeriesDescription",
    "ProtocolName",
    "SeriesNumber",
    "Modality",
    "BodyPartExamined",
    "SliceThickness",
    "ImageType",
    "InstanceNumber",
    "NumberOfFrames",
    "Rows",
    "DirectoryRecordSequence",
)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a series."""

    path: Path = field(repr=False)
    uid: str = field(repr=False)
    size: int
    frames: int
    number: int = 0


@dataclass(slots=True)
class SourceSeries:
    """A series of a study.

    Attributes:
        expected: How many objects the archive says it has; None where nobody says.
    """

    uid: str = field(repr=False)
    patient: str = field(repr=False)
    kind: Kind
    modality: str
    descriptions: tuple[str, ...] = field(repr=False)
    body_part: str
    thickness: float | None
    image_types: frozenset[str]
    moment: str = field(repr=False)
    number: int
    files: list[SourceFile] = field(default_factory=list, repr=False)
    expected: int | None = None

    @property
    def images(self) -> int:
        """How many images: files, and frames in them."""
        return sum(file.frames for file in self.files)

    @property
    def in_order(self) -> list[SourceFile]:
        """Its files by their numbers, of the same number by their UIDs."""
        return sorted(self.files, key=lambda file: (file.number, file.uid))

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self.files)


@dataclass(slots=True)
class SourceStudy:
    """A study of a patient."""

    uid: str = field(repr=False)
    patient: str = field(repr=False)
    accession: str = field(repr=False)
    date: str = field(repr=False)
    description: str = field(repr=False)
    series: dict[str, SourceSeries] = field(default_factory=dict, repr=False)
    is_mixed: bool = False  # it names two patients

    def of_kind(self, *kinds: Kind) -> list[SourceSeries]:
        """Return its series of these kinds, in the order of their numbers."""
        found = [series for series in self.series.values() if series.kind in kinds]
        return sorted(found, key=lambda series: (series.number, series.uid))


def text_of(dataset: Dataset, keyword: str) -> str:
    """Return an attribute as text, "" where it is absent or cannot be read."""
    try:
        value = dataset.get(keyword, "")
    except Exception:  # a foreign file's value may be anything
        return ""
    return "" if value is None else str(value).strip(" \0")


def values_of(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Return an attribute that may have several values."""
    value: Any = dataset.get(keyword, ())
    if isinstance(value, str):
        return (value,)
    return tuple(str(one) for one in value or ())


def series_from(header: Dataset) -> SourceSeries:
    """Return the series that a file is of, without the file."""
    return SourceSeries(
        text_of(header, "SeriesInstanceUID"),
        text_of(header, "PatientID"),
        kind_of(header),
        text_of(header, "Modality").upper(),
        (text_of(header, "SeriesDescription"), text_of(header, "ProtocolName")),
        text_of(header, "BodyPartExamined"),
        _number(header, "SliceThickness"),
        frozenset(value.upper() for value in values_of(header, "ImageType")),
        text_of(header, "SeriesDate") + text_of(header, "SeriesTime"),
        int(_number(header, "SeriesNumber") or 0),
    )


def study_from(header: Dataset) -> SourceStudy:
    """Return the study that a file is of, without its series."""
    return SourceStudy(
        text_of(header, "StudyInstanceUID"),
        text_of(header, "PatientID"),
        text_of(header, "AccessionNumber"),
        text_of(header, "StudyDate"),
        text_of(header, "StudyDescription"),
    )


def kind_of(header: Dataset) -> Kind:
    """Return what a DICOM object is, by its class."""
    uid = text_of(header, "SOPClassUID")
    if uid in _KINDS:
        return _KINDS[uid]
    if uid.startswith(_REPORTS):
        return "report"
    is_image = uid.startswith(_STORAGE) and not uid.startswith(_NO_IMAGES) and "Rows" in header
    return "image" if is_image else "other"


def frames_of(header: Dataset) -> int:
    """Return how many frames an object has, 1 where it does not say."""
    return max(int(_number(header, "NumberOfFrames") or 1), 1)


def number_of(header: Dataset) -> int:
    """Return the number of an image in its series, 0 where it does not say."""
    return int(_number(header, "InstanceNumber") or 0)


def _number(header: Dataset, keyword: str) -> float | None:
    try:
        number = float(text_of(header, keyword))
    except ValueError:
        return None
    return number if abs(number) < _LARGEST_NUMBER else None  # neither infinite nor not a number
