"""Small DICOM objects for tests: slices, segmentations, structure sets, and others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    SegmentationStorage,
    generate_uid,
)

PATIENT = "Canary^Patient-4711"
FRAME = "1.2.826.0.1.3680043.8.498.77"
AXIAL = (1, 0, 0, 0, 1, 0)


def bare(sop_class: str = CTImageStorage, **elements: Any) -> Dataset:
    """Return an object without pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientName, dataset.PatientID = PATIENT, "CANARY-ID-4711"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    return _with(dataset, elements)


def picture(pixels: NDArray[Any], sop_class: str = CTImageStorage, **elements: Any) -> Dataset:
    """Return an object with pixels: (rows, columns), (frames, rows, columns), 3 colours last."""
    dataset = bare(sop_class)
    colours = pixels.shape[-1] == 3 and pixels.ndim > 2
    size = pixels.shape[:-1] if colours else pixels.shape
    dataset.Rows, dataset.Columns = size[-2:]
    if len(size) == 3:
        dataset.NumberOfFrames = size[0]
    dataset.SamplesPerPixel = 3 if colours else 1
    dataset.PhotometricInterpretation = "RGB" if colours else "MONOCHROME2"
    if colours:
        dataset.PlanarConfiguration = 0
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelData = pixels.tobytes()
    return _with(dataset, elements)


def ct_slice(pixels: NDArray[Any], position: Sequence[float], **elements: Any) -> Dataset:
    """Return a slice of a CT of columns 1 mm and rows 1 mm apart, in Hounsfield units as stored."""
    dataset = picture(pixels)
    dataset.Modality, dataset.SeriesNumber = "CT", 3
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.FrameOfReferenceUID = FRAME
    dataset.ImagePositionPatient = [float(value) for value in position]
    dataset.ImageOrientationPatient = list(AXIAL)
    dataset.PixelSpacing, dataset.SliceThickness = [1.0, 1.0], 2.0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    return _with(dataset, elements)


def save(dataset: Dataset, path: Path, preamble: bool = True) -> Path:
    """Write an object; without the preamble, it is written as old tools do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    if not preamble:
        path.write_bytes(path.read_bytes()[132:])
    return path


def save_ct(folder: Path, volume: NDArray[Any], gap: float = 2.0, **elements: Any) -> Path:
    """Write a volume ``(slices, rows, columns)``, one file a slice, in another order of names."""
    for number, pixels in enumerate(volume):
        dataset = ct_slice(pixels, (0, 0, number * gap), InstanceNumber=number + 1, **elements)
        save(dataset, folder / f"IM{len(volume) - 1 - number:03d}.dcm")
    return folder


def sequence(*items: Mapping[str, Any]) -> pydicom.Sequence:
    """Return a sequence of items."""
    return pydicom.Sequence([_with(Dataset(), item) for item in items])


def segmentation(
    frames: Sequence[tuple[int, Sequence[float], NDArray[Any]]],
    labels: Sequence[str],
    kind: str = "BINARY",
    **elements: Any,
) -> Dataset:
    """Return a SEG of frames (segment number, position, pixels)."""
    pixels = np.stack([frame for _, _, frame in frames])
    dataset = picture(pixels.astype(np.uint8), SegmentationStorage)
    dataset.Modality, dataset.SegmentationType = "SEG", kind
    dataset.NumberOfFrames = len(frames)
    dataset.FrameOfReferenceUID = FRAME
    if kind == "BINARY":
        dataset.BitsAllocated = dataset.BitsStored = 1
        dataset.HighBit = 0
        packed = np.packbits(pixels.astype(bool).ravel(), bitorder="little").tobytes()
        dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    dataset.SegmentSequence = sequence(
        *({"SegmentNumber": n, "SegmentLabel": label} for n, label in enumerate(labels, start=1))
    )
    measures = {"PixelSpacing": [1.0, 1.0], "SliceThickness": 2.0, "SpacingBetweenSlices": 2.0}
    dataset.SharedFunctionalGroupsSequence = sequence(
        {
            "PlaneOrientationSequence": sequence({"ImageOrientationPatient": list(AXIAL)}),
            "PixelMeasuresSequence": sequence(measures),
        }
    )
    dataset.PerFrameFunctionalGroupsSequence = sequence(
        *(
            {
                "PlanePositionSequence": sequence({"ImagePositionPatient": [*map(float, place)]}),
                "SegmentIdentificationSequence": sequence({"ReferencedSegmentNumber": number}),
            }
            for number, place, _ in frames
        )
    )
    return _with(dataset, elements)


def structures(
    outlines: Mapping[str, Sequence[Sequence[Sequence[float]]]], **elements: Any
) -> Dataset:
    """Return an RTSTRUCT: outlines, each a list of points (x, y, z) in LPS, by name."""
    dataset = bare(RTStructureSetStorage)
    dataset.Modality = "RTSTRUCT"
    dataset.ReferencedFrameOfReferenceSequence = sequence({"FrameOfReferenceUID": FRAME})
    names = list(outlines)
    dataset.StructureSetROISequence = sequence(
        *({"ROINumber": n, "ROIName": name} for n, name in enumerate(names, start=1))
    )
    dataset.ROIContourSequence = sequence(
        *(
            {
                "ReferencedROINumber": n,
                "ContourSequence": sequence(
                    *(
                        {
                            "ContourGeometricType": "CLOSED_PLANAR",
                            "NumberOfContourPoints": len(points),
                            "ContourData": [float(v) for point in points for v in point],
                        }
                        for points in outlines[name]
                    )
                ),
            }
            for n, name in enumerate(names, start=1)
        )
    )
    return _with(dataset, elements)


def enhanced(
    volume: NDArray[Any], places: Sequence[Mapping[str, Any]], sop_class: str, **elements: Any
) -> Dataset:
    """Return a multi-frame object; each frame with its functional groups."""
    dataset = picture(volume, sop_class)
    dataset.FrameOfReferenceUID = FRAME
    dataset.SharedFunctionalGroupsSequence = sequence(
        {
            "PlaneOrientationSequence": sequence({"ImageOrientationPatient": list(AXIAL)}),
            "PixelMeasuresSequence": sequence({"PixelSpacing": [1.0, 1.0], "SliceThickness": 2.0}),
        }
    )
    dataset.PerFrameFunctionalGroupsSequence = sequence(*places)
    return _with(dataset, elements)


def at(z: float, **groups: Mapping[str, Any]) -> dict[str, Any]:
    """Return the functional groups of a frame at a height: each a sequence of one item."""
    place = {"PlanePositionSequence": sequence({"ImagePositionPatient": [0.0, 0.0, float(z)]})}
    return {**place, **{name: sequence(item) for name, item in groups.items()}}


def _with(dataset: Dataset, elements: Mapping[str, Any]) -> Dataset:
    for name, value in elements.items():
        if value is None:
            if name in dataset:
                delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset
