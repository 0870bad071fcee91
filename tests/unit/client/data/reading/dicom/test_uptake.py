"""PET comes in standardised uptake values, or is refused in words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import PositronEmissionTomographyImageStorage
from tests.support.clinic.dicom_objects import ct_slice, save, sequence

from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.image import UnreadableError
from wardround.client.data.reading.readers import read_image

STORED = np.array([[0, 1000], [2000, 30000]], np.int16)
HALF_LIFE = 6586.2  # seconds, of fluorine-18
DOSE = 4e8  # Bq


def pet(number: int = 0, tracer: dict[str, Any] | None = None, **elements: Any) -> Dataset:
    """Return a slice that was scanned one half-life after the injection."""
    wanted = {
        "Modality": "PT",
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["ATTN", "DECY"],
        "PatientWeight": 80.0,
        "SeriesDate": "20260131",
        "SeriesTime": "100000.00",
        "AcquisitionDate": "20260131",
        "AcquisitionTime": f"1000{number:02d}",
        "RescaleSlope": 2.0 + number,
        "RescaleType": None,
    } | elements
    given = {
        "RadionuclideTotalDose": DOSE,
        "RadionuclideHalfLife": HALF_LIFE,
        "RadiopharmaceuticalStartTime": "081013.8",
    } | (tracer or {})
    given = {name: value for name, value in given.items() if value is not None}
    dataset = ct_slice(STORED, (0, 0, number), **wanted)
    dataset.SOPClassUID = PositronEmissionTomographyImageStorage
    dataset.RadiopharmaceuticalInformationSequence = sequence(given)
    return dataset


def read(tmp_path: Path, dataset: Dataset) -> np.ndarray:
    return read_image(Location(save(dataset, tmp_path / "x.dcm")), 2).array[0]


# Activity times weight in grams over what is left of the dose.
SUV = STORED * 2.0 * 80_000 / (DOSE / 2)


@pytest.mark.parametrize(
    "dataset",
    [
        pet(),
        pet(tracer={"RadiopharmaceuticalStartDateTime": "20260131081013.80"}),
        pet(DecayCorrection="ADMIN", tracer={"RadionuclideTotalDose": DOSE / 2}),
        # A series that was made again in the evening: the first acquisition counts.
        pet(SeriesTime="180000"),
        # Injected before midnight.
        pet(
            SeriesTime="003000",
            AcquisitionTime="003000",
            tracer={"RadiopharmaceuticalStartTime": "224013.8"},
        ),
        # Dates of the injection that a de-identification left as they were.
        pet(
            tracer={
                "RadiopharmaceuticalStartDateTime": "20190101081013.80",
                "RadiopharmaceuticalStartTime": None,
            }
        ),
        pet(PhotometricInterpretation="MONOCHROME1"),
    ],
)
def test_activity_becomes_uptake_by_body_weight(tmp_path: Path, dataset: Dataset) -> None:
    np.testing.assert_allclose(read(tmp_path, dataset), SUV, rtol=1e-5)


def test_uptake_is_left_as_it_is(tmp_path: Path) -> None:
    np.testing.assert_allclose(read(tmp_path, pet(Units="GML")), STORED * 2.0)


def test_counts_are_scaled_by_what_philips_writes(tmp_path: Path) -> None:
    dataset = pet(Units="CNTS")
    block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "DS", "0.0005")
    np.testing.assert_allclose(read(tmp_path, dataset), STORED * 2.0 * 0.0005, rtol=1e-5)
    dataset = pet(Units="CNTS")
    block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "DS", "0")
    block.add_new(0x09, "DS", "3.0")
    np.testing.assert_allclose(read(tmp_path, dataset), SUV * 3, rtol=1e-5)


def test_each_slice_has_its_own_slope(tmp_path: Path) -> None:
    for number in range(3):
        save(pet(number), tmp_path / "s" / f"{number}.dcm")
    image = read_image(Location(tmp_path / "s"), 3)
    for number in range(3):
        np.testing.assert_allclose(
            image.array[0, :, :, number].T, SUV / 2 * (2 + number), rtol=1e-5
        )


@pytest.mark.parametrize(
    ("dataset", "fact"),
    [
        (pet(PatientWeight=None), "weight is missing"),
        (pet(PatientWeight=0), "weight is missing"),
        (pet(PatientWeight=80_000), r"weight cannot be \(80000 kg\)"),
        (pet(tracer={"RadionuclideTotalDose": None}), "injected dose is missing"),
        (pet(tracer={"RadionuclideTotalDose": 400}), r"dose cannot be \(400 Bq\)"),
        (pet(tracer={"RadionuclideHalfLife": None}), "half-life"),
        (pet(tracer={"RadiopharmaceuticalStartTime": None}), "time of the injection"),
        (pet(DecayCorrection="NONE"), "not corrected for decay"),
        (pet(Units="CNTS"), "scale factor is missing"),
        (pet(Units="PROPCPS"), "Units: PROPCPS"),
        (pet(Units=None), "Units: not given"),
        (pet(Units="GML", SUVType="LBM"), "not by body weight"),
        (
            pet(SeriesTime=None, AcquisitionTime=None),
            "time of the scan is missing",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, dataset: Dataset, fact: str) -> None:
    with pytest.raises(UnreadableError, match=f"cannot be worked out: .*{fact}.*; export it"):
        read(tmp_path, dataset)
