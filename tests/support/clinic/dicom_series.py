"""Small MR series as DICOM files, made here: no patient's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

MR = "1.2.840.10008.5.1.4.1.1.4"


def make_series(
    number: int, slices: int = 8, rows: int = 24, columns: int = 20, **changed: object
) -> list[pydicom.Dataset]:
    """Return a series of slices with a bright block, in order of position.

    Args:
        number: Of the study: all identifiers follow from it.
        changed: Other values of attributes, by keyword, of each object.
    """
    made = []
    generator = np.random.default_rng(number)
    for at in range(slices):
        pixels = generator.integers(0, 200, (rows, columns)).astype(np.uint16)
        if 2 <= at < slices - 2:
            pixels[6:16, 5:14] += 800
        one = pydicom.Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = MR
        one.SOPInstanceUID = f"1.2.3.{number}.2.{at + 1}"
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.StudyInstanceUID, one.SeriesInstanceUID = f"1.2.3.{number}", f"1.2.3.{number}.1"
        one.FrameOfReferenceUID = f"1.2.3.{number}.9"
        one.PatientName, one.PatientID = f"CANARYNAME{number}^", f"CANARYPATIENT{number}"
        one.PatientBirthDate, one.PatientSex, one.PatientAge = "19700101", "O", "050Y"
        one.StudyDate, one.StudyTime, one.StudyID = "20260101", "120000", "1"
        one.ContentDate, one.ContentTime = "20260101", "120000"
        one.AccessionNumber, one.ReferringPhysicianName = f"CANARYACCESSION{number}"[:16], ""
        one.Modality, one.Manufacturer = "MR", "none"
        one.StudyDescription, one.SeriesDescription = "brain", "t1 sagittal"
        one.SeriesNumber, one.InstanceNumber = 1, at + 1
        one.ImagePositionPatient = [-10.0, -12.0, 2.0 * at]
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.PixelSpacing, one.SliceThickness = [1.0, 1.0], 2.0
        one.Rows, one.Columns = rows, columns
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 0
        one.PixelData = pixels.tobytes()
        for keyword, value in changed.items():
            setattr(one, keyword, value)
        made.append(one)
    return made


def write_series(folder: Path, series: Sequence[pydicom.Dataset]) -> list[Path]:
    """Write a series into a folder, its files named backwards."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for at, one in enumerate(series):
        path = folder / f"{len(series) - at:04d}.dcm"
        pydicom.dcmwrite(path, one, enforce_file_format=True)
        paths.append(path)
    return paths
