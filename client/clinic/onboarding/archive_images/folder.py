"""A folder of DICOM of any nesting and any names: files are known by what is in them."""

import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from wardround.client.clinic.onboarding.archive_images.series import (
    HEADER,
    SourceFile,
    SourceStudy,
    frames_of,
    number_of,
    series_from,
    study_from,
    text_of,
)
from wardround.client.clinic.onboarding.deidentification.keyed_maps import normal_identifier
from wardround.client.clinic.onboarding.rules import ImportLimits
from wardround.common.errors import InputError

_PREAMBLE = 128
_MEGABYTE = 2**20
# A file without preamble begins with its first attribute: group 2 or 8, little or big endian.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META_BYTES = 1024  # in which a file says how the rest is encoded
_BEGINNINGS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")


@dataclass(slots=True)
class FolderIndex:
    """What a folder has.

    Attributes:
        studies: By UID, in the order in which they were found.
        left_out: Files that are not taken, by reason.
    """

    studies: dict[str, SourceStudy] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    files: int = 0


def quiet_pydicom() -> None:
    """Keep pydicom from quoting values of patients' files in warnings."""
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")


def index_folder(folder: Path, limits: ImportLimits) -> FolderIndex:
    """Read the headers of all DICOM files in a folder and those in it.

    Raises:
        InputError: There is no such folder, or it holds more files than the rules allow.
    """
    if not folder.is_dir():
        msg = f"{folder} is not a folder: name one with DICOM files in it, or pacs."
        raise InputError(msg)
    quiet_pydicom()
    index = FolderIndex()
    seen: set[str] = set()
    for path in _files(folder):
        index.files += 1
        if index.files > limits.files:
            msg = (
                f"{folder} holds more than limits.files = {limits.files} files: raise it in the "
                "rules, or import parts of it."
            )
            raise InputError(msg)
        reason = _add(index, path, seen, limits)
        if reason:
            index.left_out[reason] += 1
    return index


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            yield Path(place) / name


def _add(index: FolderIndex, path: Path, seen: set[str], limits: ImportLimits) -> str:
    """Add a file to the index; return why it is left out, "" where it is not."""
    try:
        if not path.is_file():
            return "not a file"
        size, start = path.stat().st_size, _start_of(path)
        reason = _not_opened(size, start, limits)
        header = None if reason else read_header(path)
    except OSError:
        return "this account may not read it"
    if reason or header is None:
        return reason or "not DICOM"
    try:
        return _add_header(index, header, seen, (path, size))
    except Exception:  # a foreign header's values may be anything
        return "not valid DICOM"


def _not_opened(size: int, start: bytes, limits: ImportLimits) -> str:
    if size > limits.file_megabytes * _MEGABYTE:
        return "larger than limits.file_megabytes"
    if _DEFLATED in start:
        return "deflated, which no scanner sends"  # a small file may unpack to any size
    return "" if _may_be_dicom(start) else "not DICOM"


def _add_header(index: FolderIndex, header: Dataset, seen: set[str], file: tuple[Path, int]) -> str:
    """Add a file that is DICOM; return why it is left out."""
    if "DirectoryRecordSequence" in header:
        return "the index of a disc"
    uid = text_of(header, "SOPInstanceUID")
    study, series = study_from(header), series_from(header)
    if not (uid and study.uid and series.uid):
        return "without the identifiers of study, series and image"
    if uid in seen:
        return "a copy of another file"
    seen.add(uid)
    study = index.studies.setdefault(study.uid, study)
    if normal_identifier(series.patient) != normal_identifier(study.patient):
        study.is_mixed = True
    series = study.series.setdefault(series.uid, series)
    series.files.append(SourceFile(file[0], uid, file[1], frames_of(header), number_of(header)))
    return ""


def read_header(path: Path) -> Dataset | None:
    """Return the header of a DICOM file, with or without a preamble; None where it is none.

    Raises:
        OSError: It cannot be read.
    """
    try:
        header = pydicom.dcmread(
            path, force=True, stop_before_pixels=True, specific_tags=list(HEADER)
        )
    except OSError:
        raise
    except Exception:  # of what only looks like DICOM, anything may be raised
        return None
    return header if text_of(header, "SOPClassUID") or "DirectoryRecordSequence" in header else None


def read_whole(path: Path) -> Dataset:
    """Return a DICOM file with its pixels and with file meta information that says its syntax.

    Raises:
        Exception: It cannot be read; of any kind, and its text may quote the file.
    """
    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in getattr(dataset, "file_meta", FileMetaDataset()):
        is_implicit, is_little = dataset.original_encoding
        syntax = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else syntax
    return dataset


def _start_of(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_META_BYTES)


def _may_be_dicom(start: bytes) -> bool:
    return start[_PREAMBLE : _PREAMBLE + 4] == b"DICM" or start[:2] in _BEGINNINGS
