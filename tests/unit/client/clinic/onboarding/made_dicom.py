"""DICOM made for tests: series of a few small slices, with a patient who can be recognised."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

SIZE = 12


def made_slice(number: int = 0, **values: Any) -> Dataset:
    """Return one MR slice; values are attributes by keyword, None takes one away."""
    dataset = Dataset()
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[str(values), str(number)])
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.55.1", "1.2.826.55.1.1"
    dataset.FrameOfReferenceUID = "1.2.826.55.1.2"
    dataset.PatientID, dataset.PatientName = "MRN-004711", "Schmidt^Erika"
    dataset.PatientBirthDate, dataset.PatientSex = "19610203", "F"
    dataset.StudyDate = dataset.SeriesDate = "20210504"
    dataset.StudyTime = dataset.SeriesTime = "093011"
    dataset.Modality, dataset.BodyPartExamined = "MR", "HEAD"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    dataset.SeriesDescription, dataset.SeriesNumber = "t1_mprage_sag", 2
    dataset.AccessionNumber, dataset.InstanceNumber = "ACC-99871", number + 1
    dataset.Rows = dataset.Columns = SIZE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelSpacing, dataset.SliceThickness = [1.0, 1.0], 2.0
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0.0, 0.0, 2.0 * number]
    pixels = np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE) + 100 * number
    dataset.PixelData = pixels.tobytes()
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return with_meta(dataset)


def with_meta(dataset: Dataset) -> Dataset:
    """Give a data set the file meta information that it needs."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    return dataset


def write_series(folder: Path, count: int = 4, **values: Any) -> list[Path]:
    """Write a series into a folder, one file a slice, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    series = str(values.get("SeriesInstanceUID", "1.2.826.55.1.1"))
    paths = []
    for number in range(count):
        dataset = made_slice(number, **values)
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[series, str(number)])
        with_meta(dataset)
        path = folder / f"{series.replace('.', '_')}-{number:03}"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
