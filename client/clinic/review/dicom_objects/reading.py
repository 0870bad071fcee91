"""DICOM objects that a reader made: to which case they belong, and what they say of it.

A segmentation was drawn, or a prediction of ours corrected, in any viewer; a report was verified.
What only a program made is nobody's opinion and is passed over. Every object is foreign: it is
bounded, de-identified as the site's images were, and its texts stand in no message.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.client.clinic.onboarding.deidentification.dicom_file import (
    RefusedFileError,
    deidentify,
)
from wardround.client.clinic.onboarding.deidentification.keyed_maps import (
    IMPORT_FOLDER,
    SECRET_FILE,
    KeyedMaps,
    open_secret,
)
from wardround.client.clinic.onboarding.deidentification.options import DeidentificationOptions
from wardround.client.clinic.onboarding.labels.references import refers_to, region_names
from wardround.client.clinic.pacs.archive import silence_libraries, value_of
from wardround.client.clinic.pacs.results.codes import OWN_SCHEME, own_term
from wardround.client.clinic.review.cases import Case
from wardround.client.clinic.review.taking import LARGEST_OBJECT
from wardround.client.site.folder import Site
from wardround.common.errors import InputError
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from pydicom import Dataset

_MOST_VALUES = 2**31  # of unpacked pixels: 2,000 slices of 1,000 x 1,000
_DEEPEST = 50
_SIZES = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")


class NobodysOpinionError(InputError):
    """An object that no reader answers for: passed over, and counted."""


@dataclass(frozen=True, slots=True)
class ReadObject:
    """An object of a reader, matched with a case.

    Attributes:
        case: Its name.
        reader: Who the object says made or verified it; "" where it does not.
        origin: SHA-256 over its identifier as the archive has it.
        content: Bytes of the file that is kept; of a report nothing.
        label: Of a report the class; "" of a segmentation.
    """

    case: str
    reader: str
    origin: str
    content: bytes = b""
    label: str = ""


@dataclass
class CaseIndex:
    """Cases by the DICOM identifiers of their images, as these lie in the site's data.

    Args:
        site: Whose.
        study: Of the queue.
        cases: Those of the queue.
    """

    site: Site
    study: Study
    cases: Mapping[str, Case]
    maps: KeyedMaps | None = None
    by_study: dict[str, list[tuple[str, str, frozenset[str]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        silence_libraries()
        if (self.site.folder / IMPORT_FOLDER / SECRET_FILE).exists():
            self.maps = open_secret(self.site.folder)
        for name, case in self.cases.items():
            for place in case.examination.held_images:
                found = _identifiers(place.path)
                if found is not None:
                    study_uid, series_uid, objects = found
                    self.by_study.setdefault(study_uid, []).append((name, series_uid, objects))

    def has_study(self, uid: str) -> bool:
        """Return whether a study of the archive has a case here."""
        return self._own(uid) in self.by_study

    def read(self, path: Path) -> ReadObject:
        """Return what a file says, and of which case.

        Raises:
            NobodysOpinionError: Only a program made it.
            InputError: It is damaged, of an unknown study, or of no case.
        """
        raw = _opened(path)
        origin = origin_of(value_of(raw, "SOPInstanceUID"))
        if value_of(raw, "Modality") == "SEG":
            _check_drawn(raw)
            cleaned, content = self._cleaned(raw)
            return ReadObject(self._case_of(cleaned), _creator(raw), origin, content)
        _check_verified(raw)
        cleaned, _ = self._cleaned(raw)
        return ReadObject(
            self._case_of(cleaned), _verifier(raw), origin, label=_class_of(raw, self.study)
        )

    def _own(self, uid: str) -> str:
        """Return the identifier as the site's images have it."""
        return uid if self.maps is None or uid in self.by_study else self.maps.uid(uid)

    def _cleaned(self, raw: "Dataset") -> tuple["Dataset", bytes]:
        if value_of(raw, "StudyInstanceUID") in self.by_study or self.maps is None:
            return raw, b""
        names = region_names(raw) & frozenset(_known_names(self.site, self.study))
        try:
            made = deidentify(raw, self.maps, DeidentificationOptions(), names)
        except RefusedFileError as error:
            msg = f"it is refused: {error}."
            raise InputError(msg) from None
        return made.dataset, made.content

    def _case_of(self, cleaned: "Dataset") -> str:
        held = self.by_study.get(value_of(cleaned, "StudyInstanceUID"))
        if not held:
            msg = (
                "it is of a study that no case of the queue belongs to: is it another queue's, or "
                "another hospital's?"
            )
            raise InputError(msg)
        fitting = {name for name, series, objects in held if refers_to(cleaned, series, objects)}
        if len(fitting) != 1:
            fact = "none" if not fitting else "several"
            msg = f"it refers to {fact} of the series that the queue's cases are: draw it on one."
            raise InputError(msg)
        return fitting.pop()


def origin_of(uid: str) -> str:
    """Return by what the table knows an object of the archive."""
    return hashlib.sha256(uid.encode()).hexdigest()


def _known_names(site: Site, study: Study) -> Iterable[str]:
    yield from study.data.classes
    yield from site.settings.labels.words


def _opened(path: Path) -> "Dataset":
    import pydicom

    if path.stat().st_size > LARGEST_OBJECT:
        msg = f"it is larger than {LARGEST_OBJECT // 2**20} MB: no segmentation or report is."
        raise InputError(msg)
    try:
        read = pydicom.dcmread(path)
        claims = [int(read.get(name, 1) or 1) for name in _SIZES]
        kind = value_of(read, "Modality")
    except Exception:  # pydicom raises of every kind, and quotes the file's values
        msg = "it is damaged, or no DICOM: export it again."
        raise InputError(msg) from None
    if min(claims) < 1 or math.prod(claims) > _MOST_VALUES:
        msg = "it claims more pixels than an image has, or none: it is not opened."
        raise InputError(msg)
    if kind not in ("SEG", "SR"):
        msg = "it is neither a segmentation (SEG) nor a report (SR)."
        raise InputError(msg)
    return read


def _identifiers(path: Path) -> tuple[str, str, frozenset[str]] | None:
    """Return study, series and objects of an image; None where it is no DICOM."""
    import pydicom

    files = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
    objects, study, series = set[str](), "", ""
    for file in files:
        try:
            read = pydicom.dcmread(
                file,
                stop_before_pixels=True,
                specific_tags=["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"],
            )
        except Exception:  # no DICOM: such a case is corrected by a mask or on the page
            continue
        study, series = value_of(read, "StudyInstanceUID"), value_of(read, "SeriesInstanceUID")
        objects.add(value_of(read, "SOPInstanceUID"))
    return (study, series, frozenset(objects)) if study else None


def _check_drawn(raw: "Dataset") -> None:
    segments = list(raw.get("SegmentSequence") or ())
    kinds = {value_of(one, "SegmentAlgorithmType").upper() for one in segments}
    if kinds == {"AUTOMATIC"}:
        msg = "a program alone made the segmentation (each segment is AUTOMATIC)"
        raise NobodysOpinionError(msg)


def _check_verified(raw: "Dataset") -> None:
    if value_of(raw, "VerificationFlag").upper() != "VERIFIED":
        msg = "nobody has verified the report"
        raise NobodysOpinionError(msg)


def _creator(raw: "Dataset") -> str:
    name = value_of(raw, "ContentCreatorName") or value_of(raw, "OperatorsName")
    return " ".join(name.replace("^", " ").split())


def _verifier(raw: "Dataset") -> str:
    observers = list(raw.get("VerifyingObserverSequence") or ())
    name = value_of(observers[-1], "VerifyingObserverName") if observers else ""
    return " ".join(name.replace("^", " ").split())


def _class_of(raw: "Dataset", study: Study) -> str:
    """Return the class that a report says, as a code of ours or by its name.

    Raises:
        InputError: It says none, or several.
    """
    by_code = {own_term(name).value: name for name in study.data.classes}
    by_name = {name.casefold(): name for name in study.data.classes}
    found = set[str]()
    for item in _items(raw, 0):
        # Each class has a probability in our reports; which one is meant says an evaluation alone.
        if value_of(item, "ValueType") != "CODE" or not item.get("ConceptCodeSequence"):
            continue
        concept = list(item.get("ConceptNameCodeSequence") or ())
        if concept and value_of(concept[0], "CodeValue") == "121071":
            continue  # the finding that a group of measurements is about
        code = item.ConceptCodeSequence[0]
        meant = by_name.get(value_of(code, "CodeMeaning").casefold())
        if value_of(code, "CodingSchemeDesignator") == OWN_SCHEME:
            meant = by_code.get(value_of(code, "CodeValue"), meant)
        if meant is not None:
            found.add(meant)
    if not found or (len(found) > 1 and not study.data.multi_label):
        fact = "none" if not found else "several"
        msg = f"the report says {fact} of the study's classes: {', '.join(study.data.classes)}."
        raise InputError(msg)
    return ";".join(name for name in study.data.classes if name in found)


def _items(item: "Dataset", depth: int) -> Iterable["Dataset"]:
    if depth > _DEEPEST:
        return
    for child in item.get("ContentSequence") or ():
        yield child
        yield from _items(child, depth + 1)
