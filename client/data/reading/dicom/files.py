"""Files of DICOM told by their content: with or without a preamble, whatever they are called."""

import logging
import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from wardround.client.data.reading.dicom.kinds import Kind, kind_of
from wardround.client.data.reading.image import UnreadableError

_HEAD = 1024
_APPLE = (b"\x00\x05\x16\x07", b"\x00\x05\x16\x00")  # what a Mac writes beside a file
# Thumbs.db, PDF, PNG, JPEG, GIF, zip, gzip, SQLite, NumPy: other files that lie beside images.
_OTHERS = (
    b"\xd0\xcf\x11\xe0",
    b"%PDF",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"SQLite",
    b"\x93NUMPY",
)
_NAMES = (".dcm", ".dicom", ".ima")
_VALUE_TYPES = (b"UL", b"UI", b"OB", b"CS", b"SH", b"DA", b"TM", b"LO", b"DT", b"SQ", b"UN")
_LONGEST_FIRST_VALUE = 1024


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at a place.

    Attributes:
        datasets: In the order of the files' names.
        kinds: What each is.
        notes: What was left out.
    """

    datasets: list[Any]
    kinds: list[Kind]
    notes: tuple[str, ...] = ()


def find_datasets(path: Path, series: int | None = None) -> Found:
    """Read a DICOM file, or those of a folder.

    Args:
        path: A file, or a folder whose own files are read; not those of folders in it.
        series: Only files of this SeriesNumber are read whole; the others are left out.

    Raises:
        UnreadableError: There is no DICOM file, or one of the folder is damaged.
    """
    quieten()
    if not path.is_dir():
        with path.open("rb") as stream:
            dataset = _parse(stream, None)
        kind = "index" if dataset is None else kind_of(dataset)
        if kind == "index":
            what = "no DICOM file" if dataset is None else "the index of a disc (DICOMDIR)"
            msg = f"it is {what}: name a DICOM file, or the folder of one series."
            raise UnreadableError(msg)
        return Found([dataset], [kind])
    entries = sorted(path.iterdir())
    files = [entry for entry in entries if entry.is_file()]
    inner = [e for e in entries if e.is_dir() and not e.name.startswith((".", "__MACOSX"))]
    read = _read_files(files, series)
    if not read:
        raise _nothing(len(inner), series)
    notes = (f"{len(inner)} folders inside it are not read",) if inner else ()
    return Found([dataset for dataset, _ in read], [kind for _, kind in read], notes)


def first_header(path: Path, tags: list[str]) -> Any | None:
    """Return some elements of the first DICOM file at a place; None where there is none."""
    quieten()
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    for file in files:
        with file.open("rb") as stream:
            dataset = _parse(stream, tags)
        if dataset is not None and kind_of(dataset) != "index":
            return dataset
    return None


def quieten() -> None:
    """Keep pydicom's warnings to itself: they quote values of a patient's file."""
    import pydicom

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom")
    warnings.filterwarnings("ignore", module=r"pylibjpeg|openjpeg|libjpeg")


def _nothing(folders: int, series: int | None) -> UnreadableError:
    msg = "the folder has no DICOM file: name the folder of one series."
    if series is not None:
        msg = f"the folder has no file of series {series}: mend the number after '#series='."
    if folders:
        msg = (
            f"the folder has no DICOM file of its own, but {folders} folders: "
            "name the one that holds the series."
        )
    return UnreadableError(msg)


def _read_files(files: list[Path], series: int | None) -> list[tuple[Any, Kind]]:
    read: list[tuple[Any, Kind]] = []
    others: list[Path] = []
    suffixes: set[str] = set()
    for file in files:
        dataset = _read_file(file, series)
        if dataset is None:
            others.append(file)
            continue
        suffixes.add(_suffix(file))
        kind = "index" if dataset is _LEFT_OUT else kind_of(dataset)
        if kind != "index":
            read.append((dataset, kind))
    damaged = sum(_may_be_a_slice(file, suffixes) for file in others)
    if damaged:
        msg = (
            f"{damaged} of {len(files)} files of the folder are damaged or empty: replace them, or "
            "take them out of the folder."
        )
        raise UnreadableError(msg)
    return read


_LEFT_OUT: Any = object()


def _read_file(file: Path, series: int | None) -> Any | None:
    if file.name.startswith("."):
        return None
    try:
        with file.open("rb") as stream:
            if series is not None:
                header = _parse(stream, ["SOPClassUID", "SeriesNumber", "Rows", "Columns"])
                if header is None or str(header.get("SeriesNumber")) != str(series):
                    return header if header is None else _LEFT_OUT
            return _parse(stream, None)
    except UnreadableError:
        raise
    except PermissionError:
        raise
    except Exception:  # a damaged header breaks the parser in any way
        return None


def _parse(stream: BinaryIO, tags: list[str] | None) -> Any | None:
    """Return a data set; None if the file holds none.

    Args:
        stream: The file.
        tags: The only elements that are wanted, none of them pixels; None reads all.
    """
    import pydicom

    stream.seek(0)
    head = stream.read(_HEAD)
    has_preamble = head[128:132] == b"DICM"
    if not has_preamble and not _begins_with_an_element(head):
        return None
    stream.seek(0)
    if tags is None:
        dataset = pydicom.dcmread(stream, force=True)
    else:
        wanted = [*tags, "SOPClassUID"]
        dataset = pydicom.dcmread(
            stream, force=True, stop_before_pixels=True, specific_tags=list(wanted)
        )
    if not _is_real(dataset):
        return None
    _complete_syntax(dataset)
    return dataset


def _is_real(dataset: Any) -> bool:
    """Whether a parsed file is DICOM, and not bytes that happen to begin like it."""
    meta = getattr(dataset, "file_meta", None) or {}
    return bool(
        "SOPClassUID" in dataset
        or "DirectoryRecordSequence" in dataset
        or meta.get("MediaStorageSOPClassUID")
        or ("Rows" in dataset and "Columns" in dataset)
    )


def _complete_syntax(dataset: Any) -> None:
    """Say how a file without the group 0002 is written, as it was found while reading."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if getattr(dataset, "file_meta", None) is None:
        dataset.file_meta = FileMetaDataset()
    if dataset.file_meta.get("TransferSyntaxUID"):
        return
    implicit, little = dataset.original_encoding
    dataset.file_meta.TransferSyntaxUID = (
        ImplicitVRLittleEndian
        if implicit
        else ExplicitVRLittleEndian
        if little is not False
        else ExplicitVRBigEndian
    )


def _begins_with_an_element(head: bytes) -> bool:
    """Whether the first bytes are an element of the groups 0002 or 0008, as without a preamble."""
    if len(head) < 16:
        return False
    for order in ("<", ">"):
        group, element = struct.unpack(f"{order}HH", head[:4])
        if group not in (0x0002, 0x0008) or element > 0x0100:
            continue
        if head[4:6] in _VALUE_TYPES:
            return True
        length = int.from_bytes(head[4:8], "little" if order == "<" else "big")
        return length <= _LONGEST_FIRST_VALUE
    return False


def _may_be_a_slice(file: Path, suffixes: Iterable[str]) -> bool:
    """Whether a file that holds no DICOM stands where a slice should be."""
    if file.name.startswith("."):
        return False
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    if head.startswith(_APPLE):
        return False
    suffix = _suffix(file)
    if suffix in _NAMES:
        return True
    if head[128:132] == b"DICM":
        return True
    if suffix not in suffixes:
        return False
    return not head.startswith(_OTHERS) and not _is_text(head)


def _suffix(file: Path) -> str:
    suffix = file.suffix.lower()
    return "" if suffix[1:].isdecimal() else suffix


def _is_text(head: bytes) -> bool:
    printable = sum(byte in b"\t\n\r\f" or byte >= 0x20 for byte in head)
    return bool(head) and printable == len(head)
