"""A picture archive (PACS), whichever protocol it speaks: asked, read from and written to.

What an archive says is foreign: identifiers are checked before they become part of an address or a
path, numbers and sizes are bounded, and its texts never reach a log.
"""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, runtime_checkable

from wardround.client.clinic.pacs.settings import read_pacs_file
from wardround.common.errors import RunError

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_LONGEST_UID = 64
_LONGEST_VALUE = 1_024  # characters of one value of an answer


class PacsError(RunError):
    """The archive refuses what was asked, or answers what cannot be used."""


class PacsAwayError(PacsError):
    """The archive cannot be reached now; the same may work later."""


@dataclass(frozen=True, slots=True)
class StudyQuery:
    """Which studies are meant; what is empty does not narrow.

    Attributes:
        patient_id: Of the hospital, exactly.
        study_uid: One study.
        accession_number: Exactly.
        modality: A modality that the study has, e.g. "MR".
        description: Of the study; ``*`` and ``?`` stand for letters, as in DICOM.
        date_from: First day of the study, as YYYYMMDD.
        date_to: Last day.
    """

    patient_id: str = ""
    study_uid: str = ""
    accession_number: str = ""
    modality: str = ""
    description: str = ""
    date_from: str = ""
    date_to: str = ""

    @property
    def filters(self) -> dict[str, str]:
        """The query's keys by DICOM keyword."""
        days = f"{self.date_from}-{self.date_to}" if self.date_from or self.date_to else ""
        asked = {
            "PatientID": self.patient_id,
            "StudyInstanceUID": self.study_uid,
            "AccessionNumber": self.accession_number,
            "ModalitiesInStudy": self.modality,
            "StudyDescription": self.description,
            "StudyDate": days,
        }
        return {key: value for key, value in asked.items() if value}


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """A study as the archive lists it. Of a patient: never logged, never shown but to who asked."""

    uid: str
    patient_id: str = field(default="", repr=False)
    accession_number: str = field(default="", repr=False)
    date: str = field(default="", repr=False)
    description: str = field(default="", repr=False)
    modalities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """A series as the archive lists it.

    Attributes:
        objects: How many the archive says it has; None where it does not say.
    """

    study_uid: str
    uid: str
    modality: str = ""
    description: str = field(default="", repr=False)
    objects: int | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as the archive lists it."""

    uid: str
    class_uid: str = ""


Found = TypeVar("Found", FoundStudy, FoundSeries, StoredObject)


@runtime_checkable
class Archive(Protocol):
    """What every archive can do here. Each call raises PacsError, or PacsAwayError for a while."""

    @property
    def name(self) -> str:
        """Where it is, in words for a message."""

    def ping(self) -> None:
        """Ask whether it is there and lets us in."""

    def find_studies(self, query: StudyQuery) -> list[FoundStudy]:
        """Return the studies that a query fits."""

    def find_series(self, study_uid: str) -> list[FoundSeries]:
        """Return the series of a study."""

    def find_objects(self, study_uid: str, series_uid: str) -> list[StoredObject]:
        """Return the objects of a series."""

    def fetch_series(self, study_uid: str, series_uid: str, folder: Path) -> list[Path]:
        """Write the objects of a series into a folder, one file each, as many as there are.

        The folder is new or empty. Its files are numbered: no name of theirs is the archive's.
        """

    def store(self, datasets: Sequence["Dataset"]) -> None:
        """Store objects, and look by a query whether they are there."""


def open_archive(site: Path) -> Archive:
    """Return the archive that ``pacs.toml`` of a site folder names. Nothing is asked of it yet.

    Raises:
        InputError: The file is missing or says something that cannot be, or a package is missing.
    """
    content = read_pacs_file(site)
    silence_libraries()
    if content.classic is not None:
        from wardround.client.clinic.pacs.classic import ClassicArchive

        return ClassicArchive(site, content.classic, content.receiver, content.limits)
    from wardround.client.clinic.pacs.dicomweb import WebArchive

    return WebArchive(site, content.web, content.limits)


def silence_libraries() -> None:
    """Have pydicom and highdicom take foreign values without a word: their warnings quote them.

    A patient's name stood on the terminal, and in the log.
    """
    import warnings

    import pydicom

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    for talkative in ("pydicom", "highdicom"):
        logging.getLogger(talkative).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"(highdicom|pydicom)(\..*)?")


def is_uid(text: object) -> bool:
    """Whether a text is a DICOM unique identifier: digits and dots, at most 64 characters."""
    return isinstance(text, str) and len(text) <= _LONGEST_UID and bool(_UID.fullmatch(text))


def checked_uid(text: object, what: str) -> str:
    """Return an identifier that an archive sent, for use in addresses and paths.

    Args:
        what: What it is of, for the message, e.g. "study".

    Raises:
        PacsError: It is none.
    """
    if not is_uid(text):
        msg = f"the archive names a {what} by what is no DICOM identifier (digits and dots)."
        raise PacsError(msg)
    return str(text)


def value_of(dataset: "Dataset", keyword: str) -> str:
    """Return one attribute of an answer as text, "" where it has none or cannot be read."""
    try:
        value = dataset.get(keyword, "")
        text = "" if value is None else str(value)
    except Exception:  # of a foreign data set any conversion may fail
        return ""
    return text[:_LONGEST_VALUE]


def values_of(dataset: "Dataset", keyword: str) -> tuple[str, ...]:
    """Return an attribute that may have several values."""
    text = value_of(dataset, keyword).strip("[]")
    return tuple(filter(None, (part.strip(" '\"") for part in re.split(r"[\\,]", text))))


def whole_number(dataset: "Dataset", keyword: str) -> int | None:
    """Return a count of an answer; None where it says none that can be one."""
    text = value_of(dataset, keyword)
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def study_of(dataset: "Dataset") -> FoundStudy:
    """Return what an answer at the level of studies says."""
    return FoundStudy(
        uid=checked_uid(value_of(dataset, "StudyInstanceUID"), "study"),
        patient_id=value_of(dataset, "PatientID"),
        accession_number=value_of(dataset, "AccessionNumber"),
        date=value_of(dataset, "StudyDate"),
        description=value_of(dataset, "StudyDescription"),
        modalities=values_of(dataset, "ModalitiesInStudy"),
    )


def series_of(dataset: "Dataset", study_uid: str) -> FoundSeries:
    """Return what an answer at the level of series says."""
    return FoundSeries(
        study_uid=study_uid,
        uid=checked_uid(value_of(dataset, "SeriesInstanceUID"), "series"),
        modality=value_of(dataset, "Modality"),
        description=value_of(dataset, "SeriesDescription"),
        objects=whole_number(dataset, "NumberOfSeriesRelatedInstances"),
    )


def object_of(dataset: "Dataset") -> StoredObject:
    """Return what an answer at the level of objects says."""
    class_uid = value_of(dataset, "SOPClassUID")
    return StoredObject(
        checked_uid(value_of(dataset, "SOPInstanceUID"), "object"),
        class_uid if is_uid(class_uid) else "",
    )


class Answers(Generic[Found]):
    """The answers of a query, each once; those without a valid identifier are left out and counted.

    One bad entry of an archive must not hide all others.
    """

    def __init__(self, read: Callable[["Dataset"], Found], most: int) -> None:
        """Begin.

        Args:
            read: Returns what an answer says, or raises PacsError.
            most: Answers that are taken.
        """
        self._read: Callable[[Dataset], Found] = read
        self._most = most
        self._found: dict[str, Found] = {}
        self._bad: PacsError | None = None
        self._left_out = 0

    def add(self, answer: "Dataset") -> bool:
        """Take an answer; return whether it is a new one.

        Raises:
            PacsError: They are more than are taken.
        """
        before = len(self._found)
        try:
            one = self._read(answer)
        except PacsError as error:
            self._bad = error
            self._left_out += 1
            return False
        self._found[one.uid] = one
        if len(self._found) > self._most:
            msg = (
                f"the archive finds more than limits.found = {self._most}: ask for less, or raise "
                "it in pacs.toml."
            )
            raise PacsError(msg)
        return len(self._found) > before

    def finish(self) -> list[Found]:
        """Return what was found.

        Raises:
            PacsError: There were answers, and none of them can be used.
        """
        if self._bad is not None and not self._found:
            raise self._bad
        if self._left_out:
            logger.warning(
                "%d entries that the archive lists have no valid DICOM identifier: left out",
                self._left_out,
            )
        return list(self._found.values())


def listed_objects(archive: Archive, study_uid: str, series_uid: str) -> list[StoredObject]:
    """Return the objects of a series that is to be fetched.

    Raises:
        PacsError: The archive knows none.
    """
    objects = archive.find_objects(study_uid, series_uid)
    if not objects:
        msg = "the archive has no object of this series."
        raise PacsError(msg)
    return objects


def require_stored(archive: Archive, datasets: Sequence["Dataset"]) -> None:
    """Look by a query whether objects are in an archive.

    Some archives answer "stored" and store nothing (dicomweb-client#42).

    Raises:
        PacsAwayError: Some are not; archives may need a moment before a query finds them.
    """
    series = {(str(one.StudyInstanceUID), str(one.SeriesInstanceUID)) for one in datasets}
    held = {found.uid for pair in series for found in archive.find_objects(*pair)}
    missing = [one for one in datasets if str(one.SOPInstanceUID) not in held]
    if missing:
        msg = (
            f"the archive accepted {len(datasets)} objects, but a query finds "
            f"{len(datasets) - len(missing)} of them."
        )
        raise PacsAwayError(msg)


def too_many_objects(most: int) -> str:
    """Return the sentence on a series of more objects than the limits allow."""
    return (
        f"the series has more than limits.series_objects = {most} objects: raise it in pacs.toml "
        "if that is right."
    )
