"""One DICOM file: read, cleaned, checked, and written whole."""

import io
from copy import copy
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from wardround.client.clinic.onboarding.deidentification.canaries import (
    Canaries,
    find_canary,
    scrub_texts,
)
from wardround.client.clinic.onboarding.deidentification.cleaning import Cleaning, TooDeepError
from wardround.client.clinic.onboarding.deidentification.keyed_maps import (
    KeyedMaps,
    normal_identifier,
)
from wardround.client.clinic.onboarding.deidentification.options import DeidentificationOptions
from wardround.client.clinic.onboarding.deidentification.pixels import (
    HiddenTextError,
    clean_pixels,
)
from wardround.common.errors import WardroundError

# Of our own, from a UUID as PS3.5 B.2 allows it: which program wrote a file.
_IMPLEMENTATION = "2.25.259120684573618302911845027361954210477"
_METHOD_LENGTH = 64


class RefusedFileError(Exception):
    """A file that is not taken; its text is one of a few fixed reasons, without a value of it."""


@dataclass(frozen=True)
class Deidentified:
    """A result that has passed the check.

    Attributes:
        dataset: It, as a reader of the bytes sees it.
        content: The bytes of its file.
    """

    dataset: Dataset
    content: bytes


def deidentify(
    source: Dataset,
    maps: KeyedMaps,
    options: DeidentificationOptions,
    region_names: frozenset[str] = frozenset(),
    pixels_cleaned: bool = False,
) -> Deidentified:
    """Return a DICOM file without what names its patient.

    Args:
        source: As it was read, with its file meta information; it stays as it is.
        region_names: Names of segments and structures that may stay.
        pixels_cleaned: Whether text in the pixels was masked.

    Raises:
        RefusedFileError: It has no patient, cannot be written again, or something of what was
            removed is still in the result.
    """
    patient = normal_identifier(str(source.get("PatientID", "") or ""))
    if not patient:
        msg = "it names no patient"
        raise RefusedFileError(msg)
    canaries = Canaries()
    cleaning = Cleaning(maps, options, patient, region_names, canaries.add)
    try:
        result = cleaning.clean(source)
        scrub_texts(canaries, result)
        clean_pixels(source, result)
        _say_what_was_done(result, options, pixels_cleaned)
        content = _write(source, result)
        written = pydicom.dcmread(io.BytesIO(content))
        found = find_canary(canaries, written, content)
    except WardroundError:
        raise
    except TooDeepError:
        msg = "its sequences are nested too deep"
        raise RefusedFileError(msg) from None
    except HiddenTextError:
        msg = "an overlay lies in its compressed pixels"
        raise RefusedFileError(msg) from None
    except Exception:  # pydicom raises of every kind, and quotes the file's values
        msg = "it is damaged, or no valid DICOM"
        raise RefusedFileError(msg) from None
    if found:
        msg = f"{found} of the patient was still in it after the de-identification"
        raise RefusedFileError(msg)
    return Deidentified(written, content)


def _say_what_was_done(
    result: Dataset, options: DeidentificationOptions, pixels_cleaned: bool
) -> None:
    codes = options.codes(pixels_cleaned)
    result.SpecificCharacterSet = "ISO_IR 192"
    result.PatientIdentityRemoved = "YES"
    result.DeidentificationMethod = [meaning[:_METHOD_LENGTH] for _, meaning in codes]
    result.DeidentificationMethodCodeSequence = Sequence([_code(*code) for code in codes])
    is_shifted = options.dates == "shifted"
    result.LongitudinalTemporalInformationModified = "MODIFIED" if is_shifted else "REMOVED"
    if pixels_cleaned:
        result.BurnedInAnnotation = "NO"


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _write(source: Dataset, result: Dataset) -> bytes:
    """Return the file: its own meta information, and nothing in front of it."""
    syntax = source.file_meta.TransferSyntaxUID
    if syntax == DeflatedExplicitVRLittleEndian:
        syntax = ExplicitVRLittleEndian  # so that the check sees what is in the file
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = result.SOPClassUID
    meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = _IMPLEMENTATION
    stream = io.BytesIO()
    file = FileDataset(stream, copy(result), file_meta=meta, preamble=b"\0" * 128)
    file.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
